"""Looks for keys in what a running process has in its memory."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from keyrotd.core.stek import Scheme, Stek


def copies(pid: int, keys: Iterable[Stek]) -> dict[str, tuple[int, int]]:
    """By name, how often a process has the HMAC key and the AES key of each."""
    memory = writable(pid)
    secrets = [key.secrets(Scheme.AES256) for key in keys]
    return {one.name.hex(): (memory.count(one.hmac), memory.count(one.aes)) for one in secrets}


def writable(pid: int) -> bytes:
    """All that a process can read and write, joined."""
    return b"".join(content for _, content in _mappings(pid))


def flags_where(pid: int, secret: bytes) -> list[str]:
    """What the kernel says of the memory that has `secret`: its VmFlags."""
    where = next(span for span, content in _mappings(pid) if secret in content)
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(where))
    return next(line for line in lines if line.startswith("VmFlags:")).split()


def anonymous(pid: int) -> int:
    """Bytes of memory that are a process's own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _mappings(pid: int) -> Iterator[tuple[str, bytes]]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(at, 16) for at in span.split("-"))
                yield span, os.pread(memory.fileno(), end - start, start)
