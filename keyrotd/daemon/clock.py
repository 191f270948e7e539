"""
The time by which keys live: the leader's, signed with every beat, and carried on by each node's boot-time clock.

A store's TIME and a node's wall clock never decide when a key expires. They only ever make somebody refuse to speak.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

#: Clocks further apart than this are not drift but a mistake, and nobody signs by them.
MAX_DISAGREEMENT_MS = 300_000
#: The leader follows its wall clock by at most 500 ppm, as ntpd slews: 1 ms in 2 s.
SLEW_DIVISOR = 2000


class Clock(Protocol):
    """A machine's clocks, in milliseconds. `boot` never stops or steps while `boot_id` stays the same."""

    @property
    def boot_id(self) -> str: ...
    def wall_ms(self) -> int: ...
    def boot_ms(self) -> int: ...


class SystemClock:
    """Linux: CLOCK_REALTIME, and CLOCK_BOOTTIME, which unlike CLOCK_MONOTONIC also runs through a suspend."""

    def __init__(self) -> None:
        self.boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


@dataclass
class LeaderTime:
    """Starts from `start_at` or the wall clock, runs on boot time, drawn to the wall clock gently. Never backward."""

    clock: Clock
    start_at: int | None = None
    _now: int = field(init=False)
    _boot_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self._boot_ms = self.clock.boot_ms()
        self._now = self.clock.wall_ms() if self.start_at is None else self.start_at

    def now(self) -> int:
        boot_ms = self.clock.boot_ms()
        elapsed_ms = boot_ms - self._boot_ms
        # Whole steps only: the remainder of the slew waits in _boot_ms until it makes a millisecond.
        reach_ms = elapsed_ms // SLEW_DIVISOR
        if reach_ms == 0 and elapsed_ms:
            return self._now + elapsed_ms
        self._boot_ms = boot_ms
        ahead_ms = self.clock.wall_ms() - (self._now + elapsed_ms)
        self._now += elapsed_ms + max(-reach_ms, min(reach_ms, ahead_ms))
        return self._now

    def disagreement(self, *, store_at: int, last_signed_at: int) -> str | None:
        """Say which clocks are too far apart to sign by. A last beat in the past is only an absence."""
        now_at = self.now()
        if abs(store_at - now_at) > MAX_DISAGREEMENT_MS:
            return f"the store's clock is {_apart(store_at - now_at)} this machine's"
        if last_signed_at - now_at > MAX_DISAGREEMENT_MS:
            return f"the last signed beat is {_apart(last_signed_at - now_at)} this machine's clock"
        return None


def taking_over(clock: Clock, fleet: "FleetTime", last_signed_at: int) -> LeaderTime:
    """
    Return the time of a leader that follows another: the fleet's, so that no key's life jumps with the change.

    Who heard no living leader goes by its wall clock, but not back before the last beat: nodes take none older.
    """
    wall_at, heard_at = clock.wall_ms(), fleet.now()
    if heard_at is not None and fleet.moved and abs(heard_at - wall_at) <= MAX_DISAGREEMENT_MS:
        return LeaderTime(clock, heard_at)
    return LeaderTime(clock, max(wall_at, last_signed_at))


def _apart(difference_ms: int) -> str:
    return f"{abs(difference_ms) // 1000} s {'ahead of' if difference_ms > 0 else 'behind'}"


@dataclass(frozen=True, slots=True)
class Heard:
    """
    A fleet instant and the boot time at which it was known: what is kept over a restart of the agent.

    `moved`: a beat was heard that cannot have lain in the store for long, since it was not there shortly before.
    """

    fleet_at: int
    boot_ms: int
    boot_id: str
    moved: bool


@dataclass
class FleetTime:
    """
    The newest signed instant plus boot time since it came: never backward, never ahead of the leader.

    `steady_ms` is the longest pause between two looks at the store that go well.
    """

    clock: Clock
    steady_ms: int
    heard: Heard | None = None
    _last: tuple[int, int] | None = field(default=None, init=False)  # the newest signed instant, and when it was seen
    _moves: int = field(default=0, init=False)  # newer beats in a row, each soon after the one before

    def __post_init__(self) -> None:
        if self.heard is not None and self.heard.boot_id != self.clock.boot_id:
            self.heard = None  # boot time began anew, so nothing says how long ago that was

    def now(self) -> int | None:
        if self.heard is None:
            return None
        return self.heard.fleet_at + self.clock.boot_ms() - self.heard.boot_ms

    @property
    def newest(self) -> int | None:
        """The newest signed instant that was heard in this life."""
        return None if self._last is None else self._last[0]

    @property
    def moved(self) -> bool:
        return self.heard is not None and self.heard.moved

    def latest(self) -> int | None:
        """
        The instant to serve by: the fleet's, or a wall clock's that is later while every beat heard may be stale.

        For what can be taken back: what is forgotten for good is judged by `now`.
        """
        now_at = self.now()
        if now_at is None or self.heard is None or self.heard.moved:
            return now_at
        return max(now_at, self.clock.wall_ms())

    def hear(self, signed_at: int) -> None:
        """Take a verified beat's instant. One older than our own time keeps us from running backward, not ahead."""
        now_at, boot_ms, last = self.now(), self.clock.boot_ms(), self._last
        steady = last is not None and boot_ms - last[1] <= self.steady_ms
        if last is None or not steady:
            self._moves = 0
        elif signed_at > last[0]:
            self._moves += 1
        self._last = signed_at, boot_ms
        # One is not enough: a leader may have slept between signing a beat and handing it in.
        moved = self._moves > 1
        if self.heard is None or now_at is None:
            self.heard = Heard(signed_at, boot_ms, self.clock.boot_id, moved=False)
        elif signed_at > now_at:
            self.heard = Heard(signed_at, boot_ms, self.clock.boot_id, moved=moved or self.heard.moved)
        elif moved and not self.heard.moved:
            self.heard = replace(self.heard, moved=True)

    def from_the_future(self, signed_at: int) -> bool:
        """Whether a beat is ahead of all that this node knows of time: its own fleet time and its wall clock."""
        latest = max(self.now() or 0, self.clock.wall_ms())
        return signed_at - latest > MAX_DISAGREEMENT_MS
