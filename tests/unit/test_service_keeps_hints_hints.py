"""A hint starts a tick at once, and a flood of hints starts no more ticks than a daemon can bear."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from keyrotd.daemon.clock import SystemClock
from keyrotd.daemon.notify import Notify
from keyrotd.daemon.service import WAKE_GAP_MS, WAKES_AT_ONCE, Job, Service
from keyrotd.daemon.telemetry import Reporter
from keyrotd.daemon.turns import Crash, Ticked

LONG_MS = 3_600_000


def test_a_few_hints_after_a_quiet_time_are_followed_at_once() -> None:
    job = Job("agent", Ticks(ends=1))

    waits = []
    for _ in range(WAKES_AT_ONCE + 2):
        waits.append(job.patience_ms(1_000_000))
        job.count_tick(1_000_000)

    assert waits == [0] * (WAKES_AT_ONCE + 1) + [WAKE_GAP_MS]
    assert job.patience_ms(1_000_000 + 2 * WAKE_GAP_MS) == 0


@pytest.mark.usefixtures("keep_handlers")
def test_a_hint_during_a_tick_starts_the_next_one() -> None:
    wakes = Calls()
    ticks = Ticks(ends=2, during=wakes.call)

    serve(ticks, wakes)

    assert ticks.count == 2


@pytest.mark.usefixtures("keep_handlers")
def test_a_flood_of_hints_is_followed_at_a_bearable_pace() -> None:
    clock = SystemClock()
    ticks = Ticks(ends=20)
    began_ms = clock.boot_ms()

    serve(ticks, Flood())

    assert clock.boot_ms() - began_ms >= (20 - WAKES_AT_ONCE - 2) * WAKE_GAP_MS


def serve(ticks: "Ticks", wakes: "Calls | Flood") -> None:
    """Run a service of one job until its ticker has ticked often enough."""
    job = Job("agent", ticks, wakes=wakes)
    service = Service(
        [job],
        clock=SystemClock(),
        rand=os.urandom,
        reporter=Reporter(),
        notify=Notify(address=None, watched=False),
        reload=lambda: None,
    )
    ticks.end = service.stop
    service.run()


@pytest.fixture
def keep_handlers() -> Iterator[None]:
    """The test's process gets its signal handlers back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@dataclass
class Ticks:
    """Ends the service with the tick of that number; no tick comes by itself."""

    ends: int
    during: Callable[[], None] = lambda: None
    count: int = field(default=0, init=False)
    end: Callable[[], None] = field(default=lambda: None, init=False)

    def tick(self) -> Ticked:
        self.count += 1
        self.during()
        if self.count == self.ends:
            self.end()
        return Ticked(LONG_MS)

    def stop(self) -> tuple[Crash, ...]:
        return ()


class Calls:
    """A hint whenever somebody calls."""

    fault = ""

    def __init__(self) -> None:
        self._called = threading.Event()

    def call(self) -> None:
        self._called.set()

    def wait(self, timeout_ms: int) -> bool:
        called = self._called.wait(timeout_ms / 1000)
        self._called.clear()
        return called

    def close(self) -> None:
        self._called.set()


class Flood:
    """Hints without end."""

    fault = ""

    def wait(self, timeout_ms: int) -> bool:
        _ = timeout_ms
        threading.Event().wait(0.0005)
        return True

    def close(self) -> None:
        pass
