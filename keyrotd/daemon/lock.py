"""
One daemon of a kind in one folder: a second one would write the same memory, count the same lives, undo the other.

The kernel holds the lock for as long as the process lives and not a moment longer, however it ends; what stands in the
file only tells people who has it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyrotd.core.errors import KeyrotdError

#: A process number and a line end have less.
_PID_BYTES = 32


@contextmanager
def locked(folder: Path, kind: str) -> Iterator[None]:
    """Be the only daemon of this kind in `folder`. Raises KeyrotdError, at once, if another one is."""
    path = folder / f"{kind}.lock"
    try:
        # Never replaced or removed: a lock is on the file that others have open, not on its name.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        words = (error.strerror or str(error)).lower()
        raise KeyrotdError(f"{kind}: cannot lock {path}: {words}", hint="mend the folder's owner or mode") from error
    try:
        _take(handle, path, kind)
        yield
    finally:
        os.close(handle)


def _take(handle: int, path: Path, kind: str) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        found = os.pread(handle, _PID_BYTES, 0).strip()
        who = f"process {int(found)}" if found.isdigit() else "another process"
        raise KeyrotdError(
            f"{kind}: {who} runs with {path.parent} already",
            hint="stop it, or give each daemon of a host its own runtime_dir and state_dir",
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
