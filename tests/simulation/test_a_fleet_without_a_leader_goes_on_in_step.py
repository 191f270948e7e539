"""Succession in whole fleets: the claims hold throughout, and every node seals with what every other one opens."""

import pytest

from keyrotd.core.decide import due_at
from keyrotd.core.messages import NodeState
from keyrotd.seal.messages import read_report
from tests.simulation.runs import heals
from tests.simulation.scenes import deaf, epoch, fleet, hearing, sealing, shared, slow, until_in_step, until_rotation
from tests.simulation.weather import BRISK, LONG, MINUTE
from tests.simulation.world import RING, Fleet, Node

PERIODS = 10


def alone(world: Fleet) -> list[set[bytes]]:
    """What nodes seal with in the middle of each of ten periods."""
    found = []
    for _ in range(PERIODS):
        world.run(world.policy.rotation_interval_ms)
        found.append({sealing(node) for node in world.nodes})
    return found


def back(world: Fleet) -> None:
    """Let the leader listen, take the nodes up, and rotate once."""
    world.run(2 * world.policy.speak_ms + 2 * world.policy.rotation_interval_ms)
    heals(world)


def steady(world: Fleet) -> Fleet:
    """Let a fleet be in the middle of a period, with a window that everybody knows to be everywhere."""
    until_rotation(world)
    until_in_step(world)
    world.run(world.policy.rotation_interval_ms // 2)
    return world


def test_with_every_scheduler_dead_for_many_periods_nodes_change_keys_together() -> None:
    world = steady(fleet())
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + (PERIODS + 1) * world.policy.rotation_interval_ms

    found = alone(world)

    assert [len(names) for names in found] == [1] * PERIODS
    assert len(set().union(*found)) == PERIODS
    assert not any(shared(world, name) for names in found[2:] for name in names)
    back(world)


def test_with_the_store_dead_for_many_periods_and_back_empty_nodes_go_on_and_are_taken_up() -> None:
    world = steady(fleet())
    world.store_away()

    found = alone(world)
    world.store_back()
    world.flush()

    assert [len(names) for names in found] == [1] * PERIODS
    back(world)


def test_servers_of_three_slots_do_too() -> None:
    """A step is one push for them, and a key leaves them after its tickets."""
    world = steady(fleet(slots=3))
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + (PERIODS + 1) * world.policy.rotation_interval_ms

    found = alone(world)
    back(world)

    assert [len(names) for names in found] == [1] * PERIODS
    assert world.claims.crowded == 0


@pytest.mark.parametrize("heard", [True, False], ids=["all knew its last window to be everywhere", "nobody knew"])
@pytest.mark.parametrize("lost", [True, False], ids=["the store comes back empty", "as it was"])
@pytest.mark.parametrize("phase", range(8))
@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("periods", [1, PERIODS])
def test_servers_of_three_slots_are_taken_up_along_the_way_that_they_went(
    *, heard: bool, lost: bool, phase: int, seed: int, periods: int
) -> None:
    """They open ahead what follows on their own way and no other, at whatever instant of a step the leader is back."""
    world = fleet(slots=3, seed=seed)
    until_rotation(world)
    until_in_step(world)
    if heard:
        world.run(world.policy.rotation_interval_ms // 2)
    assert {node.agent._held.spread for node in world.nodes if node.agent._held} == {heard}
    world.store_away()
    world.run(periods * world.policy.rotation_interval_ms + phase * world.policy.rotation_interval_ms // 8)

    world.store_back()
    if lost:
        world.flush()

    back(world)
    assert world.claims.crowded == 0


def test_servers_of_three_slots_open_the_first_step_after_an_early_rotation() -> None:
    """What that rotation replaced could have sealed until then, and did not: it takes no slot from what will."""
    world = fleet(slots=3)
    world.ask()
    until_rotation(world)
    until_in_step(world)
    assert {node.agent._held.confirmed for node in world.nodes if node.agent._held} == {False}
    world.store_away()

    alone(world)

    assert world.claims.crowded == 0
    world.store_back()
    back(world)


def test_nodes_one_epoch_apart_open_each_others_tickets() -> None:
    """The last publish reached one node of three before all went dark."""
    world = steady(fleet(policy=LONG))
    assert world.claims.newest is not None
    first, *behind = world.nodes
    world.run_until(due_at(world.claims.newest, world.policy) - world.policy.tick_interval_ms)
    for node in behind:
        deaf(node, "poll", "offers")
    until_rotation(world)
    world.wait_for(lambda: knows(first, epoch(world)), world.policy.node_ttl_ms)
    world.store_away()
    for node in behind:
        hearing(node)
    assert [knows(node, epoch(world)) for node in world.nodes] == [True, False, False]
    assert all(world.claims.in_sync(node) for node in world.nodes)

    alone(world)  # the claims look at every ticket at every instant

    world.store_back()
    back(world)


def test_an_agent_that_is_restarted_meanwhile_goes_on_from_its_cache() -> None:
    world = steady(fleet())
    world.store_away()
    world.run(4 * world.policy.rotation_interval_ms)
    node = world.nodes[0]
    before = sealing(node)

    node.die()
    node.servers[0].restart()
    world.run(2 * world.policy.rotation_interval_ms)

    assert sealing(node) == sealing(world.nodes[1]) != before
    world.store_back()
    back(world)


def test_nothing_that_may_no_longer_open_is_left_in_the_cache() -> None:
    """Whoever takes a node and the KEK after many steps opens no ticket of before."""
    world = steady(fleet())
    world.store_away()
    world.run(3 * world.policy.rotation_interval_ms)
    early = {key.stek.seed for key in world.claims._keys.values() if key.stek is not None}
    world.run(8 * world.policy.rotation_interval_ms)

    for node in world.nodes:
        held = node.agent._held
        assert held is not None
        assert held.succession is not None
        kept = {key.stek.seed for key in (*held.window.all, *held.strays) if key.stek is not None}
        kept |= {line.oldest.stek.seed for line in held.succession.lines if line.oldest.stek is not None}
        assert not kept & early


def test_after_max_stranded_every_node_is_on_its_own_and_says_so() -> None:
    world = steady(fleet(policy=slow(BRISK, max_stranded_ms=3 * MINUTE)))
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + 10 * MINUTE

    world.run(4 * MINUTE)
    stranded = states(world)
    world.run(4 * MINUTE)

    assert stranded == {NodeState.STRANDED}
    assert states(world) == {NodeState.ISOLATED}
    assert len({sealing(node) for node in world.nodes}) == len(world.nodes)
    world.run(2 * MINUTE)
    back(world)


def test_a_store_whose_time_is_frozen_or_runs_backward_changes_no_keys_life() -> None:
    world = steady(fleet())
    frozen_at = world.now - 60 * MINUTE
    world.store.clock = lambda: frozen_at
    (ruler,) = world.rulers
    ruler.die()
    ruler.alarm_at = world.now + 100 * PERIODS * world.policy.rotation_interval_ms

    found = alone(world)

    assert len(set().union(*found)) == PERIODS


def knows(node: Node, epoch: int) -> bool:
    """Whether it has read the window of that epoch back."""
    held = node.agent._held
    return held is not None and held.window.epoch == epoch and node.agent._read_back() == held.window.digest


def states(world: Fleet) -> set[NodeState]:
    reports = world.store.ring(RING).reports
    return {read_report(data, keks=world.keks, ring=RING).state for data in reports.values()}
