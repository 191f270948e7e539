"""G3 with a store that is away, and with one that holds nothing but an old beat."""

from tests.simulation.scenes import fleet, in_step, sealing, shared, until_in_step, until_rotation
from tests.simulation.world import Fleet


def test_a_node_that_backs_off_keeps_every_bound_to_the_instant() -> None:
    """Nodes that ask a store less often because it is away look at their own keys no less often for it."""
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    window = world.claims.newest
    assert window is not None

    world.store_away()
    world.run_until(window.seals_until - 1)
    before = [shared(world, sealing(node)) for node in world.nodes]
    world.run(world.policy.poll_interval_ms // 10 + world.policy.tick_interval_ms)  # jitter, and the beat's own age

    assert before == [True, True, True]
    assert [shared(world, sealing(node)) for node in world.nodes] == [False, False, False]


def test_a_bound_that_passed_while_a_tick_hung_is_kept_as_soon_as_it_ends() -> None:
    """The machine slept in the middle of a tick, whose orders are of before."""
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    window = world.claims.newest
    assert window is not None
    sleeper = world.nodes[0]
    world.store_away()
    world.run_until(window.seals_until - world.policy.poll_interval_ms * 5)

    world.freeze_in(sleeper, effects=2, duration_ms=world.policy.poll_interval_ms * 10)
    world.run_until(window.seals_until)
    world.run(world.policy.tick_interval_ms)

    assert not shared(world, sealing(sleeper))


def test_stranded_nodes_open_each_key_of_a_window_to_its_own_bound() -> None:
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    window = world.claims.newest
    assert window is not None

    world.store_away()
    world.run_until(window.current.opens_until - world.policy.poll_interval_ms)
    opening = [node.servers[0].opens(window.current.name) for node in world.nodes]
    world.run(2 * world.policy.poll_interval_ms)

    assert opening == [True, True, True]
    assert [node.servers[0].opens(window.current.name) for node in world.nodes] == [False, False, False]


def test_a_node_that_joins_while_no_scheduler_lives_seals_no_longer_than_the_others() -> None:
    """The only beat that it can hear has lain in the store for long: its instant is not the time."""
    world, late_ms = _abandoned()
    newcomer = world.nodes[0]
    newcomer.die()
    newcomer.clock.reboot()
    newcomer.runtime.files.clear()
    newcomer.restart_servers()
    newcomer.alarm_at = world.now

    world.run(late_ms)

    assert in_step(world)
    assert [shared(world, sealing(node)) for node in world.nodes] == [False, False, False]


def test_a_newcomer_takes_the_leaders_time_once_it_hears_it_beat() -> None:
    """A wall clock that is ahead counts only while every beat may be an old one."""
    world = fleet()
    newcomer = world.nodes[0]
    newcomer.clock.skew_ms = world.policy.max_seal_age_ms - world.policy.rotation_interval_ms
    newcomer.die()
    newcomer.runtime.files.clear()
    until_rotation(world)
    until_in_step(world)

    world.run(world.policy.rotation_interval_ms * 3 // 4)

    assert shared(world, sealing(newcomer))


def _abandoned() -> tuple[Fleet, int]:
    """Return a fleet whose one scheduler died long ago, and the time to `seals_until` with a little over."""
    world = fleet()
    until_rotation(world)
    until_in_step(world)
    window = world.claims.newest
    assert window is not None
    world.rulers[0].die()
    world.rulers[0].alarm_at = window.current.opens_until
    world.run(world.policy.rotation_interval_ms)
    return world, window.seals_until - world.now + 2 * world.policy.poll_interval_ms


def test_a_server_is_told_until_when_keys_of_the_nodes_own_may_seal() -> None:
    """If the agent dies now, nobody changes them any more."""
    world = fleet()
    until_in_step(world)
    world.store_away()
    window = world.claims.newest
    assert window is not None
    world.run_until(window.seals_until + window.max_stranded_ms + world.policy.rotation_interval_ms)

    for node in world.nodes:
        keys = node.servers[0].keys
        assert keys is not None
        assert not shared(world, sealing(node))
        assert keys.tenure is not None
        until_ms, opens_ms = keys.tenure.seals_until_ms, keys.tenure.opens_until_ms
        assert until_ms is not None
        assert opens_ms is not None
        assert 0 < until_ms - node.clock.boot_ms() <= 2 * window.current.step_ms
        assert opens_ms > until_ms
