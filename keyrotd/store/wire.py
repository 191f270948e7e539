"""
One connection to a store, and one bound on time and bytes for each question, its retry included.

redis-py connects, authenticates, frames and parses. Its own timeouts bound each read and not their sum, and its own
retries multiply them: a server that drips its answer would hold a tick for as long as it likes. What stays unbounded
is the system's name resolution.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from socket import SHUT_RDWR, socket
from typing import Any, Final, Protocol

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import Address
from keyrotd.store.redispy import (
    AuthenticationError,
    BusyLoadingError,
    Connection,
    MaintNotificationsConfig,
    NoBackoff,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisConnectionError,
    RedisError,
    RedisTimeoutError,
    ResponseError,
    Retry,
    SSLConnection,
    UnixDomainSocketConnection,
)
from keyrotd.store.scripts import Run

#: 64 offered windows take 4 MiB; only reports may take more.
ANSWER_BYTES: Final = 8_388_608

# What redis-py raises on a bad line, and on answers that no honest server gives (its parser trusts them).
FAILED: Final = (RedisError, OSError, ValueError, TypeError, AttributeError, RecursionError, MemoryError)

_SHOWN_CHARACTERS = 160

Command = Run | tuple[str | bytes | int, ...]


class Line(Protocol):
    """What is used of redis-py's connections, which carry no types."""

    def send_packed_command(self, command: Any, check_health: bool) -> None: ...  # noqa: ANN401, FBT001 - as they are

    def pack_commands(self, commands: Sequence[Sequence[str | bytes | int]]) -> Any: ...  # noqa: ANN401

    def read_response(self, *, disconnect_on_error: bool = True, push_request: bool = False) -> object: ...

    def disconnect(self) -> None: ...


class Wire:
    """Asks one server; reconnects by itself. Belongs to one thread."""

    def __init__(self, address: Address, *, timeout_ms: int) -> None:
        self.address = address
        self.timeout_ms = timeout_ms
        self._bounds = Bounds()
        self._connection: Line | None = None

    def ask(self, operation: str, *commands: Command, answer_bytes: int = ANSWER_BYTES) -> list[Any]:
        """Send all commands in one round trip; a command's refusal is a ResponseError among the answers."""
        self._bounds.begin(self.timeout_ms, answer_bytes)
        # That the server closed an idle connection shows only now, and says nothing about the server of this moment.
        if self._connection is not None:
            try:
                return self._exchange(commands)
            except FAILED as error:
                self.close()
                if isinstance(error, RedisTimeoutError):
                    raise unavailable(self.address, operation, error, self.timeout_ms) from error
        try:
            return self._exchange(commands)
        except FAILED as error:
            self.close()
            raise unavailable(self.address, operation, error, self.timeout_ms) from error

    def then(self, *command: str | int) -> Any:  # noqa: ANN401 - an answer has whatever shape the server gave it
        """Ask one thing more on the very same connection, in what is left of the same bounds; None if that fails."""
        if self._connection is None:
            return None
        try:
            return self._exchange((command,))[0]
        except FAILED:
            self.close()
            return None

    @property
    def remaining_ms(self) -> int:
        return max(0, int((self._bounds.until - time.monotonic()) * 1000))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def _exchange(self, commands: tuple[Command, ...]) -> list[Any]:
        if self._connection is None:
            self._connection = dial(self.address, self._bounds, timeout_ms=self.timeout_ms)
        answers = self._round_trip([command.brief if isinstance(command, Run) else command for command in commands])
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # Whatever of it was done already may be done again: see scripts.py.
            answers = self._round_trip([command.whole if isinstance(command, Run) else command for command in commands])
        if any(isinstance(answer, ReadOnlyError) for answer in answers):
            self.close()  # a primary that became a replica: the next connection may reach the new one
        return answers

    def _round_trip(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Any]:
        assert self._connection is not None
        self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        return [_answer(self._connection) for _ in commands]


def _answer(connection: Line) -> object:
    try:
        return connection.read_response()
    except ResponseError as refusal:
        return refusal


@dataclass(slots=True)
class Bounds:
    """Until when, and how many bytes more, a socket may be read."""

    until: float = 0.0
    left: int = 0

    def begin(self, timeout_ms: int, answer_bytes: int) -> None:
        self.until = time.monotonic() + timeout_ms / 1000
        self.left = answer_bytes


class BoundedSocket:
    """A socket that keeps to `bounds`, whatever timeouts anybody sets on it."""

    def __init__(self, raw: socket, bounds: Bounds) -> None:
        self._raw = raw
        self._bounds = bounds

    def recv(self, size: int) -> bytes:
        self._begin()
        received = self._raw.recv(size)
        self._bounds.left -= len(received)
        return received

    def recv_into(self, buffer: bytearray) -> int:  # how hiredis reads, where it is installed
        self._begin()
        received = self._raw.recv_into(buffer)
        self._bounds.left -= received
        return received

    def sendall(self, data: bytes) -> None:
        self._begin()
        self._raw.sendall(data)

    def _begin(self) -> None:
        remaining_s = self._bounds.until - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        if self._bounds.left < 0:
            raise ValueError("the answer is too large")
        self._raw.settimeout(remaining_s)

    def settimeout(self, timeout_s: float | None) -> None:
        """Do nothing: the bounds rule."""

    def shutdown(self, how: int) -> None:
        self._raw.shutdown(how)

    def close(self) -> None:
        self._raw.close()

    def fileno(self) -> int:
        return self._raw.fileno()


def dial(address: Address, bounds: Bounds, *, timeout_ms: int) -> Line:
    """Connect and log in within `bounds`. Raises what FAILED lists."""
    password = address.password
    if address.password_file is not None:
        password = Path(address.password_file).read_text("utf-8").strip()
    terms: dict[str, Any] = {
        "db": address.db,
        "username": address.username,
        "password": password,
        # Connecting and the TLS handshake come before the bounds apply, and may take half of them each.
        "socket_connect_timeout": timeout_ms / 2000,
        "socket_timeout": timeout_ms / 2000,
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


def hang_up(line: Any) -> None:  # noqa: ANN401 - a Line, of which no caller else may know the socket
    """End whatever another thread is reading from `line`; that thread closes it."""
    open_socket = line._sock  # noqa: SLF001
    if open_socket is not None:
        with suppress(OSError):
            open_socket.shutdown(SHUT_RDWR)


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


def unavailable(address: Address, operation: str, error: BaseException, timeout_ms: int) -> StoreUnavailable:
    """What a fault of the store means to us, with a hint where somebody can act; never a credential."""
    words = "".join(character if character.isprintable() else " " for character in str(error))[:_SHOWN_CHARACTERS]
    hint = _hint(error, words)
    if isinstance(error, RedisTimeoutError):
        words = f"no answer within {timeout_ms} ms"
    elif not isinstance(error, RedisError | OSError):
        words = f"an answer that cannot be used ({words or type(error).__name__})"
    return StoreUnavailable(f"store {address}: {operation}: {words}", operation=operation, hint=hint)


def _hint(error: BaseException, words: str) -> str | None:
    if isinstance(error, AuthenticationError):
        return "set the user and password (or password_file) of store.url to what the store expects"
    if isinstance(error, NoPermissionError) or "can't run this command" in words or "can't access" in words:
        return "`keyrotd acl` prints the rights that each role needs"
    if isinstance(error, ReadOnlyError):
        return "store.url names a replica; name the primary"
    if isinstance(error, OutOfMemoryError):
        return "raise the store's maxmemory: a ring takes less than 1 MiB and 1 KiB a node"
    if isinstance(error, BusyLoadingError):
        return "the store is still loading its data; nothing to do"
    if "unknown command" in words.lower():
        return "keyrotd needs Redis 7.0 or later, or Valkey"
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return "name the authority that signed the store's certificate: store.url?ca_file=FILE"
    if words.startswith(("MOVED ", "CROSSSLOT", "CLUSTERDOWN")):
        return "store.url names a node of a cluster, which is not supported yet"
    if isinstance(error, RedisTimeoutError | TimeoutError):
        return "is the store stopped or overloaded, or the way to it cut? all keys stay until it answers again"
    if isinstance(error, RedisConnectionError | OSError):
        return "the store does not answer: does it run, and where store.url says? all keys stay until it does"
    return None
