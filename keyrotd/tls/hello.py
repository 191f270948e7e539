"""
What a TLS client's first flight offers for resumption. Pure: bytes in, a ticket or None out.

A client offers its ticket in clear: TLS 1.2 in the session_ticket extension (RFC 5077), TLS 1.3 as the first
identity of the pre_shared_key extension (RFC 8446, 4.2.11). Every bound is checked, and nothing may be left over.
"""

from dataclasses import dataclass

#: RFC 8446, 5.1: a record carries no more than this.
MAX_FRAGMENT = 2**14

_HANDSHAKE_RECORD = 22
_CLIENT_HELLO = 1
_SESSION_TICKET = 35
_PRE_SHARED_KEY = 41


class Malformed(ValueError):  # noqa: N818 - a property of bytes, not a bug
    """Bytes that are no client's first flight."""


def offered_ticket(flight: bytes) -> bytes | None:
    """The ticket that a ClientHello offers, None if it offers none. Raises Malformed and nothing else."""
    extensions = _extensions(_client_hello(flight))
    if _PRE_SHARED_KEY in extensions:
        return _first_identity(extensions[_PRE_SHARED_KEY])
    return extensions.get(_SESSION_TICKET) or None


def _client_hello(flight: bytes) -> bytes:
    records = _Bytes(flight)
    messages = bytearray()
    while records.left:
        kind, _version, fragment = records.number(1), records.number(2), records.vector(2)
        if kind != _HANDSHAKE_RECORD or not 0 < len(fragment) <= MAX_FRAGMENT:
            raise Malformed(f"record of type {kind} and {len(fragment)} bytes in a first flight")
        messages += fragment
    message = _Bytes(bytes(messages))
    kind, hello = message.number(1), message.vector(3)
    message.close()
    if kind != _CLIENT_HELLO:
        raise Malformed(f"handshake message of type {kind}, not a ClientHello")
    return hello


def _extensions(hello: bytes) -> dict[int, bytes]:
    fields = _Bytes(hello)
    _version, _random = fields.take(2), fields.take(32)
    _session_id, _ciphers, _compression = fields.vector(1), fields.vector(2), fields.vector(1)
    if not fields.left:  # TLS 1.2 allows a hello without extensions
        return {}
    listed = _Bytes(fields.vector(2))
    fields.close()
    extensions: dict[int, bytes] = {}
    while listed.left:
        kind, data = listed.number(2), listed.vector(2)
        if kind in extensions:
            raise Malformed(f"extension {kind} twice")
        extensions[kind] = data
    return extensions


def _first_identity(extension: bytes) -> bytes:
    fields = _Bytes(extension)
    identities, _binders = _Bytes(fields.vector(2)), fields.vector(2)
    fields.close()
    identity, _age = identities.vector(2), identities.take(4)
    if not identity:
        raise Malformed("empty identity of a pre-shared key")
    return identity


@dataclass(slots=True)
class _Bytes:
    """A cursor over bytes that never reads past their end."""

    data: bytes
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise Malformed(f"{count} bytes wanted where {self.left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        """A field that its own length, of `width` bytes, precedes."""
        return self.take(self.number(width))

    def close(self) -> None:
        if self.left:
            raise Malformed(f"{self.left} bytes left over")
