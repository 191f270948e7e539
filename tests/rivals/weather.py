"""
What happens to a fleet, the same to whichever protocol runs it, and when.

Everything strikes at the moment of a rotation, where it hurts most, except a flush, which comes at any time. A
protocol says what its own moment of a rotation is: the new key is about to be used, and not everybody has it yet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tests.rivals.load import Shown

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
HOSTS = 4
#: Each exchange with the store, or with a peer, is lost with this probability when polls are missed.
MISS = 0.15
#: The first rotation after so many periods is struck.
STRIKES = (1.75, 3.75)
CUT_MS = 90 * SECOND
KILLED_MS = 60 * SECOND
#: Machines' wall clocks are within this of true time, as NTP keeps them; their boot clocks run up to 200 ppm off.
SKEW_MS = 500
RATE_PPM = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """R and T, and how long a run is; every instant is counted from its beginning."""

    rotation_interval_ms: int = HOUR
    ticket_lifetime_ms: int = HOUR
    periods: float = 6.0

    def periods_ms(self, periods: float) -> int:
        return round(periods * self.rotation_interval_ms)

    @property
    def duration_ms(self) -> int:
        return self.periods_ms(self.periods)

    @property
    def measured_from(self) -> int:
        """By then the fleet has started and rotated once, whatever its start was like."""
        return self.periods_ms(1.5)


class Stage(Protocol):
    """A fleet that something can happen to."""

    now: int
    began_at: int

    def run_until(self, end_at: int) -> None: ...
    def plan(self, in_ms: int, do: Callable[[], None]) -> None: ...
    def shown(self) -> tuple[Shown | None, ...]: ...
    def at_rotation(self, strike: Callable[[], None]) -> None:
        """Call `strike` once, at the next moment of a rotation."""
        ...

    def miss_polls(self, share: float) -> None: ...
    def cut_host(self, place: int, for_ms: int) -> None:
        """The server number `place`, or the next if that is the one who rotates, hears nobody and is heard by none."""
        ...

    def kill_leader(self, for_ms: int) -> None:
        """Whoever rotates right now dies, and is started again after that time."""
        ...

    def flush(self) -> None:
        """The store forgets everything."""
        ...

    def part(self, for_ms: int) -> None:
        """Nobody reaches the store, nor any other machine."""
        ...


@dataclass(frozen=True, slots=True)
class Weather:
    name: str
    prepare: Callable[[Stage, Scale, int], None]


def clocks(seed: int, machines: int) -> list[tuple[int, int]]:
    """Wall clock's skew in ms and boot clock's rate in ppm, machine by machine, the same for every protocol."""
    rng = Random(seed)
    return [(rng.randint(-SKEW_MS, SKEW_MS), rng.randint(-RATE_PPM, RATE_PPM)) for _ in range(machines)]


def flush_at(scale: Scale, seed: int) -> int:
    """When the flush comes: any time within one period is as good as another."""
    return scale.periods_ms(3.0 + Random(seed).random())


def _quiet(stage: Stage, scale: Scale, seed: int) -> None:
    _ = stage, scale, seed


def _missed_polls(stage: Stage, scale: Scale, seed: int) -> None:
    _ = seed
    stage.plan(scale.measured_from, lambda: stage.miss_polls(MISS))


def _node_cut(stage: Stage, scale: Scale, seed: int) -> None:
    for periods in STRIKES:
        _at_rotation_after(stage, scale, periods, lambda: stage.cut_host(seed % HOSTS, CUT_MS))


def _leader_killed(stage: Stage, scale: Scale, seed: int) -> None:
    _ = seed
    for periods in STRIKES:
        _at_rotation_after(stage, scale, periods, lambda: stage.kill_leader(KILLED_MS))


def _flushed(stage: Stage, scale: Scale, seed: int) -> None:
    stage.plan(flush_at(scale, seed), stage.flush)


def _parted(stage: Stage, scale: Scale, seed: int) -> None:
    _ = seed
    _at_rotation_after(stage, scale, STRIKES[0], lambda: stage.part(scale.periods_ms(3.0)))


def _at_rotation_after(stage: Stage, scale: Scale, periods: float, strike: Callable[[], None]) -> None:
    stage.plan(scale.periods_ms(periods), lambda: stage.at_rotation(strike))


QUIET = Weather("quiet", _quiet)
MISSED = Weather("15 % of polls missed", _missed_polls)
CUT = Weather("node cut 90 s", _node_cut)
KILLED = Weather("leader killed", _leader_killed)
FLUSHED = Weather("flush", _flushed)
PARTED = Weather("store away 3 R", _parted)
WEATHERS = (QUIET, MISSED, CUT, KILLED, FLUSHED, PARTED)
