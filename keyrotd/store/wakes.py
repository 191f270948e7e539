"""
Hints over pub/sub: one connection, subscribed to the channel of every ring.

redis-py's own health check sends PINGs and never asks for the answer, so that a connection half dead counts as quiet
for ever. Here silence is asked about, and no answer in time ends the connection.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from keyrotd.store.addresses import Address
from keyrotd.store.line import FAILED, Bounds, Line, hang_up
from keyrotd.store.redis import channel
from keyrotd.store.redispy import RedisTimeoutError
from keyrotd.store.route import route_to
from keyrotd.store.wire import unavailable

#: A message is empty; whoever may publish may send anything.
_MESSAGE_BYTES: Final = 65_536
_BACKOFF_LEAST_S: Final = 0.1
#: As long as an agent's poll interval by default: waiting longer would save nobody anything.
_BACKOFF_MOST_S: Final = 5.0


class RedisWakes:
    """
    Hints for `rings`. `wait` belongs to one thread, `close` to anybody.

    A connection silent for `quiet_ms` is asked whether it lives, and has `timeout_ms` to say so. After a lost
    connection the new one begins with a hint, since what was said in between is lost.
    """

    def __init__(
        self,
        address: Address,
        *,
        rings: Iterable[str],
        namespace: str,
        timeout_ms: int,
        quiet_ms: int = 10_000,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._address = address
        self._channels = tuple(channel(namespace, ring) for ring in rings)
        self._timeout_ms = timeout_ms
        self._quiet_s = quiet_ms / 1000
        self._rand = rand
        self._route = route_to(address)
        self._bounds = Bounds()
        self._line: Line | None = None
        self._waiting = threading.Lock()
        self._closed = threading.Event()
        self._heard_at = 0.0
        self._asked_at: float | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._fault = ""

    @property
    def fault(self) -> str:
        return self._fault

    def wait(self, timeout_ms: int) -> bool:
        until = time.monotonic() + timeout_ms / 1000
        with self._waiting:
            woken = False
            while not woken and not self._closed.is_set():
                try:
                    woken = self._step(until)
                except FAILED as error:
                    self._lose(error)
                if time.monotonic() >= until:
                    break
            return woken and not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        line = self._line
        if line is not None:
            hang_up(line)
        with self._waiting:
            self._drop()

    def _step(self, until: float) -> bool:
        """Connect, or ask whether anybody is there, or listen. True on a hint."""
        now = time.monotonic()
        if self._line is None:
            self._closed.wait(max(0.0, min(until, self._retry_at) - now))
            if not self._closed.is_set() and time.monotonic() >= self._retry_at:
                self._subscribe()
            return False
        if self._asked_at is not None:
            due_at = self._asked_at + self._timeout_ms / 1000
            if now >= due_at:
                raise RedisTimeoutError
        else:
            due_at = self._heard_at + self._quiet_s
            if now >= due_at:
                self._asked_at = now
                self._say("PING")
                return False
        return self._hear(min(until, due_at))

    def _subscribe(self) -> None:
        self._bounds.begin(self._timeout_ms, _MESSAGE_BYTES)
        self._line = self._route.reach(self._bounds)
        self._asked_at = time.monotonic()  # the confirmation is due like a PONG
        self._say("SUBSCRIBE", *self._channels)

    def _say(self, *words: str) -> None:
        assert self._line is not None
        self._bounds.begin(self._timeout_ms, _MESSAGE_BYTES)
        self._line.send_packed_command(self._line.pack_commands([words]), check_health=False)

    def _hear(self, until: float) -> bool:
        assert self._line is not None
        self._bounds.until, self._bounds.left = until, _MESSAGE_BYTES
        try:
            said = self._line.read_response(disconnect_on_error=False, push_request=True)
        except RedisTimeoutError:
            return False
        resumed = self._failures > 0
        self._heard_at, self._asked_at, self._failures, self._fault = time.monotonic(), None, 0, ""
        return resumed or (isinstance(said, list) and said[:1] == [b"message"])

    def _lose(self, error: Exception) -> None:
        self._drop()
        self._fault = str(unavailable(self._address, "wait", error, self._timeout_ms))
        backoff_s = min(_BACKOFF_MOST_S, _BACKOFF_LEAST_S * 2 ** min(self._failures, 10))
        # Half of it at random: a fleet that lost its store together must not come back together.
        self._retry_at = time.monotonic() + backoff_s * (0.5 + self._rand() / 2)
        self._failures += 1

    def _drop(self) -> None:
        if self._line is not None:
            self._line.disconnect()
            self._line = None
