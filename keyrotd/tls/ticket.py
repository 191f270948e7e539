"""
What a ticket betrays to whoever holds it, and to whoever holds the key. Pure.

RFC 5077, section 4 recommends, and OpenSSL, BoringSSL and all that build on them write:

    key name 16 | iv 16 | state, AES-CBC | HMAC-SHA256 over everything before 32
"""

import hashlib
import hmac

from keyrotd.core.stek import NAME_BYTES, Scheme, Secrets

_MAC_BYTES = 32
_IV_BYTES = 16
#: Shorter than this it is a session id of a server that keeps state (TLS 1.3 sends those as tickets too: 32 bytes).
_LEAST_BYTES = NAME_BYTES + _IV_BYTES + 16 + _MAC_BYTES

_ZERO_KEYS = (bytes(16), bytes(32))


def sealed(ticket: bytes) -> bool:
    """Whether `ticket` is long enough to be a sealed session, rather than the number of one."""
    return len(ticket) >= _LEAST_BYTES


def key_name(ticket: bytes) -> bytes | None:
    """The 16 bytes that name the key, None for a session id. Go since 1.21 shows an IV instead."""
    return ticket[:NAME_BYTES] if sealed(ticket) else None


def opens_ticket(ticket: bytes, secrets: Secrets, scheme: Scheme) -> bool:
    """Whether `secrets` sealed `ticket`: proves the key itself by its MAC, and the name where the scheme shows one."""
    if scheme is Scheme.GO:
        # crypto/tls, common.go, ticketKeyFromBytes: SHA-512 of the seed; its bytes 32 to 48 key the MAC.
        return _mac_holds(ticket, hashlib.sha512(secrets.aes).digest()[32:48])
    return key_name(ticket) == secrets.name and _mac_holds(ticket, secrets.hmac)


def sealed_by_zeros(ticket: bytes) -> bool:
    """Whether a server seals with an all-zero key (as GnuTLS did, CVE-2020-13777): anyone can open what it sealed."""
    return key_name(ticket) == bytes(NAME_BYTES) or any(_mac_holds(ticket, zeros) for zeros in _ZERO_KEYS)


def _mac_holds(ticket: bytes, key: bytes) -> bool:
    body, mac = ticket[:-_MAC_BYTES], ticket[-_MAC_BYTES:]
    return sealed(ticket) and hmac.compare_digest(hmac.digest(key, body, "sha256"), mac)
