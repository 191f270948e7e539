"""
The key file that readers inside of servers share (docs/key-file.md): one window in bytes, and nothing but whole ones.

`decode` accepts what `encode` writes and nothing else. What a reader may do with a file it has understood, by its
clock and by what it holds already, is `judge`'s to say. Neither shows a byte of a key in an error.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from uuid import UUID

from keyrotd.core.keys import Tenure
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
    "other-boot",
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
    The first key seals, all open, most useful first; `tenure` says for how long, None where no bound is known.

    Raises ValueError for what no reader would take.
    """

    layout: Layout
    keys: tuple[Secrets, ...]
    tenure: Tenure | None = None

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
            *_numbers(self.tenure),
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
    _, version, size, count, *tenure, reserved = _HEAD.unpack_from(data)
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
        tenure=_tenure(*tenure),
    )


def judge(found: KeyFile, *, layout: Layout, boot_id: str, epoch: int, now_ms: int) -> str | None:
    """
    With which fault a reader of `layout` that has installed up to `epoch` refuses `found`; None: it takes it.

    `now_ms`: CLOCK_BOOTTIME of the boot `boot_id`.
    """
    if found.layout != layout:
        return "bad-size"
    tenure = found.tenure or Tenure(boot_id=boot_id, epoch=0, step=0, seals_until_ms=None, opens_until_ms=None)
    bounded = (tenure.seals_until_ms, tenure.opens_until_ms) != (None, None)
    if bounded and (tenure.boot_id != boot_id or UUID(boot_id).int == 0):
        return "other-boot"
    # Keys of no window are what an agent has left when its window's time is over: they are not older.
    if 0 < tenure.epoch < epoch:
        return "older"
    if tenure.opens_until_ms is not None and now_ms >= tenure.opens_until_ms:
        return "expired"
    return None


def _numbers(tenure: Tenure | None) -> tuple[int, int, int, int, bytes]:
    if tenure is None:
        return 0, 0, 0, 0, bytes(_BOOT_ID_BYTES)
    bounds = (tenure.seals_until_ms, tenure.opens_until_ms)
    # A bound from before this boot has passed as surely as its first millisecond.
    seals_until, opens_until = (0 if bound is None else max(1, bound) for bound in bounds)
    return tenure.epoch, tenure.step, seals_until, opens_until, UUID(tenure.boot_id).bytes


def _tenure(epoch: int, step: int, seals_until: int, opens_until: int, boot_id: bytes) -> Tenure | None:
    if not (epoch or step or seals_until or opens_until or any(boot_id)):
        return None
    return Tenure(
        boot_id=str(UUID(bytes=boot_id)),
        epoch=epoch,
        step=step,
        seals_until_ms=seals_until or None,
        opens_until_ms=opens_until or None,
    )


_MAGIC = b"keyrotd\n"
_VERSION = 1
_BOOT_ID_BYTES = 16
_RESERVED_BYTES = 32
_DIGEST_BYTES = 32
_HEAD = struct.Struct(f">{len(_MAGIC)}sHHIQQQQ{_BOOT_ID_BYTES}s{_RESERVED_BYTES}s")
