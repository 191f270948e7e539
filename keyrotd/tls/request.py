"""
Whether a server asks its clients for certificates.

Only TLS 1.2 shows it to the standard library's ssl: there the CertificateRequest comes in clear, before the server's
ServerHelloDone. TLS 1.3 sends it encrypted, so of a server that speaks nothing else this stays unknown.
"""

import ssl
import time
from contextlib import suppress

from keyrotd.tls.handshake import Trust, Version, client_context
from keyrotd.tls.target import Target

_HANDSHAKE_RECORD = 22
_CERTIFICATE_REQUEST, _SERVER_HELLO_DONE = 13, 14
_RECORD_HEAD, _MESSAGE_HEAD = 5, 4
#: Chains of certificates take a few KiB; whoever sends more than this is not answered.
_MOST_BYTES = 2**18


def asks_for_certificate(target: Target, *, sni: str | None, timeout_ms: int) -> bool | None:
    """One handshake of TLS 1.2, to its end if it has a good one. None: the server did not get as far as to tell."""
    received, to_send, flight = ssl.MemoryBIO(), ssl.MemoryBIO(), bytearray()
    context = client_context(Version.TLS12, Trust(insecure=True))
    tls = context.wrap_bio(received, to_send, server_hostname=sni or target.server_name)
    deadline_s = time.monotonic() + timeout_ms / 1000
    with suppress(OSError), target.connect(deadline_s) as wire:  # ssl.SSLError is one
        while len(flight) < _MOST_BYTES:
            wire.settimeout(max(deadline_s - time.monotonic(), 0.001))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                wire.sendall(to_send.read())
            else:
                wire.sendall(to_send.read())
                break
            heard = wire.recv(2**16)
            if not heard:
                break
            flight += heard
            received.write(heard)
    return requested(bytes(flight))


def requested(flight: bytes) -> bool | None:
    """Read a server's first flight: whether a CertificateRequest is in it. None: it ends before anybody can know."""
    messages = _messages(flight)
    at = 0
    while at + _MESSAGE_HEAD <= len(messages):
        kind = messages[at]
        if kind == _CERTIFICATE_REQUEST:
            return True
        if kind == _SERVER_HELLO_DONE:
            return False
        at += _MESSAGE_HEAD + int.from_bytes(messages[at + 1 : at + _MESSAGE_HEAD], "big")
    return None


def _messages(flight: bytes) -> bytes:
    """Join what the leading records of handshake messages carry."""
    found, at = bytearray(), 0
    while at + _RECORD_HEAD <= len(flight) and flight[at] == _HANDSHAKE_RECORD:
        begin = at + _RECORD_HEAD
        at = begin + int.from_bytes(flight[begin - 2 : begin], "big")
        found += flight[begin:at]
    return bytes(found)
