"""The daemon's shell: what feeds the watchdog and what does not, when it is ready, how it stops and reloads."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrotd.daemon.notify import Notify
from keyrotd.daemon.service import Job, Service, Ticker
from keyrotd.daemon.turns import Crash, Ticked
from keyrotd.store.addresses import Address
from keyrotd.testing.children import wait_until
from tests.faults.rig import Recorder, Rig, driver_of

HANGING_MS = 25_000


class HandClock:
    boot_id = "boot-1"

    def __init__(self) -> None:
        self.boot = 1_000

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.boot

    def boot_ms(self) -> int:
        return self.boot


@dataclass
class Work:
    """A ticker that does what a test says; `ended` counts the ticks that came to their end."""

    does: Callable[[], None] = lambda: None
    began: int = 0
    ended: int = 0
    stopped: bool = False
    pauses_ms: int = 20
    crashes: tuple[Crash, ...] = ()

    def tick(self) -> Ticked:
        self.began += 1
        self.does()
        self.ended += 1
        return Ticked(self.pauses_ms, self.crashes)

    def stop(self) -> tuple[Crash, ...]:
        self.stopped = True
        return ()


@dataclass
class Passes:
    """Wakes that never come; the main thread asks for their fault once at each pass, so that passes can be counted."""

    count: int = 0
    why: str = ""
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def fault(self) -> str:
        self.count += 1
        return self.why

    def wait(self, timeout_ms: int) -> bool:
        self.closed.wait(timeout_ms / 1000)
        return False

    def close(self) -> None:
        self.closed.set()


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Everything heard since the last time."""
        heard: list[str] = []
        while True:
            try:
                heard.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                self.heard += heard
                return heard

    def heard_of(self, word: str) -> bool:
        self.listen()
        return word in self.heard

    def close(self) -> None:
        self._socket.close()


@dataclass
class Shell:
    """A service in the main thread, and a test that watches it from another."""

    systemd: Systemd
    address: Path
    clock: HandClock = field(default_factory=HandClock)
    recorder: Recorder = field(default_factory=Recorder)
    passes: Passes = field(default_factory=Passes)
    reloads: list[bool] = field(default_factory=list)
    spoils_reload: Exception | None = None

    def reload(self) -> None:
        self.reloads.append(True)
        if self.spoils_reload is not None:
            raise self.spoils_reload

    def play(self, ticker: Ticker, scene: Callable[[], None]) -> None:
        """Run the service until `scene` is over."""
        self.job = Job("work", ticker, wakes=self.passes)
        self.service = Service(
            [self.job],
            clock=self.clock,
            rand=os.urandom,
            reporter=self.recorder,
            notify=Notify(address=str(self.address), watched=True),
            reload=self.reload,
        )

        def watched() -> None:
            try:
                scene()
            finally:
                self.service.stop()

        with ThreadPoolExecutor(1) as pool:
            played = pool.submit(watched)
            self.service.run()
        played.result()

    def look(self, times: int = 2) -> list[str]:
        """Let the main thread pass so often; return what it told systemd meanwhile."""
        self.systemd.listen()
        until = self.passes.count + times
        wait_until(lambda: self.passes.count >= until, "the main thread looks")
        return self.systemd.listen()


@pytest.fixture
def shell(short_path: Path) -> Iterator[Shell]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    address = short_path / "notify"
    systemd = Systemd(address)
    yield Shell(systemd, address)
    systemd.close()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_ready_is_said_after_the_first_tick_and_not_before(shell: Shell) -> None:
    go = threading.Event()

    def scene() -> None:
        assert shell.look() == []
        assert not shell.service.ticked
        go.set()
        wait_until(lambda: shell.systemd.heard_of("WATCHDOG=1"), "the watchdog is fed")
        assert shell.systemd.heard[:2] == ["READY=1", "WATCHDOG=1"]

    shell.play(Work(does=lambda: _ok(go.wait(20))), scene)


def is_alive(shell: Shell) -> bool:
    return shell.service.alive


def is_armed(shell: Shell) -> bool:
    job = shell.service._alarm.get_job("work")
    return not shell.job.running and job is not None and job.next_run_time < datetime.now(UTC) + timedelta(seconds=1)


def _ok(_: object) -> None:
    pass


def test_a_tick_that_raises_is_counted_said_whole_and_starves_the_watchdog(shell: Shell) -> None:
    work = Work()

    def broken() -> None:
        raise ZeroDivisionError("a bug")

    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("WATCHDOG=1"), "all is well")
        work.does = broken
        wait_until(lambda: shell.recorder.value("tick_errors_total") > 2, "it goes on trying")
        assert is_alive(shell)  # one bad tick kills nobody
        shell.clock.boot += HANGING_MS

        assert not is_alive(shell)
        shell.look(1)
        assert "WATCHDOG=1" not in shell.look()
        crashes = shell.recorder.events("tick.crashed")
        assert isinstance(crashes[0]["exc_info"], ZeroDivisionError)
        assert crashes[0]["log_level"] == "error"

        work.does = lambda: None
        ended = work.ended
        wait_until(lambda: work.ended > ended, "a tick ends again")
        assert "WATCHDOG=1" in shell.look()

    shell.play(work, scene)


def test_a_tick_in_which_one_part_crashed_starves_the_watchdog_too(shell: Shell) -> None:
    work, bug = Work(), ZeroDivisionError("a bug")

    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("WATCHDOG=1"), "all is well")
        work.crashes = (Crash(bug),)
        wait_until(lambda: shell.recorder.value("tick_errors_total") > 2, "it goes on ticking")
        shell.clock.boot += HANGING_MS

        shell.look(1)
        assert "WATCHDOG=1" not in shell.look()
        assert shell.recorder.events("tick.crashed")[0]["exc_info"] is bug

    shell.play(work, scene)


def test_a_tick_that_hangs_starves_the_watchdog(shell: Shell) -> None:
    work, go = Work(), threading.Event()

    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("WATCHDOG=1"), "all is well")
        work.does = lambda: _ok(go.wait(20))
        wait_until(lambda: work.began > work.ended, "a tick hangs")
        shell.clock.boot += HANGING_MS

        assert not is_alive(shell)
        shell.look(1)
        assert "WATCHDOG=1" not in shell.look()

        go.set()
        ended = work.ended
        wait_until(lambda: work.ended > ended, "a tick ends again")
        assert "WATCHDOG=1" in shell.look()

    shell.play(work, scene)


def test_a_store_that_is_away_starves_nobody(shell: Shell, short_path: Path) -> None:
    rig = Rig(Address(path=str(short_path / "nobody.sock")), short_path)
    node = rig.add_node(driver_of(rig.add_twin()))
    rig.now_at += 2_000

    class Ticking:
        def tick(self) -> Ticked:
            return Ticked(min(node.agent.tick(), 20))

        def stop(self) -> tuple[Crash, ...]:
            return ()

    def scene() -> None:
        wait_until(lambda: node.telemetry.value("store_errors_total", operation="poll") > 3, "the store is away")
        shell.clock.boot += HANGING_MS
        ended_ms = shell.clock.boot
        wait_until(lambda: (shell.job.ended_ms or 0) >= ended_ms, "another tick ends")
        assert "WATCHDOG=1" in shell.look()
        assert shell.recorder.value("tick_errors_total") == 0

    shell.play(Ticking(), scene)
    rig.close()


def test_a_subscription_that_is_lost_is_said_and_counted_as_an_operation_of_the_store(shell: Shell) -> None:
    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("READY=1"), "it is ready")
        for why in ("no answer", "", "no answer", "refused"):
            shell.passes.why = why
            shell.look()

        assert shell.recorder.value("store_errors_total", operation="wait") == 3
        found = shell.recorder.events("fault.found")
        assert [(event["fault"], event["text"]) for event in found] == [
            ("work: wake-ups", why) for why in ("no answer", "no answer", "refused")
        ]

    shell.play(Work(), scene)


def test_an_alarm_that_a_stepped_clock_puts_hours_away_goes_off_all_the_same(shell: Shell) -> None:
    work = Work()

    def scene() -> None:
        wait_until(lambda: work.ended > 1, "it ticks")
        # A wall clock set back by an hour is, to an alarm, the same as being set an hour ahead.
        work.pauses_ms = 400
        ended = work.ended
        wait_until(lambda: work.ended > ended and is_armed(shell), "a tick has ended, with a longer pause")
        shell.service._alarm.modify_job("work", next_run_time=datetime.now(UTC) + timedelta(hours=1))
        ended = work.ended
        shell.look(1)
        assert work.ended == ended  # by the wall clock it is not due for an hour

        shell.clock.boot += 1_000

        wait_until(lambda: work.ended > ended, "it ticks by boot time")

    shell.play(work, scene)


def test_a_signal_to_stop_lets_the_tick_in_hand_end(shell: Shell) -> None:
    work, began, go = Work(), threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        go.wait(20)

    work.does = slow

    def scene() -> None:
        began.wait(20)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: shell.systemd.heard_of("STOPPING=1"), "it stops")
        assert not work.stopped
        go.set()

    shell.play(work, scene)

    assert work.ended == work.began == 1
    assert work.stopped


def test_a_hangup_reloads_between_two_words_to_systemd(shell: Shell) -> None:
    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("READY=1"), "it is ready")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: bool(shell.reloads), "it reloads")
        shell.look(1)

    shell.play(Work(), scene)

    told = [words for words in shell.systemd.heard if words not in {"WATCHDOG=1", "STOPPING=1"}]
    assert told == ["READY=1", f"RELOADING=1\nMONOTONIC_USEC={shell.clock.boot * 1000}", "READY=1"]


def test_a_reload_that_crashes_is_told_whole_and_ends_nobody(shell: Shell) -> None:
    shell.spoils_reload = RuntimeError("nobody expected this")
    work = Work()

    def scene() -> None:
        wait_until(lambda: shell.systemd.heard_of("READY=1"), "it is ready")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: bool(shell.reloads), "it reloads")
        ended = work.ended
        wait_until(lambda: work.ended > ended + 1, "it ticks on")
        shell.look(1)

    shell.play(work, scene)

    assert shell.recorder.value("tick_errors_total") == 1
    assert shell.systemd.heard.count("READY=1") == 2
