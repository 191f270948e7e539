"""
One real TLS handshake, with the standard library's ssl over memory buffers, and what it showed.

A session is bound to the SSLContext that made it: to offer A's ticket to B, pass both the same context. One context
serves any number of targets and threads.

A ticket's bytes are read from the ClientHello that would offer it, written to memory and never sent. That works alike
for TLS 1.2 and 1.3, needs no secret, and shows exactly what a server would be asked to open.
"""

import hashlib
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import TracebackType
from typing import Self, TypeVar

from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import ProbeState
from keyrotd.tls import ticket as tickets
from keyrotd.tls.hello import offered_ticket
from keyrotd.tls.target import Target

_T = TypeVar("_T")

#: Chains of certificates and tickets take a few KiB; whoever sends more than this is not listened to for long.
HEARD_BYTES = 2**18


class Version(Enum):
    TLS12 = "1.2"
    TLS13 = "1.3"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates count: those of `ca_file`, the system's when it is None, anybody's when `insecure`."""

    ca_file: str | None = None
    insecure: bool = False


@dataclass(frozen=True)
class Handshake:
    """
    A handshake that succeeded. `resumed`: the server opened the ticket that was offered.

    `session` carries a ticket that this very connection issued; it is None when none came. `certificate` is the
    SHA-256 of the server's certificate (of the original handshake, if resumed).
    """

    version: Version
    resumed: bool
    certificate: str
    took_ms: int
    session: ssl.SSLSession | None = field(repr=False, compare=False)
    context: ssl.SSLContext = field(repr=False, compare=False)

    @cached_property
    def ticket(self) -> bytes | None:
        if self.session is None:
            return None
        sent = ssl.MemoryBIO()
        connection = self.context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="unsent", session=self.session)
        with suppress(ssl.SSLWantReadError):
            connection.do_handshake()
        return offered_ticket(sent.read())

    @property
    def key_name(self) -> bytes | None:
        return None if self.ticket is None else tickets.key_name(self.ticket)

    @property
    def lifetime_hint_s(self) -> int | None:
        return None if self.session is None else self.session.ticket_lifetime_hint


@dataclass(frozen=True, slots=True)
class Fault:
    """
    A handshake that did not succeed: UNREACHABLE, RESET or CERTIFICATE, and why in words.

    `unspoken`: the server answered that it does not speak this version of TLS.
    """

    state: ProbeState
    words: str
    unspoken: bool = False


def client_context(version: Version, trust: Trust) -> ssl.SSLContext:
    """A client that speaks one version only. Raises KeyrotdError when the CA file does not load."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    only = ssl.TLSVersion.TLSv1_2 if version is Version.TLS12 else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = only
    if trust.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trust.ca_file is None:
        context.load_default_certs()
    else:
        # Whatever stands in the file is trusted, be it a root, an intermediate or the very certificate.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(trust.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise KeyrotdError(
                f"probe: CA file {trust.ca_file} does not load: {error.strerror}",
                hint="name a readable PEM file of certificates",
            ) from error
    return context


def visit(target: Target, context: ssl.SSLContext, *, sni: str | None, timeout_ms: int) -> Handshake | Fault:
    """One full handshake, staying until a ticket came, the server closed, or `timeout_ms` were over."""
    return _handshake(_Wire(target, context, sni, offered=None), timeout_ms, _await_ticket)


def resume(
    target: Target, context: ssl.SSLContext, session: ssl.SSLSession, *, sni: str | None, timeout_ms: int
) -> Handshake | Fault:
    """One handshake that offers `session`, which this uses up in no way. It ends with the handshake."""
    return _handshake(_Wire(target, context, sni, offered=session), timeout_ms, _leave)


def overhear(target: Target, context: ssl.SSLContext, *, sni: str | None, timeout_ms: int) -> bytes:
    """Return the bytes that a server sent in a visit, the first of them, as they came and however the visit ended."""
    wire = _Wire(target, context, sni, offered=None)
    _handshake(wire, timeout_ms, _await_ticket)
    return bytes(wire.heard)


def _handshake(wire: "_Wire", timeout_ms: int, stay: Callable[["_Wire"], None]) -> Handshake | Fault:
    began_s = time.monotonic()
    try:
        wire.connect(began_s + timeout_ms / 1000)
    except OSError as error:
        return Fault(ProbeState.UNREACHABLE, _reason(error))
    with wire:
        try:
            wire.drive(wire.tls.do_handshake)
            took_ms = round((time.monotonic() - began_s) * 1000)
            stay(wire)
        except OSError as error:  # ssl.SSLError is one
            return _fault(error)
        return Handshake(
            version=Version.TLS13 if wire.tls.version() == "TLSv1.3" else Version.TLS12,
            resumed=wire.tls.session_reused is True,
            certificate=hashlib.sha256(wire.tls.getpeercert(binary_form=True) or b"").hexdigest(),
            took_ms=took_ms,
            session=wire.issued,
            context=wire.tls.context,
        )


def _leave(_wire: "_Wire") -> None:
    pass


def _await_ticket(wire: "_Wire") -> None:
    """
    TLS 1.3 tickets follow the handshake, on some servers only with an answer: ask for as little as can be asked.

    A server that speaks no HTTP may say anything or nothing: whatever it does, the handshake has succeeded, unless
    it says by an alert that it has not (it wanted a client's certificate).
    """
    if wire.issued is not None or wire.tls.version() != "TLSv1.3":
        return
    host = wire.server_name.encode("idna")
    request = b"HEAD / HTTP/1.1\r\nHost: %b\r\nUser-Agent: keyrotd-probe\r\nConnection: close\r\n\r\n" % host
    try:
        with suppress(ConnectionError):  # it may have said why before it closed
            wire.drive(lambda: wire.tls.write(request))
        while wire.issued is None:
            try:
                if not wire.tls.read(2**14):
                    return
            except ssl.SSLWantReadError:
                # What was read may have been a ticket and nothing else: then there is no more to wait for.
                if wire.issued is None:
                    wire.receive()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, TimeoutError):
        return


class _Wire:
    """A TLS connection whose every wait ends at one deadline."""

    def __init__(
        self, target: Target, context: ssl.SSLContext, sni: str | None, *, offered: ssl.SSLSession | None
    ) -> None:
        self.server_name = sni or target.server_name
        self._target = target
        self._offered = offered
        self.heard = bytearray()
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._received, self._to_send, server_hostname=self.server_name, session=offered)

    def connect(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._socket = self._target.connect(deadline_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._socket, suppress(OSError):
            try:
                self.tls.unwrap()  # says goodbye, and does not wait for the answer
            finally:
                self._flush()

    @property
    def issued(self) -> ssl.SSLSession | None:
        """The session with a ticket of this connection's own; OpenSSL derives a session's id from its ticket."""
        session = self.tls.session
        if session is None or not session.has_ticket:
            return None
        return None if self._offered is not None and session.id == self._offered.id else session

    def drive(self, act: Callable[[], _T]) -> _T:
        """`act` to its end, carrying bytes both ways. Raises OSError."""
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                self._flush()
                self.receive()
            else:
                self._flush()
                return done

    def _flush(self) -> None:
        if self._to_send.pending:
            self._socket.settimeout(self._left_s())
            self._socket.sendall(self._to_send.read())

    def receive(self) -> None:
        self._socket.settimeout(self._left_s())
        if received := self._socket.recv(2**16):
            self.heard += received[: HEARD_BYTES - len(self.heard)]
            self._received.write(received)
        else:
            self._received.write_eof()

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _fault(error: OSError) -> Fault:
    match error:
        case ssl.SSLCertVerificationError():
            return Fault(ProbeState.CERTIFICATE, error.verify_message)
        case ssl.SSLError() if error.reason in _UNSPOKEN:
            return Fault(ProbeState.RESET, "does not speak this version of TLS", unspoken=True)
        case _:
            return Fault(ProbeState.RESET, _reason(error))


_UNSPOKEN = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"})


def _reason(error: OSError) -> str:
    match error:
        case TimeoutError():
            return "no answer in time"
        case ssl.SSLEOFError() | ConnectionResetError() | BrokenPipeError():
            return "closed the connection within the handshake"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "answers, but does not speak TLS"
        case ssl.SSLError(reason=str(reason)):
            return reason.replace("_", " ").lower()
        case _:
            return (error.strerror or str(error)).lower()
