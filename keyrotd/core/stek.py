"""Session ticket encryption keys. A key is a 32-byte seed; everything else about it is derived, one way."""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, assert_never

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyrotd.core.errors import WeakSeed

SEED_BYTES = 32
NAME_BYTES = 16

#: Derivations are bound to this word: a later version derives other secrets from the same seed.
_VERSION = b"keyrotd/1"


class Scheme(Enum):
    """How a kind of server seals its tickets. Drivers own the byte layouts; these are the named parts."""

    AES256 = "aes256"  # AES-256-CBC, HMAC-SHA256 with a 32-byte key: HAProxy, nginx 80, Envoy, lighttpd
    AES128 = "aes128"  # AES-128-CBC, HMAC-SHA256 with a 16-byte key: nginx 48, Traffic Server, Node, Apache
    GO = "go"  # crypto/tls takes 32 bytes and derives its own


class Secrets(NamedTuple):
    """The named parts of one key under one scheme. For Scheme.GO `aes` holds the 32-byte seed and `hmac` is empty."""

    name: bytes
    aes: bytes
    hmac: bytes

    def __repr__(self) -> str:
        return f"Secrets({self.name.hex()})"

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that tell this key's every secret bit apart from any other's, and betray none."""
        parts = b"".join(len(part).to_bytes(2, "big") + part for part in self)
        return hashlib.sha256(b"keyrotd/1 fingerprint" + parts).digest()[:16]


@dataclass(frozen=True)
class Stek:
    """
    One session ticket encryption key of one ring.

    The same seed in another ring has another name and other secrets, so a key that strays is worthless there.
    Raises WeakSeed for a seed that is short, constant, periodic, counting or a known default.
    """

    seed: bytes = field(repr=False)
    ring: str

    def __post_init__(self) -> None:
        refuse_weak(self.seed)

    def __repr__(self) -> str:
        return f"Stek({self.ring}/{self.name.hex()})"

    @cached_property
    def name(self) -> bytes:
        """The public 16 bytes that open every ticket sealed by this key; random-looking, never meaningful."""
        return self._derive(b"name", NAME_BYTES)

    @cached_property
    def child(self) -> "Stek":
        """The key that follows this one where no leader is heard (see core/succession). There is no way back."""
        return Stek(self._derive(b"child", SEED_BYTES), self.ring)

    def secrets(self, scheme: Scheme) -> Secrets:
        label = scheme.value.encode()
        match scheme:
            case Scheme.AES256:
                return Secrets(self.name, self._derive(label + b" aes", 32), self._derive(label + b" hmac", 32))
            case Scheme.AES128:
                return Secrets(self.name, self._derive(label + b" aes", 16), self._derive(label + b" hmac", 16))
            case Scheme.GO:
                return Secrets(self.name, self._derive(label + b" seed", 32), b"")
            case _:
                assert_never(scheme)

    def _derive(self, purpose: bytes, length: int) -> bytes:
        # Expand only (RFC 5869 section 3.3): the seed is uniform already. NUL cannot occur in a ring's name.
        info = b"\x00".join((_VERSION, self.ring.encode(), purpose))
        return HKDFExpand(algorithm=SHA256(), length=length, info=info).derive(self.seed)


def refuse_weak(seed: bytes) -> None:
    """Raise WeakSeed unless `seed` is 32 bytes that an honest random source could have made."""
    if len(seed) != SEED_BYTES:
        raise WeakSeed(f"a seed has {SEED_BYTES} bytes, this one has {len(seed)}")
    if any(seed == seed[:period] * (SEED_BYTES // period) for period in (1, 2, 4, 8, 16)):
        raise WeakSeed("the seed repeats itself: a default or a broken random source")
    if len({(b - a) % 256 for a, b in pairwise(seed)}) == 1:
        raise WeakSeed("the seed counts: a default or a test pattern")
    if all(byte < 0x80 and chr(byte).isprintable() for byte in seed):  # noqa: PLR2004 - ASCII
        # 32 random bytes are all printable ASCII once in 2**45; a pass phrase or base64 text always is.
        raise WeakSeed("the seed is printable text: a pass phrase or base64 that was not decoded")
