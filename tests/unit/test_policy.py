"""A policy is arithmetic: what it promises, what it puts into a window, and every promise that nobody can keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd.core.policy import Interval, Policy, impossible, jittered_ms, words
from tests.unit.builders import DAY, HOUR, MINUTE, POLICY, SECOND, T0, Daily, policy

MIDNIGHT = T0 - T0 % DAY


def faults(rules: Policy, *, slots: int | None = None, notice_delay_ms: int = 0) -> list[str]:
    return [fault for fault, _ in impossible(rules, slots=slots, notice_delay_ms=notice_delay_ms)]


def test_the_defaults_are_possible_even_on_three_slots() -> None:
    assert faults(POLICY, slots=3, notice_delay_ms=MINUTE) == []


def test_eps_is_a_jittered_poll_two_store_timeouts_and_the_drift_of_a_keys_life() -> None:
    assert POLICY.eps_ms == 5_500 + 2_000 + 36_000


def test_the_worst_is_a_key_stolen_as_it_is_made() -> None:
    assert POLICY.worst_ms == 4 * HOUR + 8 * HOUR + 2 * HOUR + POLICY.eps_ms


def test_an_even_schedule_seals_for_max_seal_age() -> None:
    assert POLICY.terms(T0).seals_until == T0 + 8 * HOUR
    assert POLICY.terms(T0).step_ms == 4 * HOUR


def test_an_uneven_schedule_seals_until_the_due_instant_after_next() -> None:
    """Trace F9: the year's longest gap would let a key seal through both of two short ones."""
    rules = policy(Daily((0, 1)), max_seal_age_ms=46 * HOUR)

    assert rules.terms(MIDNIGHT).seals_until == MIDNIGHT + DAY + rules.eps_ms
    assert rules.terms(MIDNIGHT + HOUR).seals_until == MIDNIGHT + DAY + HOUR + rules.eps_ms
    assert rules.rotation_interval_ms == 23 * HOUR


@pytest.mark.parametrize("hours", [(3,), (0, 12), (0, 1), (0, 6, 7, 20)])
def test_under_any_schedule_a_key_may_seal_past_its_due_instant_and_the_wait_for_the_slowest(
    hours: tuple[int, ...],
) -> None:
    """Trace F9: no healthy node stops under a living leader."""
    schedule = Daily(hours)
    rules = policy(schedule, max_seal_age_ms=2 * schedule.longest_ms, max_stranded_ms=DAY)
    assert faults(rules) == []

    for minute in range(0, 1440, 17):
        now_at = MIDNIGHT + minute * MINUTE
        due_at = schedule.next_due(now_at)
        assert rules.terms(now_at).seals_until >= due_at + rules.overdue_after_ms + rules.eps_ms


def test_a_ticket_lifetime_over_seven_days_is_refused() -> None:
    rules = policy(ticket_lifetime_ms=7 * DAY + 1)

    assert faults(rules) == ["ticket_lifetime is 7d1ms, over 7d"]


def test_a_key_worth_stealing_for_over_seven_days_is_refused() -> None:
    rules = policy(Interval(2 * DAY), max_seal_age_ms=4 * DAY, ticket_lifetime_ms=DAY)

    (fault,) = faults(rules)

    assert "worth stealing" in fault


def test_a_rotation_faster_than_nodes_or_servers_can_follow_is_refused() -> None:
    fast = policy(Interval(20 * SECOND), ticket_lifetime_ms=SECOND, overdue_after_ms=0, max_seal_age_ms=HOUR)

    assert faults(fast) == []
    assert len(faults(fast, notice_delay_ms=MINUTE)) == 1
    assert len(faults(policy(Interval(11 * SECOND), overdue_after_ms=0))) == 1


def test_a_wait_that_outlasts_the_sealing_key_is_refused() -> None:
    edge_ms = POLICY.max_seal_age_ms - POLICY.rotation_interval_ms - POLICY.eps_ms

    assert faults(policy(overdue_after_ms=edge_ms)) == []
    (fault,) = faults(policy(overdue_after_ms=edge_ms + 1))
    assert fault.startswith("overdue_after")


def test_a_wait_longer_than_an_uneven_schedules_shortest_gap_is_refused() -> None:
    rules = policy(Daily((0, 1)), max_seal_age_ms=46 * HOUR, overdue_after_ms=61 * MINUTE, max_stranded_ms=DAY)

    assert faults(rules) == ["overdue_after 1h1m is longer than the schedule's shortest gap"]


def test_a_node_ttl_that_one_lost_poll_outlasts_is_refused() -> None:
    assert faults(policy(node_ttl_ms=11_999)) == ["node_ttl 11s999ms is shorter than two polls of 5s"]
    assert faults(policy(node_ttl_ms=12_000)) == []


def test_a_lease_that_one_slow_tick_outlasts_is_refused() -> None:
    assert len(faults(policy(lease_ttl_ms=3 * SECOND))) == 1
    assert faults(policy(lease_ttl_ms=3 * SECOND + 1)) == []


def test_three_slots_must_hold_every_live_ticket_within_one_rotation() -> None:
    """Trace F16 (iii)."""
    edge_ms = 4 * HOUR - 30 * MINUTE

    def lifetime(ticket_lifetime_ms: int) -> Policy:
        return policy(ticket_lifetime_ms=ticket_lifetime_ms)

    fits = max(ms for ms in range(edge_ms - 2 * MINUTE, edge_ms, 500) if not faults(lifetime(ms), slots=3))

    assert fits + 30 * MINUTE + lifetime(fits).eps_ms <= 4 * HOUR
    assert faults(lifetime(fits), slots=None) == []
    assert len(faults(lifetime(fits + 500), slots=3)) == 1


def test_a_server_with_more_slots_has_one_rotation_more_for_each() -> None:
    rules = policy(ticket_lifetime_ms=11 * HOUR)

    assert len(faults(rules, slots=4)) == 1
    assert faults(rules, slots=5) == []


def test_every_fault_is_listed_at_once() -> None:
    rules = policy(
        Daily((0, 1)),
        max_seal_age_ms=24 * HOUR,
        ticket_lifetime_ms=8 * DAY,
        overdue_after_ms=2 * HOUR,
        node_ttl_ms=SECOND,
        lease_ttl_ms=SECOND,
    )

    found = faults(rules, slots=3, notice_delay_ms=2 * HOUR)

    assert len(found) == 7


@given(st.integers(min_value=1, max_value=HOUR))
def test_jitter_only_lengthens_and_by_a_tenth_at_most(interval_ms: int) -> None:
    assert interval_ms <= jittered_ms(interval_ms) <= interval_ms * 1.1


@pytest.mark.parametrize(
    ("duration_ms", "said"), [(0, "0s"), (5_400_000, "1h30m"), (DAY + 1, "1d1ms"), (61_001, "1m1s1ms")]
)
def test_durations_are_said_as_they_are_configured(duration_ms: int, said: str) -> None:
    assert words(duration_ms) == said
