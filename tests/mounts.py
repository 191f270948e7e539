"""Directories that run full or cannot be written, where the machine lets a test mount them."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(directory: Path, *, read_only: bool) -> Iterator[None]:
    """A file system of 16 KiB on `directory`; skips the test where there is no right to mount one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", bytes(directory), b"tmpfs", int(read_only), b"size=16k,mode=0700") != 0:
        pytest.skip("this machine lets us mount no tmpfs: needs CAP_SYS_ADMIN")
    try:
        yield
    finally:
        libc.umount2(bytes(directory), 2)
