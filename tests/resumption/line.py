"""One TLS connection that sees every ticket as it comes: a server's flight is taken record by record."""

import socket
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

_T = TypeVar("_T")

_HEADER_BYTES = 5
_READ_BYTES = 1 << 14


class Line:
    """
    To a port of loopback, offering `session` if there is one. All of it raises OSError, of which ssl.SSLError is one.

    `tickets` are the sessions that this connection brought, oldest first: OpenSSL's servers issue two in one flight
    after a full handshake of TLS 1.3, of which SSLSocket would show the last.
    """

    def __init__(self, port: int, context: ssl.SSLContext, session: ssl.SSLSession | None, timeout_s: float) -> None:
        self.tickets: list[ssl.SSLSession] = []
        self._shaken = False
        self._known = None if session is None else session.id
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._received, self._to_send, self._records = ssl.MemoryBIO(), ssl.MemoryBIO(), bytearray()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname="localhost", session=session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def shake_hands(self) -> None:
        self._drive(self._tls.do_handshake)
        self._shaken = True
        self._note()

    def say(self, words: bytes) -> None:
        self._drive(lambda: self._tls.write(words))

    def hear(self) -> bytes:
        """Some of the answer; nothing when the server has ended it."""
        return self._drive(lambda: self._tls.read(_READ_BYTES))

    @property
    def resumed(self) -> bool:
        return self._tls.session_reused is True

    def _drive(self, act: Callable[[], _T]) -> _T:
        while True:
            try:
                done = act()
            except ssl.SSLWantReadError:
                self._flush()
                self._note()
                self._take_record()
            else:
                self._flush()
                self._note()
                return done

    def _flush(self) -> None:
        if self._to_send.pending:
            self._socket.sendall(self._to_send.read())

    def _note(self) -> None:
        # Amidst a handshake there is no whole session to be had; later each takes its id from its ticket.
        session = self._tls.session if self._shaken else None
        if session is not None and session.has_ticket and session.id != self._known:
            self._known = session.id
            self.tickets.append(session)

    def _take_record(self) -> None:
        while len(self._records) < _HEADER_BYTES or len(self._records) < self._length:
            said = self._socket.recv(_READ_BYTES)
            if not said:
                self._received.write_eof()
                return
            self._records += said
        self._received.write(self._records[: self._length])
        del self._records[: self._length]

    @property
    def _length(self) -> int:
        return _HEADER_BYTES + int.from_bytes(self._records[3:_HEADER_BYTES])
