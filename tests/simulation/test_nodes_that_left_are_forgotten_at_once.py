"""A rack that was taken away: its nodes' reports go in one command, and if that fails no beat is missed for it."""

import pytest

from keyrotd.daemon import scheduler
from keyrotd.store.memory import Fault
from tests.simulation.scenes import deaf, fleet, hearing
from tests.simulation.world import Fleet

#: A day would take minutes to simulate.
FORGOTTEN_AFTER_MS = 600_000


@pytest.fixture(autouse=True)
def _forget_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "FORGET_AFTER_MS", FORGOTTEN_AFTER_MS)


def test_nodes_that_left_together_are_forgotten_in_one_command() -> None:
    world = _rack_gone()
    asked = _count_forgetting(world)

    world.run(2 * world.policy.node_ttl_ms)

    assert asked == [3]
    assert world.store.ring("edge").reports == {}


def test_a_store_that_does_not_take_it_costs_no_beat() -> None:
    world = _rack_gone()
    deaf(world.rulers[0], "forget")

    world.run(2 * world.policy.node_ttl_ms)
    deaf_reports, beats = set(world.store.ring("edge").reports), world.leader is not None
    hearing(world.rulers[0])
    world.run(world.policy.node_ttl_ms)

    assert (len(deaf_reports), beats) == (3, True)
    assert world.store.ring("edge").reports == {}


def _rack_gone() -> Fleet:
    """All nodes have just been silent for nearly as long as they are remembered."""
    world = fleet()
    for node in world.nodes:
        node.frozen = True
    world.run(FORGOTTEN_AFTER_MS - world.policy.node_ttl_ms)
    assert len(world.store.ring("edge").reports) == 3
    return world


def _count_forgetting(world: Fleet) -> list[int]:
    asked: list[int] = []
    ruler = world.rulers[0]

    def counted(operation: str) -> Fault | None:
        if operation == "forget":
            asked.append(len(world.store.ring("edge").reports))
        return ruler.luck(operation)

    ruler.store.fault = counted
    return asked
