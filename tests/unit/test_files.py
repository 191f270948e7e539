"""A file is whole or as it was, its modes are there before its bytes, and nothing is left lying about."""

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from keyrotd.servers import files
from keyrotd.servers.files import Access
from tests.mounts import mounted

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"

    files.write(file, b"one")
    files.write(file, b"two")

    assert files.read(file) == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    assert files.read(tmp_path / "keys") is None


def test_a_file_is_private_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write(tmp_path / "keys", b"secret")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_mode_and_group_are_set_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, int]] = []
    fsync = os.fsync

    def looking(handle: int) -> None:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            seen.append((stat.S_IMODE(found.st_mode), found.st_gid, found.st_size))
        fsync(handle)

    chmod = os.fchmod

    def looking_before(handle: int, mode: int) -> None:
        chmod(handle, mode)
        looking(handle)

    monkeypatch.setattr(os, "fsync", looking)
    monkeypatch.setattr(os, "fchmod", looking_before)

    files.write(tmp_path / "keys", b"secret", Access(mode=0o640, group=str(os.getegid())))

    assert seen == [(0o640, os.getegid(), 0), (0o640, os.getegid(), 6)]


@as_root
def test_a_group_is_found_by_number_or_name(tmp_path: Path) -> None:
    files.write(tmp_path / "keys", b"secret", Access(mode=0o640, owner=str(NOBODY), group=str(NOBODY)))
    numbers = (tmp_path / "keys").stat()
    files.write(tmp_path / "keys", b"secret", Access(mode=0o640, owner="root", group="root"))
    names = (tmp_path / "keys").stat()

    assert (numbers.st_uid, numbers.st_gid) == (NOBODY, NOBODY)
    assert (names.st_uid, names.st_gid) == (0, 0)


def test_an_unknown_group_is_told_by_name_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no group atlantis"):
        files.write(tmp_path / "keys", b"secret", Access(group="atlantis"))

    assert list(tmp_path.iterdir()) == []


def test_whether_a_file_is_as_wanted_depends_on_bytes_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    files.write(file, b"one")

    assert files.is_as(file, b"one")
    assert not files.is_as(file, b"two")
    assert not files.is_as(file, b"one", Access(mode=0o640))
    assert not files.is_as(tmp_path / "absent", b"one")


def test_a_symbolic_link_is_refused_as_file_and_as_directory(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    (real / "keys").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="the directory is a symbolic link"):
        files.write(tmp_path / "link" / "other", b"secret")
    with pytest.raises(OSError, match="the file is a symbolic link"):
        files.write(real / "keys", b"secret")
    with pytest.raises(OSError) as refused:
        files.read(real / "keys")

    assert refused.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()
    assert not (real / "other").exists()


def test_a_directory_that_anybody_may_write_in_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(OSError, match="anybody may write in the directory"):
        files.write(tmp_path / "keys", b"secret")


def test_a_fifo_does_not_make_us_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")

    with pytest.raises(OSError, match="not a plain file"):
        files.read(tmp_path / "keys")
    with pytest.raises(OSError, match="not a plain file"):
        files.write(tmp_path / "keys", b"secret")


def test_a_file_too_large_to_be_ours_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "keys").open("wb") as file:
        file.truncate(files.MAX_FILE_BYTES + 1)

    with pytest.raises(OSError, match="too large to be ours"):
        files.read(tmp_path / "keys")


def test_the_temp_of_a_writer_that_was_killed_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".keys.0123abcd.tmp").write_bytes(b"secret")
    (tmp_path / ".keys.more.0123abcd.tmp").write_bytes(b"another file's")

    files.write(tmp_path / "keys", b"secret")

    assert sorted(path.name for path in tmp_path.iterdir()) == [".keys.more.0123abcd.tmp", "keys"]


def test_a_write_that_breaks_off_leaves_the_old_file_and_no_temp(tmp_path: Path) -> None:
    files.write(tmp_path / "keys", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError) as broken:
            files.write(tmp_path / "keys", b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert broken.value.errno == errno.EFBIG
    assert (tmp_path / "keys").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_full_directory_is_told_and_keeps_the_old_file(tmp_path: Path) -> None:
    with mounted(tmp_path, read_only=False):
        files.write(tmp_path / "keys", b"old")

        with pytest.raises(OSError) as full:
            files.write(tmp_path / "keys", b"n" * 65536)

        assert files.words(full.value) == ("no space left on device", "free some room; keys take a few KiB")
        assert (tmp_path / "keys").read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_a_read_only_directory_is_told(tmp_path: Path) -> None:
    with mounted(tmp_path, read_only=True):
        with pytest.raises(OSError) as refused:
            files.write(tmp_path / "keys", b"secret")

        what, hint = files.words(refused.value)
        assert what == "read-only file system"
        assert hint is not None
        assert "ReadWritePaths=" in hint


def test_only_one_holds_a_lock_and_the_other_gives_up_in_time(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    busy = pytest.raises(TimeoutError, match="another keyrotd holds the lock")

    with files.locked(keys, 1000), busy, files.locked(keys, 20):
        pytest.fail("two hold it")

    with files.locked(tmp_path / "keys", 0):
        pass


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    holder = (
        "import sys, os; from pathlib import Path; from keyrotd.servers import files\n"
        "with files.locked(Path(sys.argv[1]), 0): os._exit(0)"
    )

    subprocess.run([sys.executable, "-c", holder, str(tmp_path / "keys")], check=True, timeout=30)

    with files.locked(tmp_path / "keys", 0):
        pass
