"""What each rival's documents and source let one expect, by mechanism; how much of it is in docs/rivals.md."""

from dataclasses import replace
from functools import cache

import pytest

from tests.rivals.leaderless import REDIS_POLL_MS, Leaderless, LeaderlessUnchecked
from tests.rivals.load import Cause, Ledger, Shown
from tests.rivals.runs import PROTOCOLS, Outcome, run
from tests.rivals.weather import (
    CUT,
    FLUSHED,
    HOSTS,
    KILLED,
    MINUTE,
    MISSED,
    PARTED,
    QUIET,
    SECOND,
    Scale,
    Stage,
    Weather,
)
from tests.rivals.world import World

HOURLY = Scale()
#: For keyrotd's real ticks: as much happens in as many periods.
BRISK = Scale(rotation_interval_ms=3 * MINUTE, ticket_lifetime_ms=3 * MINUTE, periods=5.5)


@cache
def outcome(name: str, weather: Weather, scale: Scale = HOURLY, seed: int = 1) -> Outcome:
    protocol = next(protocol for protocol in PROTOCOLS if protocol.name == name)
    return run(protocol, weather, seed, scale)


def share(found: Outcome, *causes: Cause) -> float:
    """The orphans of these causes, as a share of all."""
    return sum(found.whole.orphans[cause] for cause in causes) / sum(found.whole.orphans.values())


def cut_in_reach(stage: Stage, scale: Scale, seed: int) -> None:
    """So short that the node is heard again within node_ttl, although its agent backs off meanwhile."""
    stage.plan(scale.periods_ms(1.75), lambda: stage.at_rotation(lambda: stage.cut_host(seed % HOSTS, 10 * SECOND)))


WITHIN_G1 = (MISSED, Weather("node cut 10 s", cut_in_reach), KILLED, FLUSHED, PARTED)


@pytest.mark.parametrize("weather", WITHIN_G1, ids=lambda weather: weather.name)
def test_keyrotd_orphans_no_ticket_within_its_fault_model(weather: Weather) -> None:
    found = outcome("keyrotd", weather, BRISK)

    assert found.whole.per_million == 0


def test_a_node_that_keyrotd_has_not_heard_for_node_ttl_loses_its_oldest_tickets_at_most() -> None:
    """It is not waited for, and goes on for a moment with a key that the others have retired."""
    found = outcome("keyrotd", CUT, BRISK)

    assert found.whole.orphans[Cause.LATE] == found.whole.orphans[Cause.NEVER] == 0
    assert found.whole.per_million < 10_000


def test_keyrotd_lets_no_key_live_on_while_the_store_is_away() -> None:
    found = outcome("keyrotd", PARTED, BRISK)

    assert not found.still_open
    assert found.life_ms < 5 * BRISK.rotation_interval_ms


def test_copies_that_fail_leave_a_host_behind_until_the_next_run() -> None:
    missed = outcome("cron, files copied", MISSED)

    assert missed.whole.per_million > 1000 * outcome("cron, files copied", QUIET).whole.per_million
    assert share(missed, Cause.LATE) == pytest.approx(1)


def test_a_leader_that_switches_first_is_ahead_of_the_others_at_every_rotation() -> None:
    quiet = outcome("leader switches first", QUIET)

    assert quiet.whole.per_million > 1
    assert share(quiet, Cause.LATE) > 0.9


def test_a_server_that_rejoins_with_one_key_opens_no_older_ticket() -> None:
    killed = outcome("leader switches first", KILLED)

    assert share(killed, Cause.DROPPED) > 0.9


def test_a_head_start_as_long_as_the_poll_forgives_no_cut() -> None:
    cut = outcome("leaderless, 60 s head start", CUT)

    assert outcome("leaderless, 60 s head start", QUIET).whole.per_million == 0
    assert share(cut, Cause.LATE) > 0.9


@pytest.mark.parametrize(
    "name",
    [
        "leaderless, 60 s head start",
        "added first, own timers",
        "the same, its state in a Secret",
    ],
)
def test_a_flush_drops_every_live_ticket(name: str) -> None:
    flushed, quiet = outcome(name, FLUSHED), outcome(name, QUIET)

    assert flushed.after_flush.per_million > 1000 * max(1.0, quiet.after_flush.per_million)
    assert share(flushed, Cause.DROPPED) > 0.9


def test_without_compare_and_set_a_cold_start_in_step_splits_the_fleet() -> None:
    """All read the empty store within one round trip, and each seals at once with what it wrote."""
    assert len(sealing_after_cold_start(Leaderless)) == 1
    assert len(sealing_after_cold_start(LeaderlessUnchecked)) == HOSTS


def sealing_after_cold_start(make: type[Leaderless]) -> set[str | None]:
    """What the hosts seal with before anybody polls again, all started at one instant."""
    world = World(HOURLY, 1, make, start_within_ms=1)
    while world.now < world.began_at + REDIS_POLL_MS // 2:
        world.run_until(world.began_at + REDIS_POLL_MS // 2)
    return {host.shown.seals for host in world.hosts if host.shown is not None}


def test_one_error_of_the_storage_ends_rotation_on_that_server() -> None:
    cut = outcome("added first, own timers", CUT)

    assert cut.still_open
    assert share(cut, Cause.NEVER, Cause.DROPPED) > 0.9
    assert outcome("the same, its timer repaired", CUT).whole.per_million < cut.whole.per_million / 10


def test_a_generator_without_memory_replaces_every_key_when_it_restarts() -> None:
    killed = outcome("pre-staged one period", KILLED)

    assert share(killed, Cause.DROPPED) > 0.9
    assert outcome("the same, its state in a Secret", KILLED).whole.per_million == 0


def test_servers_that_find_no_keys_twice_give_up_those_they_have() -> None:
    parted = outcome("pre-staged one period", PARTED)

    assert share(parted, Cause.DROPPED) > 0.9


def test_the_same_seed_gives_the_same_outcome() -> None:
    protocol = PROTOCOLS[0]

    assert run(protocol, MISSED, 1, HOURLY) == run(protocol, MISSED, 1, HOURLY)


def test_the_ledger_knows_why_a_ticket_found_no_key() -> None:
    """One server has a key from the first second on, the other from the third to the fifth, and a third never."""
    ledger = Ledger(began_at=0, ticket_lifetime_ms=60 * SECOND, spans=((0, 10 * SECOND),))
    issuer, with_it, without = Shown("k", frozenset("k")), Shown(None, frozenset("k")), Shown(None, frozenset())

    ledger.see(0, (issuer, without, without))
    ledger.see(3 * SECOND, (issuer, with_it, without))
    ledger.see(5 * SECOND, (issuer, without, without))
    ledger.see(10 * SECOND, (issuer, without, without))

    orphans = ledger.span(0).orphans
    assert orphans[Cause.DROPPED] > orphans[Cause.LATE] > 0
    assert orphans[Cause.NEVER] > orphans[Cause.DROPPED]


def test_a_quiet_fleet_of_one_key_orphans_nothing() -> None:
    ledger = Ledger(began_at=0, ticket_lifetime_ms=60 * SECOND, spans=((0, 10 * SECOND),))
    server = Shown("k", frozenset("k"))

    ledger.see(0, (server, server))
    ledger.see(10 * SECOND, (server, replace(server)))

    assert ledger.span(0).per_million == 0
    assert ledger.span(0).offered > 0
