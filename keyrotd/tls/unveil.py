"""
What a TLS 1.3 server says under encryption and Python's ssl keeps to itself, read by the very client it is said to.

Whether it asks clients for certificates, and whether its tickets allow early data: both come encrypted. The key log of
our own connection opens them; it lies in memory, is of one connection that carries nothing, and goes with it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyrotd.tls.handshake import Trust, Version, client_context, overhear
from keyrotd.tls.target import Target

# RFC 8446: the types of records (5.1), of handshake messages (4) and of extensions (4.2).
_HANDSHAKE, _ENCRYPTED = 22, 23
_SERVER_HELLO, _NEW_SESSION_TICKET, _CERTIFICATE_REQUEST, _FINISHED = 2, 4, 13, 20
_EARLY_DATA, _CERTIFICATE_AUTHORITIES = 42, 47
_RECORD_HEAD, _MESSAGE_HEAD, _EXTENSION_HEAD = 5, 4, 4
_IV_BYTES = 12

#: Cipher suites (B.4): the hash, the key's bytes, and what seals. OpenSSL's clients offer no others by default.
_SUITES: Final[Mapping[int, tuple[hashes.HashAlgorithm, int, type[AESGCM | ChaCha20Poly1305]]]] = {
    0x1301: (hashes.SHA256(), 16, AESGCM),
    0x1302: (hashes.SHA384(), 32, AESGCM),
    0x1303: (hashes.SHA256(), 32, ChaCha20Poly1305),
}
#: Whose words a client cannot see, in the order in which they are spoken.
_SPOKEN_UNDER = ("SERVER_HANDSHAKE_TRAFFIC_SECRET", "SERVER_TRAFFIC_SECRET_0")


@dataclass(frozen=True, slots=True)
class Unveiled:
    """
    `asks`: whether it asks clients for certificates; None if it did not get as far as to tell.

    `authorities`: whose certificates it asks for, as it names them; none where it names nobody. `early_data`: the most
    bytes of it that one of its tickets allows, 0 for none; None if no ticket was seen.
    """

    asks: bool | None
    early_data: int | None
    authorities: frozenset[bytes] = frozenset()


def unveil(target: Target, *, sni: str | None, timeout_ms: int) -> Unveiled:
    """One handshake of TLS 1.3, and a wait for a ticket. Whatever goes wrong, what was said before it counts."""
    log = os.memfd_create("keylog", os.MFD_CLOEXEC)
    try:
        context = client_context(Version.TLS13, Trust(insecure=True))
        context.keylog_filename = f"/proc/self/fd/{log}"  # OpenSSL wants a path
        heard = overhear(target, context, sni=sni, timeout_ms=timeout_ms)
        return told(heard, _secrets(os.pread(log, os.fstat(log).st_size, 0)))
    finally:
        os.close(log)


def told(heard: bytes, secrets: Mapping[str, bytes]) -> Unveiled:
    """Read all that a server sent, given the connection's secrets by their names in a key log."""
    asks: bool | None = None
    early_data: int | None = None
    authorities: frozenset[bytes] = frozenset()
    for kind, body in _messages(heard, secrets):
        if kind == _CERTIFICATE_REQUEST:
            asks = True
            authorities = frozenset(_named(body))
        elif kind == _FINISHED:
            asks = asks is True
        elif kind == _NEW_SESSION_TICKET:
            early_data = max(early_data or 0, _allowance(body))
    return Unveiled(asks, early_data, authorities)


def _secrets(log: bytes) -> dict[str, bytes]:
    """A log has one connection: `LABEL client_random secret` on each line, in hexadecimal."""
    lines = (line.split(" ") for line in log.decode("ascii", "replace").splitlines() if line[:1] != "#")
    return {line[0]: bytes.fromhex(line[2]) for line in lines if len(line) == len(("label", "random", "secret"))}


def _messages(heard: bytes, secrets: Mapping[str, bytes]) -> Iterator[tuple[int, bytes]]:
    """Every handshake message that can be read, in its order; what follows one that cannot is left out."""
    records = list(_records(heard))
    plain = b"".join(body for kind, _, body in records if kind == _HANDSHAKE)
    suite = None
    for kind, body in _split(plain):
        if kind == _SERVER_HELLO:
            suite = _suite(body)  # of two, the first only asked us to begin again
    found = _SUITES.get(suite or 0)
    if found is None:
        return
    sealed = [(head, body) for kind, head, body in records if kind == _ENCRYPTED]
    for label in _SPOKEN_UNDER:
        if label in secrets:
            opened, sealed = _opened(sealed, secrets[label], *found)
            yield from _split(opened)


def _opened(
    sealed: list[tuple[bytes, bytes]],
    secret: bytes,
    digest: hashes.HashAlgorithm,
    key_bytes: int,
    cipher: type[AESGCM | ChaCha20Poly1305],
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Open records for as long as this secret does; return the handshake bytes in them, and what records are left."""
    aead, iv = cipher(_expand(secret, b"key", key_bytes, digest)), _expand(secret, b"iv", _IV_BYTES, digest)
    messages = bytearray()
    for number, (head, body) in enumerate(sealed):
        nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(_IV_BYTES, "big")
        try:
            inner = aead.decrypt(nonce, body, head).rstrip(b"\0")  # padding; then comes the type
        except (InvalidTag, ValueError):
            return bytes(messages), sealed[number:]
        if inner[-1:] == bytes([_HANDSHAKE]):
            messages += inner[:-1]
    return bytes(messages), []


def _expand(secret: bytes, label: bytes, length: int, digest: hashes.HashAlgorithm) -> bytes:
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
    return HKDFExpand(digest, length, info).derive(secret)


def _records(heard: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    at = 0
    while at + _RECORD_HEAD <= len(heard):
        head = heard[at : at + _RECORD_HEAD]
        body = heard[at + _RECORD_HEAD : at + _RECORD_HEAD + int.from_bytes(head[3:], "big")]
        yield head[0], head, body
        at += _RECORD_HEAD + int.from_bytes(head[3:], "big")


def _split(messages: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _MESSAGE_HEAD <= len(messages):
        end = at + _MESSAGE_HEAD + int.from_bytes(messages[at + 1 : at + _MESSAGE_HEAD], "big")
        if end > len(messages):
            return
        yield messages[at], messages[at + _MESSAGE_HEAD : end]
        at = end


def _suite(hello: bytes) -> int:
    """Skip version and random, then the session id, which has its length before it."""
    begin = 2 + 32
    at = begin + 1 + int.from_bytes(hello[begin : begin + 1], "big")
    return int.from_bytes(hello[at : at + 2], "big")


def _allowance(ticket: bytes) -> int:
    """Skip lifetime and age_add, nonce, ticket; among the extensions look for early_data (4.6.1)."""
    at = 8 + 1 + int.from_bytes(ticket[8:9], "big")
    at += 2 + int.from_bytes(ticket[at : at + 2], "big")
    return int.from_bytes(_extension(ticket[at + 2 :], _EARLY_DATA), "big")


def _named(request: bytes) -> Iterator[bytes]:
    """Skip the context; in the extension that names authorities each name has its length before it (4.2.4)."""
    at = 1 + request[0] if request else 0
    names = _extension(request[at + 2 :], _CERTIFICATE_AUTHORITIES)[2:]
    while len(names) > _LENGTH:
        end = _LENGTH + int.from_bytes(names[:_LENGTH], "big")
        yield names[_LENGTH:end]
        names = names[end:]


_LENGTH = 2


def _extension(extensions: bytes, wanted: int) -> bytes:
    """What is in an extension, b"" if it is not there."""
    at = 0
    while at + _EXTENSION_HEAD <= len(extensions):
        kind = int.from_bytes(extensions[at : at + 2], "big")
        end = at + _EXTENSION_HEAD + int.from_bytes(extensions[at + 2 : at + _EXTENSION_HEAD], "big")
        if kind == wanted:
            return extensions[at + _EXTENSION_HEAD : end]
        at = end
    return b""
