"""
Hints over pub/sub, heard on the very connections over which the stores are asked: a node takes one of them for a ring.

Nobody asks a silent connection whether it lives: the next poll does, and a poll comes anyway. Whatever befalls the
listening costs no poll, and a lost connection is looked after within seconds, by the poll that its loss hints at.
"""

import select
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from keyrotd.store.redis import RedisStore


class RedisWakes:
    """
    Hints for the rings of `stores`. `wait` belongs to one thread, `close` to anybody, each store to its own thread.

    `schedules`: requests are for us, and nothing else is.
    """

    def __init__(self, stores: Sequence[RedisStore], *, schedules: bool) -> None:
        self._bell, self._knock = socket.socketpair()
        self._bell.setblocking(False)
        self._knock.setblocking(False)
        self._waiting = threading.Lock()
        self._closed = threading.Event()
        self._heard = [store.listen(schedules=schedules, changed=self._ring) for store in stores]

    @property
    def fault(self) -> str:
        return next((heard.ear.fault for heard in self._heard if heard.ear.fault), "")

    def wait(self, timeout_ms: int) -> bool:
        until_s = time.monotonic() + timeout_ms / 1000
        with self._waiting:
            while not self._closed.is_set():
                for heard in self._heard:
                    heard.listen()
                hinted = [heard for heard in self._heard if heard.ear.take_hint()]  # each: one tick looks at all
                if hinted:
                    return True
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._until_something(left_s)
            return False

    def close(self) -> None:
        self._closed.set()
        self._ring()
        with self._waiting:
            self._bell.close()
            self._knock.close()

    def _until_something(self, left_s: float) -> None:
        hints_s = [heard.ear.hint_s for heard in self._heard if heard.ear.hint_s is not None]
        left_s = max(0.0, min([left_s, *(hint_s - time.monotonic() for hint_s in hints_s)]))
        ready = select.poll()
        for fileno in (self._bell.fileno(), *(heard.fileno for heard in self._heard)):
            if fileno >= 0:
                ready.register(fileno, select.POLLIN)
        ready.poll(left_s * 1000)
        with suppress(OSError):
            self._bell.recv(4096)

    def _ring(self) -> None:
        # What was said while a store was being asked was read by who asked.
        with suppress(OSError):
            self._knock.send(b"\0")
