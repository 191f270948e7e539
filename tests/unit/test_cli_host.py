"""`keyrotd doctor` sees this machine as it is: what lies in memory, what is a link, what swaps to a disk."""

import os
from pathlib import Path

import pytest

from keyrotd.cli import host


def test_a_place_tells_its_mode_and_whether_it_is_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch(mode=0o640)
    link.symlink_to(file)

    assert (host.place(file).mode, host.place(file).link) == (0o640, False)
    assert host.place(link).link
    assert host.file_mode(link).mode == 0o640
    assert host.place(tmp_path / "nothing").mode is None


def test_what_is_not_there_yet_will_lie_where_the_nearest_directory_does() -> None:
    shm = Path("/dev/shm")
    if os.path.ismount(shm):
        assert host.place(shm / "not" / "there").in_memory
    assert not host.place(Path("/proc/not/there")).in_memory


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("", ()),
        ("/dev/zram0 partition 1 0 100\n", ()),
        ("/dev/sda2 partition 1 0 -2\n/swapfile file 1 0 -3\n", ("/dev/sda2", "/swapfile")),
    ],
)
def test_swap_that_is_memory_does_not_count(tmp_path: Path, lines: str, found: tuple[str, ...]) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(f"Filename Type Size Used Priority\n{lines}")

    assert host._disk_swaps(swaps) == found
    assert host._disk_swaps(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(
    ("groups", "limits", "swapless"),
    [
        ("0::/system.slice/keyrotd.service\n", {"system.slice/keyrotd.service": "0\n"}, True),
        ("0::/system.slice/keyrotd.service\n", {"system.slice": "0\n", "system.slice/keyrotd.service": "max\n"}, True),
        ("0::/system.slice/keyrotd.service\n", {"system.slice/keyrotd.service": "max\n"}, False),
        ("0::/\n", {}, False),
        ("0::/../keyrotd\n", {"keyrotd": "0\n"}, False),
        ("4:memory:/keyrotd\n", {"keyrotd": "0\n"}, False),
        ("", {}, False),
    ],
)
def test_a_cgroup_may_keep_a_daemon_out_of_swap(
    tmp_path: Path,
    groups: str,
    limits: dict[str, str],
    swapless: bool,  # noqa: FBT001 - a row
) -> None:
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "memory.swap.max").write_text(limit)

    assert host._swapless(groups, tmp_path) is swapless
