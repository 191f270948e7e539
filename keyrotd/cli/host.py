"""What this machine is like, as plain values for `keyrotd doctor`: files, directories, memory. Changes nothing."""

import ctypes
import os
import stat
from pathlib import Path

from keyrotd.cli.diagnosis import Daemon, Memory, Place
from keyrotd.daemon.hardening import lockable

# statfs(2): the kernel's numbers of file systems that live in memory.
_TMPFS, _RAMFS = 0x01021994, 0x858458F6
#: Larger than any machine's `struct statfs`.
_STATFS_BYTES = 512


def place(path: Path) -> Place:
    """What stands at `path`, links not followed."""
    try:
        found = path.lstat()
    except OSError:
        return Place(path=path, mode=None, in_memory=_in_memory(path))
    return Place(
        path=path, mode=stat.S_IMODE(found.st_mode), in_memory=_in_memory(path), link=stat.S_ISLNK(found.st_mode)
    )


def file_mode(path: Path) -> Place:
    """What stands at `path` or where it leads to: a configuration may be a link, as Kubernetes mounts them."""
    return place(Path(os.path.realpath(path)))


def memory() -> Memory:
    return Memory(swaps=_disk_swaps(Path("/proc/swaps")), lockable=lockable())


def core_pattern() -> str:
    return _text(Path("/proc/sys/kernel/core_pattern")).strip()


def daemon(folder: Path, kind: str) -> Daemon | None:
    """Return the daemon that has the lock of its kind in `folder`; None: none, or it is not to be seen from here."""
    path = folder / f"{kind}.lock"
    pid = _text(path).strip()
    try:
        inode = path.stat().st_ino
    except OSError:
        return None
    # `1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF`; a number in the file alone may be of a process long gone.
    locks = (line.split() for line in _text(Path("/proc/locks")).splitlines())
    held = any(
        lock[1:2] == ["FLOCK"] and lock[4] == pid and lock[5].endswith(f":{inode}") for lock in locks if lock[5:]
    )
    if not held:
        return None
    status, limits = _text(Path(f"/proc/{pid}/status")), _text(Path(f"/proc/{pid}/limits"))
    return Daemon(
        kind=kind,
        pid=int(pid),
        locked=any(line.startswith("VmLck:") and line.split()[1] != "0" for line in status.splitlines()),
        dumps=not any(
            line.startswith("Max core file size") and line.split()[4:6] == ["0", "0"] for line in limits.splitlines()
        ),
        swapless=_swapless(_text(Path(f"/proc/{pid}/cgroup")), Path("/sys/fs/cgroup")),
    )


def _swapless(groups: str, root: Path) -> bool:
    """Whether a cgroup of version 2 keeps a process out of swap: its own or any above it, as the least limit counts."""
    own = next((Path(line.removeprefix("0::/")) for line in groups.splitlines() if line.startswith("0::/")), None)
    # `..`: the process is in a cgroup that is not to be seen from here.
    if own is None or ".." in own.parts:
        return False
    return any(_text(root / group / "memory.swap.max").strip() == "0" for group in (own, *own.parents))


def _in_memory(path: Path) -> bool:
    """Whether the file system of `path`, or of the nearest directory above it that is there, is a tmpfs."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    for found in (path, *path.absolute().parents):
        if libc.statfs(os.fsencode(found), buffer) == 0:
            # f_type comes first, and is 32 bits of use on every machine.
            kind = int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little") & 0xFFFFFFFF
            return kind in (_TMPFS, _RAMFS)
    return False


def _disk_swaps(path: Path) -> tuple[str, ...]:
    # zram is memory, compressed.
    names = (line.split()[0] for line in _text(path).splitlines()[1:] if line.strip())
    return tuple(name for name in names if not name.startswith("/dev/zram"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
