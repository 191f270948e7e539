"""
A daemon serves several rings: one ticker over many, each with its own lease, window, keys and memory.

Every ring has its turn in every tick, whatever nobody expected in the turn of another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keyrotd.daemon.agent import RingAgent
from keyrotd.daemon.scheduler import RingScheduler
from keyrotd.daemon.turns import Crash, Ticked, take_turns
from keyrotd.store.port import Store


@dataclass(frozen=True)
class Schedulers:
    """Every ring's scheduler in turn; a tick is as long as the slowest store answers times the rings."""

    rings: Sequence[RingScheduler]

    def tick(self) -> Ticked:
        pauses, crashes = take_turns(ring.tick for ring in self.rings)
        return Ticked(min(pauses, default=None), crashes)

    def stop(self) -> tuple[Crash, ...]:
        return take_turns(ring.stop for ring in self.rings)[1]


@dataclass(frozen=True)
class Agents:
    """Every ring's agent in turn. Stopping leaves the servers' keys where they are."""

    rings: Sequence[RingAgent]
    stores: Sequence[Store]

    def tick(self) -> Ticked:
        pauses, crashes = take_turns(ring.tick for ring in self.rings)
        return Ticked(min(pauses, default=None), (*crashes, *(crash for ring in self.rings for crash in ring.crashes)))

    def unready(self) -> list[str]:
        """Name the servers that do not hold keys that may still seal."""
        return [name for ring in self.rings for name in ring.unready()]

    def stop(self) -> tuple[Crash, ...]:
        return take_turns(store.close for store in self.stores)[1]
