"""
Files that are whole or not there: temp, fsync, rename, fsync of the directory. Modes are set before the bytes.

Everything raises OSError; `words` says it to people. No content ever gets into a message.
"""

import errno
import fcntl
import grp
import os
import pwd
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

#: Nothing that keyrotd reads is larger: 96 keys of 109 base64 bytes are 10 KiB.
MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may read a file. `owner` and `group` are names or numbers; None leaves what the process has."""

    mode: int = 0o600
    owner: str | None = None
    group: str | None = None


PRIVATE = Access()


def write(path: Path, content: bytes, access: Access = PRIVATE) -> None:
    """Replace `path` by `content`, or leave it as it was. Its directory must be neither a link nor open to all."""
    with _directory(path.parent) as directory:
        _refuse_odd_target(path.name, directory)
        _sweep(path.name, directory)
        temp = f".{path.name}.{secrets.token_hex(4)}{_TEMP_SUFFIX}"
        try:
            _write_temp(temp, content, access, directory)
            os.rename(temp, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp, dir_fd=directory)
            raise
        os.fsync(directory)


def read(path: Path) -> bytes | None:
    """The content of a plain file, None when there is none."""
    try:
        # O_NONBLOCK: whoever puts a FIFO there shall not make us wait.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, "too large to be ours", str(path))
    return content


def is_as(path: Path, content: bytes, access: Access = PRIVATE) -> bool:
    """Whether `write` would change nothing."""
    return read(path) == content and grants(path, access)


def grants(path: Path, access: Access) -> bool:
    """Whether `path` lets in whom `access` says, and nobody else."""
    found = path.lstat()
    owner, group = _ids(access)
    return stat.S_IMODE(found.st_mode) == access.mode and owner in (-1, found.st_uid) and group in (-1, found.st_gid)


@contextmanager
def locked(path: Path, wait_ms: int) -> Iterator[None]:
    """Hold the lock that stands beside `path`: of all keyrotd on this machine, one. Raises TimeoutError."""
    with _directory(path.parent) as directory:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(f".{path.name}.lock", flags, 0o600, dir_fd=directory)
    try:
        _flock(lock, wait_ms)
        yield
    finally:
        os.close(lock)


def words(error: OSError) -> tuple[str, str | None]:
    """What happened, in lower case and without a path, and what to do about it if that is known."""
    what = (error.strerror or type(error).__name__).lower()
    return what, _HINTS.get(error.errno or 0)


_TEMP_SUFFIX = ".tmp"

_HINTS = {
    errno.EACCES: "the directory must be writable, and readable by nobody else, for the user keyrotd runs as",
    errno.EPERM: "setting an owner or a foreign group needs a privilege; a group that keyrotd's user is in needs none",
    errno.ENOSPC: "free some room; keys take a few KiB",
    errno.EDQUOT: "free some room; keys take a few KiB",
    errno.EROFS: "under systemd, name the directory in ReadWritePaths= or make it a RuntimeDirectory=",
    errno.ENOENT: "make the directory first: a RuntimeDirectory= of the unit, or a tmpfs volume",
    errno.ELOOP: "name the real directory and file: a symbolic link may point elsewhere tomorrow",
}


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        if path.is_symlink():
            raise OSError(errno.ELOOP, "the directory is a symbolic link", str(path)) from error
        raise
    try:
        found = os.fstat(handle)
        if found.st_mode & stat.S_IWOTH:
            raise OSError(errno.EACCES, "anybody may write in the directory", str(path))
        yield handle
    finally:
        os.close(handle)


def _refuse_odd_target(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            raise OSError(errno.ELOOP, "the file is a symbolic link", name)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a plain file", name)


def _sweep(name: str, directory: int) -> None:
    # A writer that was killed leaves its temp behind, with keys in it. A live one would lose its rename and try again.
    temp = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}{re.escape(_TEMP_SUFFIX)}")
    for left in os.listdir(directory):
        if temp.fullmatch(left):
            with suppress(FileNotFoundError):
                os.unlink(left, dir_fd=directory)


def _write_temp(temp: str, content: bytes, access: Access, directory: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(temp, flags, 0o600, dir_fd=directory)
    with open(handle, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor, not a path
        owner, group = _ids(access)
        if (owner, group) != (-1, -1):
            os.fchown(handle, owner, group)
        os.fchmod(handle, access.mode)
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
        os.fsync(handle)


def _ids(access: Access) -> tuple[int, int]:
    return (
        _number(access.owner, "user", lambda name: pwd.getpwnam(name).pw_uid),
        _number(access.group, "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _number(name: str | None, what: str, look_up: Callable[[str], int]) -> int:
    if name is None:
        return -1
    if name.isascii() and name.isdecimal():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no {what} {name}") from None


def _flock(lock: int, wait_ms: int) -> None:
    deadline = time.monotonic() + wait_ms / 1000
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another keyrotd holds the lock") from None
            time.sleep(0.01)
        else:
            return
