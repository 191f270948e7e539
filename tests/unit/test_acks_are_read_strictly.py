"""What processes of a server acknowledge: read strictly, believed while they live, counted for each parent."""

import os
from pathlib import Path

import pytest

from keyrotd.servers import acks
from keyrotd.servers.acks import Ack

NOW = 1_800_000_000_000
TEXT = f"""\
keyrotd-ack 1
pid 4711
parent 4700
processes 2
poll_ms 1000
digest {"ab" * 32}
seals {"cd" * 16}
epoch 12
step 0
installed_at {NOW}
contexts 3
fault -
"""


def test_an_acknowledgement_is_understood() -> None:
    assert acks.parse(TEXT.encode(), touched_at=NOW) == Ack(
        pid=4711,
        parent=4700,
        processes=2,
        poll_ms=1000,
        digest="ab" * 32,
        seals="cd" * 16,
        epoch=12,
        step=0,
        installed_at=NOW,
        contexts=3,
        fault=None,
        touched_at=NOW,
    )


@pytest.mark.parametrize(
    ("is_", "was"),
    [
        ("", "fault -\n"),
        ("fault -", "fault -\n"),
        ("fault -\n\n", "fault -\n"),
        ("fault -\r\n", "fault -\n"),
        ("fault none\n", "fault -\n"),
        ("fault bad-digest\nfault -\n", "fault -\n"),
        ("keyrotd-ack 2", "keyrotd-ack 1"),
        ("pid 04711", "pid 4711"),
        ("pid -4711", "pid 4711"),
        ("pid 0x1267", "pid 4711"),
        ("pid  4711", "pid 4711"),
        ("pid ٣", "pid 4711"),
        ("pid " + 30 * "9", "pid 4711"),
        ("AB", "ab"),
        ("poll_ms 60001", "poll_ms 1000"),
        ("digest abab", f"digest {'ab' * 32}"),
        ("step 0\nepoch 12", "epoch 12\nstep 0"),
    ],
)
def test_anything_else_is_none(is_: str, was: str) -> None:
    with pytest.raises(ValueError, match="not an acknowledgement"):
        acks.parse(TEXT.replace(was, is_, 1).encode(), touched_at=NOW)


def test_a_process_that_says_nothing_for_a_while_is_gone(tmp_path: Path) -> None:
    for pid, ago_ms in (1, 0), (2, 7_000), (3, 7_001), (4, -8_000):
        say(tmp_path, pid, touched_at=NOW - ago_ms)

    assert [ack.pid for ack in acks.living(tmp_path, NOW)] == [1, 2]


def test_what_the_dead_left_is_swept_up(tmp_path: Path) -> None:
    say(tmp_path, 1, touched_at=NOW)
    say(tmp_path, 2, touched_at=NOW - 60_000)
    say(tmp_path, 3, touched_at=NOW - 3_600_000)
    (tmp_path / "notes").touch()

    acks.living(tmp_path, NOW)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "notes"]


def test_what_is_no_acknowledgement_speaks_for_nobody(tmp_path: Path) -> None:
    say(tmp_path, 1, touched_at=NOW)
    (tmp_path / "2").write_text(TEXT)  # another's name
    (tmp_path / "3").write_bytes(b"x" * (1 << 20))
    (tmp_path / "4").symlink_to(tmp_path / "1")
    os.mkfifo(tmp_path / "5")
    (tmp_path / "6").mkdir()
    (tmp_path / ".7.tmp").write_text(TEXT)
    (tmp_path / "08").write_text(TEXT)

    assert [ack.pid for ack in acks.living(tmp_path, NOW)] == [1]


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        acks.living(tmp_path / "none", NOW)


def test_every_master_wants_all_its_workers(tmp_path: Path) -> None:
    def absent(*family: tuple[int, int, int, int]) -> int:
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        for pid, parent, processes, installed_at in family:
            say(directory, pid, parent=parent, processes=processes, installed_at=installed_at, touched_at=NOW)
        return acks.absent(acks.living(directory, NOW))

    assert absent() == 0
    assert absent((1, 9, 2, 5)) == 1
    assert absent((1, 9, 2, 5), (2, 9, 2, 5)) == 0
    assert absent((1, 9, 2, 5), (2, 9, 2, 5), (3, 10, 2, 6)) == 1  # a new master beside the old one
    assert absent((1, 9, 4, 5), (2, 9, 2, 6), (3, 9, 2, 6)) == 0  # reloaded with fewer workers
    assert absent((1, 9, 2, 5), (2, 9, 4, 6), (3, 9, 4, 6)) == 1  # reloaded with more


def say(
    directory: Path, pid: int, *, touched_at: int, parent: int = 4700, processes: int = 2, installed_at: int = NOW
) -> None:
    text = TEXT.replace("4711", str(pid)).replace("4700", str(parent)).replace("processes 2", f"processes {processes}")
    path = directory / str(pid)
    path.write_text(text.replace(f"installed_at {NOW}", f"installed_at {installed_at}"))
    os.utime(path, ns=(touched_at * 1_000_000, touched_at * 1_000_000))
