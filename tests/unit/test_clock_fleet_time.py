"""The time of a node that begins with none: how it learns whether a beat is new or has lain in the store for hours."""

from keyrotd.daemon.clock import FleetTime, Heard, taking_over
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


def test_a_leader_that_heard_another_goes_on_with_its_time() -> None:
    world = World()
    for _ in range(3):
        world.poll(world.now - 40 * SECOND)

    time = taking_over(world.clock, world.fleet, last_signed_at=world.now - 45 * SECOND)

    assert time.now() == world.now - 45 * SECOND


def test_a_leader_that_heard_nobody_goes_by_its_wall_clock_but_not_back_before_the_last_beat() -> None:
    world = World()

    assert taking_over(world.clock, world.fleet, last_signed_at=world.now - HOUR).now() == world.now
    assert taking_over(world.clock, world.fleet, last_signed_at=world.now + SECOND).now() == world.now + SECOND


def test_no_beats_however_many_lead_a_leader_far_from_its_own_clock() -> None:
    """Whoever owns the store can replay a whole series of old ones."""
    world = World()
    for _ in range(3):
        world.poll(world.now - HOUR)

    assert taking_over(world.clock, world.fleet, last_signed_at=0).now() == world.now
