"""The C header of readers in C and C++ gives every verdict of the vectors, reads no odd file, and acknowledges."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.servers import acks
from tests import servers_found
from tests.vectors.make_keyfiles import FOLDER

pytestmark = pytest.mark.debian

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "tests" / "readers" / "reader.c"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-O2", "-g")
POSIX = "-D_POSIX_C_SOURCE=200809L"
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Reader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, *words: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")


@pytest.fixture(
    scope="module",
    params=[("cc", "-std=c99", "-pedantic", POSIX), ("cc", "-std=c11", POSIX, *SANITIZED), ("c++", "-std=c++17")],
    ids=["c99", "c11 sanitized", "c++17"],
)
def exe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    language, *options = request.param
    built = tmp_path_factory.mktemp("reader") / "reader"
    compiler = servers_found.c_compiler() if language == "cc" else servers_found.cxx_compiler()
    kind = "c" if language == "cc" else "c++"
    header = CHECKOUT / "deploy" / "keyfile"
    argv = [compiler, *options, *WARNINGS, f"-I{header}", "-x", kind, SOURCE, "-lcrypto", "-o", built]
    subprocess.run(argv, check=True, timeout=60)
    return built


@pytest.fixture
def reader(exe: Path) -> Iterator[Reader]:
    with running(exe) as started:
        yield started


@contextmanager
def running(exe: Path) -> Iterator[Reader]:
    process = subprocess.Popen([exe], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield Reader(process)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_every_vector_gets_its_verdict(reader: Reader) -> None:
    cases = [line.split(" ") for line in (FOLDER / "verdicts.txt").read_text().splitlines()]

    found = [(*case, reader.say("judge", FOLDER / file, *case)) for file, *case, _ in cases]

    assert found == [(*case, expected) for _, *case, expected in cases]


def test_the_boot_and_its_clock_are_the_systems(reader: Reader) -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    before_ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    fault, found, now_ms = reader.say("boot", "-").split(" ")

    assert (fault, found) == ("0", boot_id)
    assert before_ms <= int(now_ms) <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def test_what_has_not_changed_is_not_read_again(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    replaced(path, "plain.bin")

    assert [reader.say("poll", path) for _ in range(2)] == ["changed ok", "unchanged ok"]
    replaced(path, "one-key.bin")
    assert [reader.say("poll", path) for _ in range(2)] == ["changed ok", "unchanged ok"]


def test_a_fault_is_told_once(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "keys"

    assert [reader.say("poll", path) for _ in range(2)] == ["changed missing", "unchanged missing"]
    replaced(path, "digest-cut.bin")
    assert reader.say("poll", path) == "changed bad-length"
    path.unlink()
    assert reader.say("poll", path) == "changed missing"
    replaced(path, "plain.bin")
    assert reader.say("poll", path) == "changed ok"


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused_until_its_mode_is_right(
    reader: Reader, tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "keys"
    replaced(path, "plain.bin")
    path.chmod(mode)

    assert [reader.say("poll", path) for _ in range(2)] == ["changed bad-file", "unchanged bad-file"]
    path.chmod(0o640)
    assert reader.say("poll", path) == "changed ok"


def test_nothing_but_a_plain_file_is_read_and_nobody_waits(reader: Reader, tmp_path: Path) -> None:
    replaced(tmp_path / "keys", "plain.bin")
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "directory").mkdir()
    (tmp_path / "long").write_bytes(bytes(1 << 20))
    (tmp_path / "long").chmod(0o600)

    assert reader.say("poll", tmp_path / "link") == "changed bad-file"
    assert reader.say("poll", tmp_path / "fifo") == "changed bad-file"
    assert reader.say("poll", tmp_path / "directory") == "changed bad-file"
    assert reader.say("poll", "/dev/zero") == "changed bad-file"
    assert reader.say("poll", tmp_path / "long") == "changed bad-length"


def test_an_acknowledgement_is_what_keyrotd_reads(reader: Reader, tmp_path: Path) -> None:
    now_at = time.time_ns() // 1_000_000

    assert reader.say("ack", tmp_path, 4711) == "0"
    assert reader.say("ack-nothing", tmp_path, 4712) == "0"

    one, other = acks.living(tmp_path, now_at)
    assert replace(one, touched_at=0) == acks.Ack(
        pid=4711,
        parent=4700,
        processes=2,
        poll_ms=1000,
        digest="abcdef" + 58 * "0",
        seals="0123" + 28 * "0",
        epoch=2**64 - 1,
        step=2**64 - 2,
        installed_at=1_800_000_000_000,
        contexts=3,
        fault="twin-names",
        touched_at=0,
    )
    assert (other.pid, other.digest, other.seals, other.fault) == (4712, None, None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4711", "4712"]


def test_an_acknowledgement_is_replaced_touched_and_taken_away(reader: Reader, tmp_path: Path) -> None:
    now_at = time.time_ns() // 1_000_000
    reader.say("ack", tmp_path, 4711)
    os.utime(tmp_path / "4711", (0, 0))
    assert acks.living(tmp_path, now_at) == ()

    (tmp_path / "4711").write_text("nonsense")
    reader.say("ack-nothing", tmp_path, 4711)
    inode = (tmp_path / "4711").stat().st_ino
    os.utime(tmp_path / "4711", (0, 0))

    assert reader.say("ack-nothing", tmp_path, 4711) == "0"
    (alive,) = acks.living(tmp_path, now_at)
    assert (alive.pid, (tmp_path / "4711").stat().st_ino) == (4711, inode)
    (tmp_path / "4711").unlink()
    assert reader.say("ack-nothing", tmp_path, 4711) == "0"
    assert len(acks.living(tmp_path, now_at)) == 1
    reader.say("remove", tmp_path, 4711)
    assert acks.living(tmp_path, now_at) == ()
    assert reader.say("ack", tmp_path / "none", 4711) == str(errno.ENOENT)


def test_what_the_dead_left_is_taken_away(reader: Reader, tmp_path: Path) -> None:
    dead, another = (subprocess.Popen(["true"]) for _ in range(2))
    for ended in (dead, another):
        ended.wait()
    kept = {str(os.getpid()), "1", "0", "-1", f"{dead.pid}x", "99999999999999999999", f".{dead.pid}.tmp"}
    for name in (str(dead.pid), *kept):
        (tmp_path / name).write_text("keyrotd-ack 1\npid 1\n")
    (tmp_path / str(another.pid)).write_text("somebody's letter")

    reader.say("sweep", tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {*kept, str(another.pid)}


def replaced(path: Path, vector: str) -> None:
    temp = path.with_suffix(".tmp")
    temp.write_bytes((FOLDER / vector).read_bytes())
    temp.chmod(0o640)
    temp.rename(path)
