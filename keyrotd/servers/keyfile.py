"""
The key file that readers inside of servers share (docs/key-file.md): one window in bytes, and nothing but whole ones.

`decode` accepts what `encode` writes and nothing else. What a reader may do with a file it has understood, by its own
clock and by what it holds already, is `judge`'s to say. Neither shows a byte of a key in an error.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keyrotd.core.stek import NAME_BYTES, Secrets
from keyrotd.servers.layouts import ATS48, NGINX80, Layout

#: A record's layout by its size.
LAYOUTS: Mapping[int, Layout] = MappingProxyType({layout.size: layout for layout in (NGINX80, ATS48)})

#: More keys than any window has (see `servers/ring.py`, MAX_SLOTS).
MAX_RECORDS = 96

#: What a reader may find wrong, in the order in which it looks. `layout`: it does not know the server it is in.
FAULTS = (
    "missing",
    "bad-file",
    "bad-magic",
    "bad-length",
    "bad-version",
    "bad-size",
    "bad-count",
    "bad-reserved",
    "bad-digest",
    "twin-names",
    "older",
    "expired",
    "layout",
)


class BadKeyFile(ValueError):  # noqa: N818 - a verdict: `fault` is one of FAULTS
    def __init__(self, fault: str) -> None:
        super().__init__(f"no key file of ours: {fault}")
        self.fault = fault


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """
    The first key seals, all open, most useful first. Instants are Unix ms, 0 where no bound is known.

    Raises ValueError for what no reader would take.
    """

    layout: Layout
    keys: tuple[Secrets, ...]
    epoch: int = 0
    step: int = 0
    seals_until: int = 0
    opens_until: int = 0

    def __post_init__(self) -> None:
        if LAYOUTS.get(self.layout.size) != self.layout:
            raise ValueError("no reader knows this layout")
        if not 1 <= len(self.keys) <= MAX_RECORDS:
            raise ValueError(f"a key file has 1 to {MAX_RECORDS} keys, not {len(self.keys)}")
        if len({secrets.name for secrets in self.keys}) < len(self.keys):
            raise ValueError("two keys of one name")

    def encode(self) -> bytes:
        head = _HEAD.pack(
            _MAGIC,
            _VERSION,
            self.layout.size,
            len(self.keys),
            self.epoch,
            self.step,
            self.seals_until,
            self.opens_until,
            bytes(_RESERVED_BYTES),
        )
        body = head + b"".join(self.layout.encode(secrets) for secrets in self.keys)
        return body + hashlib.sha256(body).digest()


def digest(content: bytes) -> str:
    """What an acknowledgement of this content says."""
    return content[-_DIGEST_BYTES:].hex()


def decode(data: bytes) -> KeyFile:
    """Raises BadKeyFile."""
    if not data.startswith(_MAGIC):
        raise BadKeyFile("bad-magic")
    if len(data) < _HEAD.size + _DIGEST_BYTES:
        raise BadKeyFile("bad-length")
    _, version, size, count, epoch, step, seals_until, opens_until, reserved = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise BadKeyFile("bad-version")
    if size not in LAYOUTS:
        raise BadKeyFile("bad-size")
    if not 1 <= count <= MAX_RECORDS:
        raise BadKeyFile("bad-count")
    body = _HEAD.size + count * size
    if len(data) != body + _DIGEST_BYTES:
        raise BadKeyFile("bad-length")
    if any(reserved):
        raise BadKeyFile("bad-reserved")
    if hashlib.sha256(data[:body]).digest() != data[body:]:
        raise BadKeyFile("bad-digest")
    records = [data[at : at + size] for at in range(_HEAD.size, body, size)]
    if len({record[:NAME_BYTES] for record in records}) < count:
        raise BadKeyFile("twin-names")
    return KeyFile(
        layout=LAYOUTS[size],
        keys=tuple(LAYOUTS[size].decode(record) for record in records),
        epoch=epoch,
        step=step,
        seals_until=seals_until,
        opens_until=opens_until,
    )


def judge(found: KeyFile, *, layout: Layout, epoch: int, now_at: int) -> str | None:
    """With which fault a reader of `layout` that has installed up to `epoch` refuses `found`; None: it takes it."""
    if found.layout != layout:
        return "bad-size"
    if found.epoch < epoch:
        return "older"
    if found.opens_until and now_at >= found.opens_until:
        return "expired"
    return None


_MAGIC = b"keyrotd\n"
_VERSION = 1
_RESERVED_BYTES = 48
_DIGEST_BYTES = 32
_HEAD = struct.Struct(f">{len(_MAGIC)}sHHIQQQQ{_RESERVED_BYTES}s")
