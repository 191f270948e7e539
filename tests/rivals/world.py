"""
The world of a rival: hosts that serve TLS, other machines, a store, and a clock that only we move.

It offers what the simulation of keyrotd offers (tests/simulation/world.py): machines with a wall clock and a boot
clock of their own, exchanges that are lost, machines that are cut off or die, a store that is away or forgets. A rival
is a policy on top of it: what a host does when it boots, and what it does then.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any, Protocol

from keyrotd.testing.clock import FakeClock
from tests.rivals.load import Shown
from tests.rivals.weather import HOSTS, SECOND, Scale, clocks
from tests.simulation.world import BEGIN_MS

#: Sealed under a key that was made for this one ticket, and which nobody will ever open anything with.
THROWAWAY = "throwaway"


class Rival(Protocol):
    """One protocol, at work in its world."""

    def boot(self, machine: "Machine") -> None:
        """The machine's process has just started. What it shows from then on is in `machine.shown`."""
        ...


@dataclass(eq=False)
class Machine:
    name: str
    world: "World"
    clock: FakeClock
    serves: bool
    up: bool = False
    cut: bool = False
    lives: int = 0
    shown: Shown | None = None

    @property
    def linked(self) -> bool:
        """Whether there is a way from here to the others and to the store at all."""
        return self.up and not self.cut and not self.world.parted

    def reaches(self) -> bool:
        """Whether one exchange with the store, or with a peer, comes about."""
        return self.linked and not (self.world.miss and self.world.rng.random() < self.world.miss)

    def wait(self, duration_ms: int, do: Callable[[], None]) -> None:
        """Do it in so long by one's own boot clock, if one lives till then."""
        self._plan(duration_ms * 1_000_000 // (1_000_000 + self.clock.rate_ppm), do)

    def wait_until(self, wall_at: int, do: Callable[[], None]) -> None:
        """Do it when one's own wall clock shows that, at once if it does already."""
        self._plan(max(0, wall_at - self.clock.wall_ms()), do)

    def _plan(self, in_ms: int, do: Callable[[], None]) -> None:
        life = self.lives
        self.world.plan(in_ms, lambda: do() if self.up and self.lives == life else None)

    def show(self, seals: str | None, opens: tuple[str, ...]) -> None:
        self.shown = Shown(seals, frozenset(opens))

    def die(self) -> None:
        self.up, self.shown = False, None

    def start(self) -> None:
        self.lives += 1
        self.up = True
        self.world.rival.boot(self)


@dataclass
class Store:
    """One value and its version, as a key in Redis or memcached, a file or a Secret."""

    value: Any = None
    version: int = 0

    def put(self, value: Any) -> None:
        self.value = value
        self.version += 1


@dataclass
class World:
    scale: Scale
    seed: int
    make: Callable[["World"], Rival]
    #: Machines beside the hosts.
    others: int = 0
    #: A rolling start: what machines do every so often they do not do at the same instant.
    start_within_ms: int = 60 * SECOND
    store: Store = field(default_factory=Store)
    parted: bool = False
    miss: float = 0.0

    def __post_init__(self) -> None:
        self.now = self.began_at = BEGIN_MS
        self.rng = Random(self.seed)
        self.actor: Machine | None = None
        self._strikes: list[Callable[[], None]] = []
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        drawn = clocks(self.seed, HOSTS + self.others)
        self.machines = tuple(
            Machine(f"machine-{i}", self, FakeClock(lambda: self.now, *drawn[i]), serves=i < HOSTS)
            for i in range(HOSTS + self.others)
        )
        self.rival = self.make(self)
        for machine in self.machines:
            self.plan(self.rng.randrange(self.start_within_ms), machine.start)

    @property
    def hosts(self) -> tuple[Machine, ...]:
        return self.machines[:HOSTS]

    def fresh_key(self) -> str:
        return self.rng.randbytes(8).hex()

    def rotating(self, actor: Machine) -> bool:
        """The moment of a rotation, by `actor`. False: it did not survive it."""
        self.actor = actor
        strikes, self._strikes = self._strikes, []
        for strike in strikes:
            strike()
        return actor.up

    # As a stage.

    def run_until(self, end_at: int) -> None:
        """Let one thing happen, or time pass up to `end_at`."""
        if self._agenda and self._agenda[0][0] <= end_at:
            self.now, _, do = heappop(self._agenda)
            do()
        else:
            self.now = end_at

    def plan(self, in_ms: int, do: Callable[[], None]) -> None:
        heappush(self._agenda, (self.now + in_ms, next(self._order), do))

    def shown(self) -> tuple[Shown | None, ...]:
        return tuple(host.shown for host in self.hosts)

    def at_rotation(self, strike: Callable[[], None]) -> None:
        self._strikes.append(strike)

    def miss_polls(self, share: float) -> None:
        self.miss = share

    def cut_host(self, place: int, for_ms: int) -> None:
        host = self.hosts[place]
        host = self.hosts[(place + 1) % HOSTS] if host is self.actor else host
        host.cut = True

        def join() -> None:
            host.cut = False

        self.plan(for_ms, join)

    def kill_leader(self, for_ms: int) -> None:
        assert self.actor is not None  # strikes come at a rotation
        self.actor.die()
        self.plan(for_ms, self.actor.start)

    def flush(self) -> None:
        self.store.put(None)

    def part(self, for_ms: int) -> None:
        self.parted = True

        def join() -> None:
            self.parted = False

        self.plan(for_ms, join)
