"""The time of a node that begins with none: how it learns whether a beat is new or has lain in the store for hours."""

from keyrotd.daemon.clock import FleetTime, Heard
from keyrotd.testing.clock import FakeClock

HOUR, SECOND = 3_600_000, 1000


class World:
    """What time it is, and a machine that knows it."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000
        self.clock = FakeClock(lambda: self.now)
        self.fleet = FleetTime(self.clock, steady_ms=6 * SECOND)

    def poll(self, signed_at: int) -> None:
        """Hear a beat one poll later."""
        self.now += 5 * SECOND
        self.fleet.hear(signed_at)


def test_an_old_beat_is_an_old_instant_and_the_wall_clock_tells() -> None:
    world = World()

    world.poll(world.now - HOUR)

    assert world.fleet.now() == world.now - 5 * SECOND - HOUR
    assert world.fleet.latest() == world.now


def test_a_wall_clock_that_is_behind_makes_nothing_younger() -> None:
    world = World()
    world.clock.skew_ms = -HOUR

    world.poll(world.now)

    assert world.fleet.latest() == world.fleet.now() == world.now - 5 * SECOND


def test_beats_that_move_are_the_time_whatever_the_wall_clock_says() -> None:
    world = World()
    world.clock.skew_ms = HOUR

    for _ in range(3):
        world.poll(world.now + 4 * SECOND)

    assert world.fleet.latest() == world.fleet.now() == world.now - SECOND


def test_one_beat_that_its_leader_slept_on_moves_nothing() -> None:
    """It was signed long before it was handed in; only the next one is new."""
    world = World()

    world.poll(world.now - HOUR)
    world.poll(world.now - HOUR // 2)

    assert world.fleet.latest() == world.now


def test_a_beat_found_after_a_long_pause_may_be_as_old_as_the_pause() -> None:
    world = World()
    world.poll(world.now)
    world.poll(world.now)
    world.now += 20 * SECOND

    world.poll(world.now - 20 * SECOND)

    assert world.fleet.latest() == world.now


def test_a_restart_knows_which_kind_of_time_it_had() -> None:
    world = World()
    before = Heard(world.now - HOUR, world.clock.boot_ms(), world.clock.boot_id, moved=False)

    assert FleetTime(world.clock, 6 * SECOND, before).latest() == world.now
    after = Heard(world.now - HOUR, world.clock.boot_ms(), world.clock.boot_id, moved=True)
    assert FleetTime(world.clock, 6 * SECOND, after).latest() == world.now - HOUR


def test_another_boot_knows_no_time_at_all() -> None:
    world = World()
    world.poll(world.now)

    world.clock.reboot()

    assert FleetTime(world.clock, 6 * SECOND, world.fleet.heard).now() is None
