"""Whole fleets of real parts for tests and benches: started in a short directory, rotated as fast as promises allow."""

import http.client
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from keyrotd import secrets
from keyrotd.config import load
from keyrotd.core.decide import free_from
from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import Goal, Request
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import OperatorKey
from keyrotd.seal.messages import read_beat, sign_request
from keyrotd.seal.window import open_window
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import RING, Fleet, Pace
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import LiveServer

#: The fastest life in which a stalled machine is still no fault: rotations come by request, whenever no key with live
#: tickets would leave a server's slots (HAProxy has three: T + eps, here 1.1 s, after the last one was read back
#: everywhere).
HURRIED = Pace(
    rotation_interval="8s",
    ticket_lifetime="500ms",
    overdue_after="2s",
    tick_interval="100ms",
    lease_ttl="2s",
    node_ttl="4s",
    poll_interval="100ms",
    store_timeout="200ms",
    start_grace="500ms",
)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose Unix sockets have room in their 107 bytes."""
    name = tempfile.mkdtemp(prefix="keyrotd-test-", dir="/tmp" if Path("/tmp").is_dir() else None)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name)


def haproxies(fleet: Fleet) -> list[HAProxy]:
    """Those of its servers whose rings of keys can be asked."""
    return [server for server in fleet.servers if isinstance(server, HAProxy)]


@contextmanager
def started(fleet: Fleet) -> Iterator["Operator"]:
    """The fleet, once every node has read its first window back; ended with the block."""
    operator = Operator(fleet)
    try:
        fleet.start()
        wait_until(lambda: fleet.in_step(operator.store), "the first window is read back everywhere", patience_s=60)
        yield operator
    finally:
        operator.store.close()
        fleet.close()


@dataclass(frozen=True)
class Operator:
    """Somebody with the operator key and a connection of his own, who asks for rotations and watches them."""

    fleet: Fleet

    @cached_property
    def store(self) -> RedisStore:
        return self.fleet.store()

    @property
    def window(self) -> Window:
        window = self.fleet.window(self.store)
        assert window is not None, "the store has no window"
        return window

    def rotate(self) -> int:
        """One rotation by request, as soon as it is free; how long after its publish the last node had it, in ms."""
        wait_until(self.free, "a rotation is free")
        before = self.window.epoch
        self.ask(Goal.ROTATE, before)
        wait_until(lambda: self.fleet.in_step(self.store, above=before), "the rotation is read back everywhere")
        return now_at() - self.window.published_at

    def ask(self, goal: Goal, past_epoch: int) -> None:
        """Hand a signed request in."""
        request = Request(
            ring=RING,
            goal=goal,
            past_epoch=past_epoch,
            drop_live_keys=False,
            who="tests",
            reason="because",
            made_at=now_at(),
        )
        self.store.request(id=os.urandom(8).hex(), request=sign_request(request, self._key))

    def free(self) -> bool:
        """Whether the leader would rotate now, by what it signed itself."""
        look = self.store.look()
        if look.window is None or look.beat is None:
            return False
        verifiers = self.fleet.verifiers
        try:
            window = open_window(look.window, verifiers=verifiers, keks=self.fleet.keks, ring=RING)
            beat = read_beat(look.beat, verifiers=verifiers, ring=RING)
        except CorruptWindow:
            return False
        if beat.digest != window.digest or beat.confirmed_at is None:
            return False
        reports = self.fleet.reports(self.store)
        slots = min((report.slots for report in reports if report.slots is not None), default=None)
        return free_from(window, slots, beat.confirmed_at, self._eps_ms, now_at()) is None

    @cached_property
    def _key(self) -> OperatorKey:
        return secrets.read(self.fleet.directory / "operator.key", OperatorKey)[0]

    @cached_property
    def _eps_ms(self) -> int:
        return load(self.fleet.config("s1")).rings[0].policy.eps_ms


class Visitor:
    """A client whose one connection stays open, and is never opened again."""

    def __init__(self, node: LiveServer, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._line = http.client.HTTPSConnection("localhost", node.port, context=context, timeout=10)
        self._line.connect()
        self._line.auto_open = 0

    def pid(self) -> int:
        """Who answers, by its own word."""
        self._line.request("GET", "/")
        page = self._line.getresponse().read().decode()
        return int(page.split("pid=")[1].split()[0])

    def stays(self) -> bool:
        """Whether the connection still answers."""
        try:
            return self.pid() > 0
        except (OSError, http.client.HTTPException):
            return False

    def leave(self) -> None:
        self._line.close()


def now_at() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
