"""A daemon dies before or after each effect of its tick, in turn; whoever comes after it heals what it left."""

from collections.abc import Callable

import pytest

from keyrotd.core.messages import Goal
from tests.simulation.runs import calm_ms, heals
from tests.simulation.scenes import epoch, fleet, until_in_step, until_rotation
from tests.simulation.world import Fleet, Machine


def rotating(world: Fleet) -> None:
    """Come to just before a rotation."""
    until_rotation(world)
    until_in_step(world)
    newest = world.claims.newest
    assert newest is not None
    world.run_until(newest.published_at + world.policy.rotation_interval_ms - world.policy.tick_interval_ms)


def revoking(world: Fleet) -> None:
    """Come to just before a revocation."""
    until_rotation(world)
    until_in_step(world)
    world.ask(Goal.REVOKE)


def mending(world: Fleet) -> None:
    """Come to just before a store that lost a window is mended."""
    until_rotation(world)
    until_in_step(world)
    world.lose_write()


SCENES = [rotating, revoking, mending]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
def test_a_scheduler_may_stop_anywhere(scene: Callable[[Fleet], None], *, after: bool) -> None:
    for effects in range(1, 15):
        _stop_and_heal(scene, lambda world: world.rulers[0], effects, after=after)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("scene", SCENES)
def test_an_agent_may_stop_anywhere(scene: Callable[[Fleet], None], *, after: bool) -> None:
    for effects in range(1, 11):
        _stop_and_heal(scene, lambda world: world.nodes[0], effects, after=after)


def _stop_and_heal(
    scene: Callable[[Fleet], None], whose: Callable[[Fleet], Machine], effects: int, *, after: bool
) -> None:
    world = fleet(nodes=2)
    scene(world)
    before, lives = epoch(world), whose(world).lives

    whose(world).hazard.crash_in(effects, after=after)
    world.run(calm_ms(world.policy))

    assert whose(world).lives == lives + 1
    assert epoch(world) > before
    heals(world)
