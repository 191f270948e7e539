"""
One connection to one server, bounded in time and bytes.

redis-py connects, authenticates, frames and parses. Its own timeouts bound each read and not their sum: a server that
drips its answer would hold a tick for as long as it likes. What stays unbounded is the system's name resolution.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from ssl import SSLWantReadError
from typing import Any, Final, Protocol

from keyrotd.store.addresses import Address
from keyrotd.store.redispy import (
    Connection,
    MaintNotificationsConfig,
    NoBackoff,
    RedisError,
    RedisTimeoutError,
    ResponseError,
    Retry,
    SSLConnection,
    UnixDomainSocketConnection,
)

# What redis-py raises on a bad line, and on answers that no honest server gives (its parser trusts them).
FAILED: Final = (
    *(RedisError, OSError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, RecursionError, MemoryError),
)

Words = tuple[str | bytes | int, ...]


class Line(Protocol):
    """What is used of redis-py's connections, which carry no types."""

    handshake_metadata: Any

    def send_packed_command(self, command: Any, check_health: bool) -> None: ...  # noqa: ANN401, FBT001 - as they are

    def pack_commands(self, commands: Sequence[Sequence[str | bytes | int]]) -> Any: ...  # noqa: ANN401

    def read_response(self, *, disconnect_on_error: bool = True, push_request: bool = False) -> object: ...

    def disconnect(self) -> None: ...


@dataclass(slots=True)
class Bounds:
    """Until when, and how many bytes more, a socket may be read. Not `waiting`: nothing but what has come."""

    until: float = 0.0
    left: int = 0
    waiting: bool = True

    def begin(self, timeout_ms: int, answer_bytes: int) -> None:
        self.until = time.monotonic() + timeout_ms / 1000
        self.left = answer_bytes

    @property
    def remaining_s(self) -> float:
        return max(0.0, self.until - time.monotonic())

    @contextmanager
    def glancing(self, most_bytes: int) -> Iterator[None]:
        """Read what has come, up to so many bytes, and wait for nothing."""
        left, self.left, self.waiting = self.left, most_bytes, False
        try:
            yield
        finally:
            self.left, self.waiting = left, True

    @contextmanager
    def narrowed(self, parts: int) -> Iterator[None]:
        """Leave what follows one of so many equal parts of the time that is left."""
        until = self.until
        self.until = time.monotonic() + self.remaining_s / parts
        try:
            yield
        finally:
            self.until = until


def dial(address: Address, bounds: Bounds) -> Line:
    """Connect and log in within `bounds`. Raises what FAILED lists."""
    remaining_s = bounds.remaining_s
    if remaining_s == 0:
        raise RedisTimeoutError
    password = address.password
    if address.password_file is not None:
        password = Path(address.password_file).read_text("utf-8").strip()
    terms: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": password,
        # Connecting and the TLS handshake come before the bounds apply, and may take half of them each.
        "socket_connect_timeout": remaining_s / 2,
        "socket_timeout": remaining_s / 2,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 3,
        "decode_responses": False,
        "client_name": "keyrotd",
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    kind: Any = UnixDomainSocketConnection if address.path else SSLConnection if address.tls else Connection
    connection = kind(**terms, **_whereabouts(address))
    reach = connection._connect  # noqa: SLF001 - the one hook where a socket of our own can stand in
    connection._connect = lambda: BoundedSocket(reach(), bounds)  # noqa: SLF001
    try:
        connection.connect()
    except BaseException:
        connection.disconnect()
        raise
    line: Line = connection
    return line


def converse(line: Line, commands: Sequence[Words]) -> list[Any]:
    """Ask all in one round trip; a refusal is a ResponseError among the answers."""
    line.send_packed_command(line.pack_commands(commands), check_health=False)
    return [_answer(line) for _ in commands]


def _answer(line: Line) -> object:
    try:
        return line.read_response()
    except ResponseError as refusal:
        return refusal


def subscribe(line: Any, channel: str, hear: Callable[[object], object]) -> None:  # noqa: ANN401 - a Line, whose parser nobody else may know
    """Have `hear` told whatever is said on `channel`, between answers and among them. Raises what FAILED lists."""
    line._parser.set_pubsub_push_handler(hear)  # noqa: SLF001
    line.send_packed_command(line.pack_commands([("SUBSCRIBE", channel)]), check_health=False)
    line.read_response(push_request=True)


def fileno(line: Any) -> int:  # noqa: ANN401 - likewise its socket
    """Return the number of an open line's socket; -1 when it was closed, by whatever thread."""
    try:
        number: int = line._sock.fileno()  # noqa: SLF001
    except AttributeError:
        return -1
    return number


def _whereabouts(address: Address) -> dict[str, Any]:
    if address.path:
        return {"path": address.path}
    where = {"host": address.host, "port": address.port}
    if not address.tls:
        return where
    return {
        **where,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": address.ca_file,
        "ssl_certfile": address.cert_file,
        "ssl_keyfile": address.key_file,
    }


class BoundedSocket:
    """A socket that keeps to `bounds`, whatever timeouts anybody sets on it."""

    def __init__(self, raw: socket, bounds: Bounds) -> None:
        self._raw = raw
        self._bounds = bounds

    def recv(self, size: int) -> bytes:
        with self._bounded():
            received = self._raw.recv(size)
        self._bounds.left -= len(received)
        return received

    def recv_into(self, buffer: bytearray) -> int:  # how hiredis reads, where it is installed
        with self._bounded():
            received = self._raw.recv_into(buffer)
        self._bounds.left -= received
        return received

    def sendall(self, data: bytes) -> None:
        with self._bounded():
            self._raw.sendall(data)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        remaining_s = self._bounds.remaining_s if self._bounds.waiting else 0
        if remaining_s == 0 and self._bounds.waiting:
            raise TimeoutError
        if self._bounds.left < 0:
            raise ValueError("the answer is too large")
        self._raw.settimeout(remaining_s)
        try:
            yield
        except (BlockingIOError, SSLWantReadError):
            raise TimeoutError from None

    def settimeout(self, timeout_s: float | None) -> None:
        """Do nothing: the bounds rule."""

    def shutdown(self, how: int) -> None:
        self._raw.shutdown(how)

    def close(self) -> None:
        self._raw.close()

    def fileno(self) -> int:
        return self._raw.fileno()
