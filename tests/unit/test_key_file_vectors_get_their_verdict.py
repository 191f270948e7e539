"""The key file of in-process readers: what keyrotd writes and reads is what docs/key-file.md says, and no more."""

from uuid import UUID, uuid4

import pytest

from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Secrets, Stek
from keyrotd.servers.keyfile import FAULTS, LAYOUTS, BadKeyFile, KeyFile, decode, digest, judge
from keyrotd.servers.layouts import ATS48, HAPROXY80, NGINX80, Layout
from tests.vectors import make_keyfiles
from tests.vectors.make_keyfiles import FOLDER

#: What a file's bytes alone cannot show.
NOT_IN_BYTES = {"missing", "bad-file", "layout"}
CASES = [line.split(" ") for line in (FOLDER / "verdicts.txt").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_vector_gets_its_verdict(case: list[str]) -> None:
    file, size, boot_id, epoch, now_ms, expected = case
    content = (FOLDER / file).read_bytes()

    assert verdict(content, int(size), boot_id, int(epoch), int(now_ms)) == expected


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
    tenure = Tenure(boot_id=str(uuid4()), epoch=12, step=3, seals_until_ms=7, opens_until_ms=None)
    written = KeyFile(layout=layout, keys=some_keys(layout, 5), tenure=tenure)

    assert decode(written.encode()) == written
    assert digest(written.encode()) == written.encode()[-32:].hex()


def test_keys_of_no_window_have_no_bounds() -> None:
    written = KeyFile(layout=NGINX80, keys=some_keys(NGINX80, 2))

    assert decode(written.encode()) == written
    assert judge(written, layout=NGINX80, boot_id=str(uuid4()), epoch=0, now_ms=2**52) is None


def test_a_bound_from_before_the_boot_has_passed() -> None:
    boot_id = str(uuid4())
    tenure = Tenure(boot_id=boot_id, epoch=1, step=0, seals_until_ms=-9, opens_until_ms=0)

    written = decode(KeyFile(layout=NGINX80, keys=some_keys(NGINX80, 2), tenure=tenure).encode())

    assert judge(written, layout=NGINX80, boot_id=boot_id, epoch=0, now_ms=1) == "expired"


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


def verdict(content: bytes, size: int, boot_id: str, epoch: int, now_ms: int) -> str:
    try:
        found = decode(content)
    except BadKeyFile as bad:
        return bad.fault
    return judge(found, layout=LAYOUTS[size], boot_id=str(UUID(boot_id)), epoch=epoch, now_ms=now_ms) or "ok"


def some_keys(layout: Layout, count: int) -> tuple[Secrets, ...]:
    seeds = (make_keyfiles.fixed(f"seed {n}", 32) for n in range(count))
    return tuple(Stek(seed, "edge").secrets(layout.scheme) for seed in seeds)
