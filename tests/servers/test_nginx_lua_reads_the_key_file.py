"""nginx's Lua reader, run without nginx, says of every file what all other readers say."""

import hashlib
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from keyrotd.servers import keyfile, layouts
from tests.nginx_lua import LUA
from tests.nginx_sites import BOOT_ID, new_window
from tests.servers_found import luajit

pytestmark = pytest.mark.debian

_VECTORS = Path(__file__).parents[1] / "vectors" / "keyfile"
_SCRIPT = Path(__file__).parent / "keyfile_verdicts.lua"

_MUTANTS = 1500

_BOOT = BOOT_ID.replace("-", "")


def test_every_vector_has_the_verdict_that_is_written() -> None:
    """The vectors for records of 80 bytes, at the epoch and the time of each."""
    cases = [line.split() for line in (_VECTORS / "verdicts.txt").read_text().splitlines() if not line.startswith("#")]
    mine = [case for case in cases if case[1] == "80"]

    said = _verdicts([(_VECTORS / name, boot, int(epoch), int(now)) for name, _, boot, epoch, now, _ in mine])

    assert [(*case[:-1], word) for case, word in zip(mine, said, strict=True)] == [tuple(case) for case in mine]
    assert len(mine) > 50


def test_mutants_of_a_good_file_are_judged_as_by_the_writer(tmp_path: Path) -> None:
    """Bytes flipped, cut, doubled and moved, half of them under a digest that fits: no verdict differs."""
    rand = random.Random(80)
    good = new_window().bounded(seals_ms=1000, opens_ms=2000).content
    mutants = []
    for number in range(_MUTANTS):
        path = tmp_path / str(number)
        path.write_bytes(_mutant(good, rand))
        mutants.append(path)

    said = _verdicts([(path, _BOOT, 1, 1000) for path in mutants])

    expected = [_expected(path.read_bytes(), epoch=1, now_ms=1000) for path in mutants]
    assert list(zip(mutants, said, strict=True)) == list(zip(mutants, expected, strict=True))
    assert len(set(said)) >= 8


def test_what_is_no_plain_file_of_ours_is_refused(tmp_path: Path) -> None:
    """Nothing there, a link, a directory, a FIFO, a file that others may write: none is read, none is waited for."""
    real = tmp_path / "real"
    real.write_bytes(new_window().content)
    link, directory, fifo, open_to_all = (tmp_path / name for name in ("link", "directory", "fifo", "open"))
    link.symlink_to(real)
    directory.mkdir()
    os.mkfifo(fifo)
    open_to_all.write_bytes(real.read_bytes())
    open_to_all.chmod(0o666)

    said = _verdicts([(path, _BOOT, 0, 0) for path in (real, tmp_path / "none", link, directory, fifo, open_to_all)])

    assert said == ["ok", "missing", "bad-file", "bad-file", "bad-file", "bad-file"]


def _verdicts(cases: Sequence[tuple[Path, str, int, int]]) -> list[str]:
    lines = "".join(f"{path} {boot} {epoch} {now_ms}\n" for path, boot, epoch, now_ms in cases)
    done = subprocess.run(
        [luajit(), _SCRIPT, LUA, "libcrypto.so.3"], input=lines, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def _expected(data: bytes, *, epoch: int, now_ms: int) -> str:
    try:
        found = keyfile.decode(data)
    except keyfile.BadKeyFile as refusal:
        return refusal.fault
    return keyfile.judge(found, layout=layouts.NGINX80, boot_id=BOOT_ID, epoch=epoch, now_ms=now_ms) or "ok"


def _mutant(good: bytes, rand: random.Random) -> bytes:
    body = bytearray(good[:-32])
    for _ in range(rand.randint(1, 3)):
        # Most of what there is to get wrong is in the head.
        at = rand.randrange(len(body) if rand.random() < 0.3 else min(len(body), 96))
        match rand.randrange(4):
            case 0:
                body[at] ^= 1 << rand.randrange(8)
            case 1:
                del body[max(at, 1) : at + rand.choice((1, 80, 400))]
            case 2:
                body[at:at] = body[at : at + rand.choice((1, 80))]
            case _:
                body[at : at + 8] = bytes(rand.choice((0, 255)) for _ in range(8))
    return bytes(body) + (hashlib.sha256(body).digest() if rand.random() < 0.5 else good[-32:])
