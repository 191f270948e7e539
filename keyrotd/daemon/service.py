"""
The shell of a daemon: an alarm that ticks, signals that set a flag, a watchdog that is fed only by ticks that end.

APScheduler is the alarm clock and never the judge: whether anything is due, the tick decides from what it reads.
Everything that its defaults would decide (misfires are skipped after one second) is said explicitly.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Protocol

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers import SchedulerNotRunningError
from apscheduler.schedulers.background import BackgroundScheduler

from keyrotd.core.policy import JITTER_PERCENT
from keyrotd.daemon.clock import Clock
from keyrotd.daemon.notify import Notify
from keyrotd.daemon.telemetry import Reporter
from keyrotd.daemon.turns import Crash, Ticked, attempt
from keyrotd.store.port import Wakes

#: The main thread looks at its daemons this often.
WATCH_EVERY_S = 0.5
#: A tick that takes this many times its own pause, and at least this long, hangs.
_HANGING_PAUSES = 10
_HANGING_MS = 20_000
#: Whoever may publish hints may publish millions: they start one tick in so many milliseconds, and after some quiet
#: this many at once (a rotation by request is two: the request wakes everybody, then the window does).
WAKE_GAP_MS = 20
WAKES_AT_ONCE = 3
#: An alarm that is later than this will not go off by itself.
_ALARM_LATE_MS = 500
#: A listener's wait; it returns early on a wake or when closed.
_LISTEN_MS = 5_000
_NEVER_ALONE = timedelta(days=365)


class Ticker(Protocol):
    """A daemon's work; `stop` is its last act."""

    def tick(self) -> Ticked: ...
    def stop(self) -> Sequence[Crash]: ...


@dataclass
class Job:
    """A ticker and what is known of its ticks. `wakes` shortens its pauses; None: nothing does."""

    name: str
    ticker: Ticker
    wakes: Wakes | None = None
    jittered: bool = False
    pause_ms: int = field(default=1000, init=False)
    ended_ms: int | None = field(default=None, init=False)
    due_ms: int | None = field(default=None, init=False)
    running: bool = field(default=False, init=False)
    peace_until_ms: int = field(default=0, init=False)
    deaf: str = field(default="", init=False)
    woken: threading.Event = field(default_factory=threading.Event, init=False)

    def patience_ms(self, now_ms: int) -> int:
        """How long a hint has to wait."""
        return max(0, self.peace_until_ms - now_ms)

    def count_tick(self, now_ms: int) -> None:
        self.peace_until_ms = max(self.peace_until_ms, now_ms - WAKES_AT_ONCE * WAKE_GAP_MS) + WAKE_GAP_MS

    def hangs(self, now_ms: int, started_ms: int) -> bool:
        """Whether no tick ran to its end for far longer than one may take."""
        return now_ms - (self.ended_ms or started_ms) > max(_HANGING_MS, _HANGING_PAUSES * self.pause_ms)


class Service:
    """
    Runs jobs until a signal, `stop`, or something without which they are nothing has `ended`.

    `reload` is called for SIGHUP and when what it reads `changed`, between no two ticks in particular.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        clock: Clock,
        rand: Callable[[int], bytes],
        reporter: Reporter,
        notify: Notify,
        reload: Callable[[], None],
        ended: Callable[[], bool] = lambda: False,
        changed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._jobs, self._clock, self._rand = tuple(jobs), clock, rand
        self._reporter, self._notify, self._reload = reporter, notify, reload
        self._ended, self._changed = ended, changed
        self._pool = ThreadPoolExecutor(max_workers=max(1, len(self._jobs)))
        self._alarm = BackgroundScheduler(timezone=UTC, executors={"default": self._pool})
        self._flag = threading.Event()
        self._arming = threading.Lock()
        self._stopping = self._reloading = False
        self._started_ms = clock.boot_ms()

    @property
    def alive(self) -> bool:
        """Whether every job's ticks run to their end: what /livez and the watchdog ask."""
        now_ms = self._clock.boot_ms()
        return not any(job.hangs(now_ms, self._started_ms) for job in self._jobs)

    @property
    def ticked(self) -> bool:
        return all(job.ended_ms is not None for job in self._jobs)

    def stop(self) -> None:
        self._stopping = True
        self._flag.set()

    def run(self) -> None:
        """Tick until told to stop; then let the tick in hand end, say goodbye and return."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        for job in self._jobs:
            self._alarm.add_job(
                self._run_tick,
                "interval",
                seconds=_NEVER_ALONE.total_seconds(),  # each tick says itself when the next one is
                args=(job,),
                id=job.name,
                max_instances=1,
                coalesce=True,
                misfire_grace_time=None,
                next_run_time=datetime.now(UTC),
            )
            if job.wakes is not None:
                threading.Thread(
                    target=self._listen, args=(job, job.wakes), daemon=True, name=f"wakes-{job.name}"
                ).start()
        self._alarm.start()
        self._watch()
        self._notify.stopping()
        for job in self._jobs:
            if job.wakes is not None:
                job.wakes.close()
        # Not wait=True: it waits while it holds the lock that a tick which ends needs to set its next alarm.
        self._alarm.shutdown(wait=False)
        self._pool.shutdown(wait=True)
        for job in self._jobs:
            stopped = attempt(job.ticker.stop)
            self._say_whole((stopped,) if isinstance(stopped, Crash) else stopped)

    def _watch(self) -> None:
        ready = False
        while not self._stopping:
            self._flag.wait(WATCH_EVERY_S)
            self._flag.clear()
            if self._changed() or self._reloading:
                self._reloading = False
                self._notify.reloading(self._clock.boot_ms())
                reloaded = attempt(self._reload)
                self._say_whole((reloaded,) if isinstance(reloaded, Crash) else ())
                self._notify.ready()
            if self._ended():
                self._stopping = True
            self._nudge()
            for job in self._jobs:
                self._say_deaf(job)
            if not ready and self.ticked:
                ready = True
                self._notify.ready()
            if ready and self.alive:
                self._notify.watchdog()

    def _say_deaf(self, job: Job) -> None:
        fault = "" if job.wakes is None else job.wakes.fault
        if fault and fault != job.deaf:
            self._reporter.count("store_errors_total", operation="wait")
        job.deaf = fault
        hint = "polls go on: windows arrive up to one poll later"
        self._reporter.fault(f"{job.name}: wake-ups", fault or None, hint=hint)

    def _nudge(self) -> None:
        """Start what is overdue by boot time: the alarm goes by the wall clock, which somebody may have set back."""
        now_ms = self._clock.boot_ms()
        for job in self._jobs:
            if not job.running and job.due_ms is not None and now_ms > job.due_ms + _ALARM_LATE_MS:
                job.due_ms = now_ms
                self._arm(job, 0)

    def _run_tick(self, job: Job) -> None:
        job.running = True
        job.woken.clear()
        started_ms = self._clock.boot_ms()
        job.count_tick(started_ms)
        ticked = attempt(job.ticker.tick)
        if isinstance(ticked, Crash):
            ticked = Ticked(None, (ticked,))
        job.pause_ms = job.pause_ms if ticked.pause_ms is None else ticked.pause_ms
        self._say_whole(ticked.crashes)
        if not ticked.crashes:  # else the watchdog's food is withheld
            job.ended_ms = self._clock.boot_ms()
            self._reporter.observe("tick_duration_seconds", (job.ended_ms - started_ms) / 1000)
            self._reporter.gauge("last_tick_timestamp_seconds", self._clock.wall_ms() / 1000)
        pause_ms = self._pause_ms(job)
        job.due_ms = self._clock.boot_ms() + pause_ms
        job.running = False
        self._rearm(job)

    def _say_whole(self, crashes: Iterable[Crash]) -> None:
        for crash in crashes:
            self._reporter.crash(crash.error)

    def _pause_ms(self, job: Job) -> int:
        if not job.jittered:
            return job.pause_ms
        return job.pause_ms + job.pause_ms * JITTER_PERCENT * self._rand(1)[0] // (100 * 255)

    def _rearm(self, job: Job) -> None:
        # By the listener and by a tick that ends, perhaps at once: whoever comes last must not undo what a hint asked.
        with self._arming:
            now_ms = self._clock.boot_ms()
            waits_ms = job.patience_ms(now_ms) if job.woken.is_set() else (job.due_ms or now_ms) - now_ms
            self._arm(job, max(0, waits_ms))

    def _arm(self, job: Job, pause_ms: int) -> None:
        with suppress(JobLookupError, SchedulerNotRunningError):  # stopping
            self._alarm.modify_job(job.name, next_run_time=datetime.now(UTC) + timedelta(milliseconds=pause_ms))

    def _listen(self, job: Job, wakes: Wakes) -> None:
        while not self._stopping:
            if wakes.wait(_LISTEN_MS) and not self._stopping:
                # Set first: a tick that runs right now looks at it when it ends, and starts again at once.
                job.woken.set()
                if not job.running:
                    self._rearm(job)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reloading = True
        else:
            self._stopping = True
        self._flag.set()
