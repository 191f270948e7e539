"""A daemon serves several rings: one ticker over many, each with its own lease, window, keys and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from keyrotd.daemon.agent import RingAgent
from keyrotd.daemon.scheduler import RingScheduler
from keyrotd.store.port import Store


@dataclass(frozen=True)
class Schedulers:
    """Every ring's scheduler in turn; a tick is as long as the slowest store answers times the rings."""

    rings: Sequence[RingScheduler]

    def tick(self) -> int:
        return min(ring.tick() for ring in self.rings)

    def stop(self) -> None:
        for ring in self.rings:
            ring.stop()


@dataclass(frozen=True)
class Agents:
    """Every ring's agent in turn. Stopping leaves the servers' keys where they are."""

    rings: Sequence[RingAgent]
    stores: Sequence[Store]

    def tick(self) -> int:
        return min(ring.tick() for ring in self.rings)

    def unready(self) -> list[str]:
        """Name the servers that do not hold keys that may still seal."""
        return [name for ring in self.rings for name in ring.unready()]

    def stop(self) -> None:
        for store in self.stores:
            store.close()
