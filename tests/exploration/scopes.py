"""Where to explore from, and how much may happen on the way: every state that can be reached from there is visited."""

from dataclasses import dataclass
from functools import lru_cache

from tests.exploration.explorer import played
from tests.exploration.ring import Luck, Ring, Rules, empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """
    `begun`: from a ring in step, and not from one that never had a window. `opening` is what befell it since.

    `long`: not in every run of the tests. `far`: by the command only, for it takes many minutes.
    """

    name: str
    luck: Luck
    nodes: int = 2
    begun: bool = True
    opening: tuple[str, ...] = ()
    long: bool = False
    far: bool = False

    def start(self) -> Ring:
        ring = _in_step(self.nodes) if self.begun else empty(nodes=self.nodes)
        return played(ring._replace(luck=_PLENTY), Rules(), self.opening)._replace(luck=self.luck)


_PLENTY = Luck(*(9 for _ in Luck._fields))


@lru_cache
def _in_step(nodes: int) -> Ring:
    visits = [f"node {index} ticks" for index in range(nodes)]
    polls = ("a poll's time passes", *visits, "scheduler 0 ticks") * 40
    return played(empty(nodes=nodes), Rules(), ("scheduler 0 ticks", *visits, *polls))


_POLL = ("a poll's time passes", "node 1 ticks", "scheduler 1 ticks")

#: One node alone has read a revocation, which the store lost, and a leader who does not know of it has gone past it.
UNREVOKED = Scope(
    name="unrevoked",
    luck=Luck(reboots=1),
    opening=(
        *(
            "a poll's time passes",
            "an operator asks to revoke",
            "scheduler 0 ticks",
            "node 0 ticks",
            "node 1 misses its tick",
        ),
        *(
            "the store loses its last write and all since",
            "scheduler 1 ticks",
            "a poll's time passes",
            "node 0 is cut off",
        ),
        *("scheduler 0 dies and forgets", "node 1 ticks", "scheduler 1 ticks", *_POLL * 6),
    ),
)

SCOPES = (
    Scope(name="beginning", luck=Luck(), begun=False),
    Scope(name="asked", luck=Luck(asks=1)),
    Scope(name="revoked", luck=Luck(revokes=1)),
    Scope(name="missed", luck=Luck(mishaps=1), long=True),
    Scope(name="rebooted", luck=Luck(reboots=1), long=True),
    Scope(name="tricked", luck=Luck(tricks=1), far=True),
    Scope(name="died", luck=Luck(deaths=1), far=True),
    Scope(name="stranded", luck=Luck(outages=1), far=True),
    Scope(name="cut", luck=Luck(cuts=1), far=True),
    Scope(name="lost", luck=Luck(losses=1), far=True),
    Scope(name="stopped", luck=Luck(stops=1), far=True),
)
