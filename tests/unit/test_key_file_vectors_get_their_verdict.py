"""The key file of in-process readers: what keyrotd writes and reads is what docs/key-file.md says, and no more."""

import pytest

from keyrotd.core.stek import Secrets, Stek
from keyrotd.servers.keyfile import FAULTS, LAYOUTS, BadKeyFile, KeyFile, decode, digest, judge
from keyrotd.servers.layouts import ATS48, HAPROXY80, NGINX80, Layout
from tests.vectors import make_keyfiles
from tests.vectors.make_keyfiles import FOLDER

#: What a file's bytes alone cannot show.
NOT_IN_BYTES = {"missing", "bad-file", "layout"}
CASES = [line.split(" ") for line in (FOLDER / "verdicts.txt").read_text().splitlines()]


@pytest.mark.parametrize(("file", "size", "epoch", "now_at", "expected"), CASES)
def test_a_vector_gets_its_verdict(file: str, size: str, epoch: str, now_at: str, expected: str) -> None:
    content = (FOLDER / file).read_bytes()

    assert verdict(content, size=int(size), epoch=int(epoch), now_at=int(now_at)) == expected


@pytest.mark.parametrize("file", sorted({file for file, *_, expected in CASES if expected == "ok"}))
def test_what_is_accepted_is_what_would_be_written(file: str) -> None:
    content = (FOLDER / file).read_bytes()

    assert decode(content).encode() == content


def test_the_vectors_show_every_verdict() -> None:
    assert {expected for *_, expected in CASES} == {"ok", *FAULTS} - NOT_IN_BYTES


def test_the_vectors_are_what_their_maker_makes() -> None:
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == make_keyfiles.files()


def test_every_cut_and_every_flipped_bit_is_refused() -> None:
    content = (FOLDER / "plain.bin").read_bytes()

    for length in range(len(content)):
        with pytest.raises(BadKeyFile):
            decode(content[:length])
    for bit in range(8 * len(content)):
        with pytest.raises(BadKeyFile):
            decode(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=["80", "48"])
def test_a_file_that_was_written_is_read_back(layout: Layout) -> None:
    written = KeyFile(layout=layout, keys=some_keys(layout, 5), epoch=12, step=3, seals_until=7, opens_until=9)

    assert decode(written.encode()) == written
    assert digest(written.encode()) == written.encode()[-32:].hex()


def test_a_file_that_no_reader_would_take_is_not_made() -> None:
    keys = some_keys(NGINX80, 97)
    with pytest.raises(ValueError, match="not 97"):
        KeyFile(layout=NGINX80, keys=keys)
    with pytest.raises(ValueError, match="not 0"):
        KeyFile(layout=NGINX80, keys=())
    with pytest.raises(ValueError, match="one name"):
        KeyFile(layout=NGINX80, keys=keys[:1] * 2)
    with pytest.raises(ValueError, match="layout"):
        KeyFile(layout=HAPROXY80, keys=keys[:3])


def test_no_key_is_in_what_a_file_looks_like() -> None:
    keys = some_keys(ATS48, 2)
    shown = repr(KeyFile(layout=ATS48, keys=keys))

    assert not any(secret.hex() in shown or repr(secret) in shown for key in keys for secret in (key.aes, key.hmac))


def verdict(content: bytes, *, size: int, epoch: int, now_at: int) -> str:
    try:
        found = decode(content)
    except BadKeyFile as bad:
        return bad.fault
    return judge(found, layout=LAYOUTS[size], epoch=epoch, now_at=now_at) or "ok"


def some_keys(layout: Layout, count: int) -> tuple[Secrets, ...]:
    seeds = (make_keyfiles.fixed(f"seed {n}", 32) for n in range(count))
    return tuple(Stek(seed, "edge").secrets(layout.scheme) for seed in seeds)
