"""
Byte layouts: how each kind of server wants its keys. The same bytes in another order are another key.

No server can tell that the order is wrong: it takes any 80 bytes, and its tickets open nowhere else.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from keyrotd.core.keys import Keys
from keyrotd.core.stek import NAME_BYTES, Scheme, Secrets, Stek
from keyrotd.servers.ring import USUAL_SLOTS, ring


@dataclass(frozen=True, slots=True)
class Layout:
    """One key in bytes: its parts under `scheme`, in this order."""

    scheme: Scheme
    parts: tuple[str, str, str]

    @property
    def size(self) -> int:
        return sum(self._length(part) for part in self.parts)

    def encode(self, secrets: Secrets) -> bytes:
        return b"".join(getattr(secrets, part) for part in self.parts)

    def decode(self, blob: bytes) -> Secrets:
        """Raises ValueError, which shows no byte of it, when `blob` has another size."""
        if len(blob) != self.size:
            raise ValueError(f"a key has {self.size} bytes here, this one has {len(blob)}")
        found, at = {}, 0
        for part in self.parts:
            found[part] = blob[at : at + self._length(part)]
            at += self._length(part)
        return Secrets(**found)

    def _length(self, part: str) -> int:
        return NAME_BYTES if part == "name" else _SECRET_BYTES[self.scheme]


_SECRET_BYTES = MappingProxyType({Scheme.AES256: 32, Scheme.AES128: 16})

# Each order was confirmed with a ticket of the real server.
HAPROXY80 = Layout(Scheme.AES256, ("name", "aes", "hmac"))  # and nghttpx with aes-256-cbc
HAPROXY48 = Layout(Scheme.AES128, ("name", "aes", "hmac"))  # and nghttpx with aes-128-cbc
NGINX80 = Layout(Scheme.AES256, ("name", "hmac", "aes"))  # and Envoy, lighttpd, OpenSSL's own
NGINX48 = Layout(Scheme.AES128, ("name", "aes", "hmac"))  # unlike its 80
ATS48 = Layout(Scheme.AES128, ("name", "hmac", "aes"))  # and Node


def encode_lines(layout: Layout, keys: Sequence[Secrets]) -> bytes:
    """HAProxy's key file: base64, one key a line, in the order of its ring."""
    return b"".join(base64.b64encode(layout.encode(secrets)) + b"\n" for secrets in keys)


def decode_lines(layout: Layout, content: bytes) -> tuple[Secrets, ...]:
    """
    Accepts what `encode_lines` writes and nothing else; ValueError shows no byte of it.

    HAProxy itself refuses to start with a blank line, a space or a missing `=`.
    """
    keys = tuple(layout.decode(decode_base64(line)) for line in content.splitlines())
    if encode_lines(layout, keys) != content:
        raise ValueError("not one key a line")
    return keys


def decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None


class Shape(Enum):
    """How several keys lie in files."""

    LINES = "lines"  # one file, base64, one key a line; the last but one seals
    JOINED = "joined"  # one file, one key right after the other; the first seals
    SPLIT = "split"  # a file for each key, counted from 0; the first seals


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """What a server reads when it (re)starts. `slots`: how many keys it is configured for, unless said otherwise."""

    layout: Layout
    shape: Shape
    slots: int | None

    def encode(self, keys: Keys, slots: int | None) -> tuple[bytes, ...]:
        """The content of each file."""
        match self.shape:
            case Shape.LINES:
                count = len(keys.opening) if slots is None else slots
                return (encode_lines(self.layout, self._secrets(ring(keys, max(count, USUAL_SLOTS)))),)
            case Shape.JOINED:
                return (b"".join(self._blobs(keys, slots)),)
            case Shape.SPLIT:
                blobs = self._blobs(keys, slots)
                # The server's configuration names each file, so none may be missing: the last one repeats.
                return (*blobs, *(blobs[-1:] * ((slots or 0) - len(blobs))))

    def decode(self, contents: Sequence[bytes]) -> tuple[Secrets, ...]:
        """The keys that `contents` hold, the sealing one first. Raises ValueError, which shows no byte of it."""
        match self.shape:
            case Shape.LINES:
                lines = decode_lines(self.layout, contents[0])
                if len(lines) < USUAL_SLOTS:
                    raise ValueError("too few keys")
                return (lines[-2], lines[-1], *reversed(lines[:-2]))
            case Shape.JOINED:
                step = self.layout.size
                return self._decoded([contents[0][at : at + step] for at in range(0, len(contents[0]), step)])
            case Shape.SPLIT:
                return self._decoded(contents)

    def _decoded(self, blobs: Sequence[bytes]) -> tuple[Secrets, ...]:
        if not blobs:
            raise ValueError("no key")
        return tuple(self.layout.decode(blob) for blob in blobs)

    def _blobs(self, keys: Keys, slots: int | None) -> tuple[bytes, ...]:
        fitting = keys if slots is None else keys.fit(slots)
        return tuple(self.layout.encode(secrets) for secrets in self._secrets(fitting.opening))

    def _secrets(self, steks: Sequence[Stek]) -> tuple[Secrets, ...]:
        return tuple(stek.secrets(self.layout.scheme) for stek in steks)


#: What the `command` driver can write, by the word in its section.
KEY_FILES: Mapping[str, KeyFiles] = MappingProxyType(
    {
        "haproxy80-lines": KeyFiles(HAPROXY80, Shape.LINES, USUAL_SLOTS),
        "haproxy48-lines": KeyFiles(HAPROXY48, Shape.LINES, USUAL_SLOTS),
        "nginx80-files": KeyFiles(NGINX80, Shape.SPLIT, 3),
        "nginx48-files": KeyFiles(NGINX48, Shape.SPLIT, 3),
        "nghttpx80-files": KeyFiles(HAPROXY80, Shape.SPLIT, 3),
        "nghttpx48-files": KeyFiles(HAPROXY48, Shape.SPLIT, 3),
        "openssl80": KeyFiles(NGINX80, Shape.JOINED, None),
        "ats48": KeyFiles(ATS48, Shape.JOINED, None),
    }
)
