"""
One ring in small, as a value: two schedulers, two or three nodes, a store, and what the claims need of the past.

Time is counted in polls, and every duration of the policy is a whole number of them. Core compares instants with sums
of these durations alone, so every instant at which one of its answers changes is met exactly, and all runs whose events
fall on polls are explored. Whoever can work does so once in each poll, in any order; that somebody cannot is a fault.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from typing import NamedTuple

from keyrotd.core.decide import NO_MEMORY, Decision, Memory, Seen, View, decide
from keyrotd.core.messages import Beat, Report, Request
from keyrotd.core.policy import Interval, Policy, impossible, jittered_ms
from keyrotd.core.reconcile import Adopt, Held, Keep, Refuse, accept
from keyrotd.core.stek import Stek
from keyrotd.core.window import Window, rotate
from tests.unit.builders import RING, chance


class Brisk(Policy):
    """A policy for this small world: an instant lasts a poll, and who polls in it may be the last; none backs off."""

    @property
    def eps_ms(self) -> int:
        return super().eps_ms + 1

    @property
    def speak_ms(self) -> int:
        return 2 * jittered_ms(self.poll_interval_ms)


#: A node that hears no new beat for longer is without a leader: two polls may fall between two beats.
PATIENCE = 2

#: In polls: eps is 2, two publishes are 2 apart, a new leader listens 2, a lease is gone after 2, a node after 3.
POLICY = Brisk(
    schedule=Interval(3),
    ticket_lifetime_ms=3,
    max_seal_age_ms=9,
    overdue_after_ms=3,
    max_stranded_ms=6,
    previous_keys=None,
    node_ttl_ms=3,
    tick_interval_ms=1,
    lease_ttl_ms=2,
    poll_interval_ms=1,
    store_timeout_ms=0,
)
assert not list(impossible(POLICY, slots=None, notice_delay_ms=0))


def publishes(fence: int, newest: int, parent: str, standing: str) -> bool:
    """What the store's port promises: only under the newest fence, and only over what was decided from."""
    return fence == newest and parent == standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The functions under test that a mutant puts a worse one in the place of."""

    decide: Callable[[View, Policy, int], Decision] = decide
    rotate: Callable[..., Window] = rotate
    accept: Callable[..., Adopt | Keep | Refuse] = accept
    publishes: Callable[[int, int, str, str], bool] = publishes


class Sheet(Window):
    """A window of which `sheet` makes one object, so that it compares fast."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)


_SHEETS: dict[tuple[str, tuple[bool, ...]], Sheet] = {}


def sheet(window: Window) -> Sheet:
    """Return the one sheet of this digest and these seeds."""
    words = {f.name: getattr(window, f.name) for f in fields(window) if f.init}
    made = window if isinstance(window, Sheet) else Sheet(**words)
    return _SHEETS.setdefault((made.digest, tuple(key.stek is not None for key in made.all)), made)


@lru_cache(maxsize=2**18)
def gone_on(held: Held, now_at: int, *, silent: bool) -> Held:
    """What a node holds once it has gone on to now, and forgotten what may no longer open."""
    after = held.on(now_at, silent=silent).at(now_at)
    return after if after.window is held.window else replace(after, window=sheet(after.window))


def window_of(held: Held) -> Sheet:
    assert isinstance(held.window, Sheet)
    return held.window


@cache
def fresh(number: int) -> Stek:
    return Stek(chance(number)(32), RING)


class Node(NamedTuple):
    """
    An agent and its one server. `shown` is what its server holds; `proven` what was read back last, and when.

    `heard_at`: when a new beat came last. `spoken`: it had an answer from the store in this life. `worked`: it did in
    this poll. `memory` is on its disk.
    """

    held: Held | None = None
    shown: Held | None = None
    sources: tuple[Sheet, ...] = ()
    memory: Memory = NO_MEMORY
    beat: Beat | None = None
    heard_at: int = 0
    spoken: bool = False
    cut: bool = False
    worked: bool = False
    proven: tuple[Sheet, int] | None = None


class Reign(NamedTuple):
    fence: int
    began_at: int
    ends_at: int
    window: Sheet | None = None
    stood: str = ""
    stood_at: int = 0
    settled_at: int | None = None
    nodes: tuple[Seen, ...] = ()


class Ruler(NamedTuple):
    """
    A scheduler. `memory` and `fence` are on its disk; `window` is the last that it published or accepted.

    `past` is that of an earlier reign. `made` is the window that it was about to publish over the digest `parent` when
    it was `stopped`.
    """

    up: bool = True
    stopped: bool = False
    worked: bool = False
    memory: Memory = NO_MEMORY
    fence: int = 0
    window: Sheet | None = None
    past: Sheet | None = None
    reign: Reign | None = None
    made: Sheet | None = None
    parent: str = ""

    def abdicated(self) -> "Ruler":
        """Another one may lead: what it remembers may not be the newest, and is worth an offer."""
        return self._replace(reign=None, window=None, past=self.window or self.past)


class Lease(NamedTuple):
    """`holder` is a scheduler's number, or -1 for a life that is over."""

    holder: int
    fence: int
    until: int


class Replica(NamedTuple):
    """What is left when the last write of a window is lost."""

    window: Sheet | None = None
    beat: Beat | None = None
    fence: int = 0


class Store(NamedTuple):
    window: Sheet | None = None
    beat: Beat | None = None
    fence: int = 0
    lease: Lease | None = None
    reports: tuple[Report | None, ...] = ()
    offers: tuple[Sheet, ...] = ()
    requests: tuple[Request, ...] = ()


class Luck(NamedTuple):
    """
    How much of each kind may still happen on one path, whenever it likes.

    `mishaps` befall one tick of a node, `reboots` and `cuts` nodes, `deaths` and `stops` schedulers, `outages` and
    `losses` the store; `asks` and `revokes` are the operator's, `tricks` those of the store's owner.
    """

    mishaps: int = 0
    reboots: int = 0
    cuts: int = 0
    outages: int = 0
    deaths: int = 0
    stops: int = 0
    losses: int = 0
    asks: int = 0
    revokes: int = 0
    tricks: int = 0


class Ring(NamedTuple):
    """
    All of it.

    For the claims: `tickets` is the youngest ticket under each key, `out` when each window came out,
    `reached_at` when any node could reach the store last. `lost`: the store forgot something. `tricked`: its owner put
    something there. `past` is what its owner has kept: windows with a beat. `lost_until` is T after a leader came back
    that did not know what nodes had gone on along. `broken` says which claim does not hold, and how.
    """

    now: int
    store: Store
    rulers: tuple[Ruler, ...]
    nodes: tuple[Node, ...]
    luck: Luck = Luck()
    replica: Replica = Replica()
    up: bool = True
    reached_at: int = 0
    tickets: tuple[tuple[bytes, int], ...] = ()
    out: tuple[tuple[Sheet, int], ...] = ()
    past: tuple[tuple[Sheet, Beat | None], ...] = ()
    lost: bool = False
    lost_until: int = 0
    tricked: bool = False
    broken: str = ""

    def windows(self) -> Iterator[Sheet]:
        """Yield every window that anybody has, or that the claims still speak of; some more than once."""
        yield from self.published()
        yield from (ruler.made for ruler in self.rulers if ruler.made is not None)

    def published(self) -> Iterator[Sheet]:
        yield from (w for w in (self.store.window, self.replica.window) if w is not None)
        yield from (*self.store.offers, *(w for w, _ in (*self.past, *self.out)))
        for ruler in self.rulers:
            found = (ruler.window, ruler.past, None if ruler.reign is None else ruler.reign.window)
            yield from (w for w in found if w is not None)
        for node in self.nodes:
            yield from (window_of(held) for held in (node.held, node.shown) if held is not None)
            yield from node.sources
            if node.proven is not None:
                yield node.proven[0]


def empty(*, nodes: int) -> Ring:
    """Return a ring that never had a window, at instant 100."""
    store = Store(reports=(None,) * nodes)
    return Ring(now=100, reached_at=100, store=store, rulers=(Ruler(),) * 2, nodes=(Node(),) * nodes)


def with_node(ring: Ring, index: int, node: Node) -> Ring:
    return ring._replace(nodes=(*ring.nodes[:index], node, *ring.nodes[index + 1 :]))


def with_ruler(ring: Ring, index: int, ruler: Ruler) -> Ring:
    return ring._replace(rulers=(*ring.rulers[:index], ruler, *ring.rulers[index + 1 :]))
