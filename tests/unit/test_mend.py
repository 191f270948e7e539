"""A mend puts a ring together again: nothing that opens is lost, nothing opens longer than was signed."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.core.decide import owes
from keyrotd.core.mend import MAX_MERGED, mend
from keyrotd.core.policy import Policy
from keyrotd.core.window import MAX_ANCESTORS, MAX_KEYS, Window
from tests.unit.builders import (
    HOUR,
    MINUTE,
    POLICY,
    SECOND,
    first,
    names,
    policy,
    reigned,
    revoked,
    rotated,
    stek,
)

ONE, TWO, THREE, FOUR = reigned(4)
NOW = FOUR.published_at + MINUTE


def mended(
    base: Window, *others: Window, now_at: int = NOW, epoch: int | None = None, rules: Policy = POLICY
) -> Window:
    return mend(
        base,
        others,
        epoch=base.epoch + 1 if epoch is None else epoch,
        fence=2,
        now_at=now_at,
        terms=rules.terms(now_at),
    )


def test_the_base_goes_on_with_the_same_roles_above_every_floor() -> None:
    window = mended(FOUR, epoch=9)

    assert (window.epoch, window.fence, window.published_at) == (9, 2, NOW)
    assert (window.current, window.next) == (FOUR.current, FOUR.next)
    assert window.ancestors == (FOUR.digest, *FOUR.ancestors)


def test_the_lost_write_that_only_some_nodes_have_comes_back_open_only() -> None:
    """Trace F4: e4 = [K4, next K5] was lost, a forgetful leader published e4' = [K4, next K6]."""
    lost = rotated(THREE, NOW, key=5)
    stands = rotated(THREE, NOW + MINUTE, key=6)

    window = mended(stands, lost, now_at=NOW + 2 * MINUTE)

    assert window.next.name == stek(6).name
    assert stek(5).name in {key.name for key in window.previous}
    assert {lost.digest, stands.digest} <= {*window.ancestors}


def test_a_merged_key_opens_until_the_instant_that_its_own_window_signed() -> None:
    fork = rotated(THREE, NOW, key=80)

    window = mended(rotated(FOUR, NOW, key=70), fork)

    merged = next(key for key in window.previous if key.name == stek(80).name)
    assert merged == fork.next


def test_of_two_words_on_one_key_the_newer_windows_stands() -> None:
    fork = rotated(rotated(TWO, NOW - 2 * HOUR, key=80), NOW - HOUR, key=81)
    newer = rotated(fork, NOW, key=82, settled_at=NOW - 30 * MINUTE)
    base = rotated(rotated(rotated(FOUR, NOW, key=90), NOW, key=91), NOW, key=92)
    assert base.rank > newer.rank > fork.rank

    window = mended(base, fork, newer)

    said = next(key for key in window.previous if key.name == stek(80).name)
    assert said == next(key for key in newer.all if key.name == stek(80).name)


def test_nothing_from_before_the_barrier_is_merged() -> None:
    """Trace F3: a burnt window, offered again, brings nothing back."""
    burnt = revoked(FOUR, NOW, keys=(8, 9))

    assert owes(burnt, FOUR, NOW) == ()
    assert names(mended(burnt, FOUR, THREE)) == {stek(8).name, stek(9).name}


def test_an_ancestor_owes_nothing() -> None:
    assert owes(FOUR, TWO, NOW) == ()
    assert owes(FOUR, FOUR, NOW) == ()


def test_an_expired_or_forgotten_key_is_not_owed() -> None:
    fork = rotated(THREE, NOW, key=80, settled_at=THREE.published_at + MINUTE)
    late_at = fork.next.opens_until

    assert {key.name for key in owes(FOUR, fork, NOW)} == {stek(80).name}
    assert owes(FOUR, fork, late_at) == ()
    assert owes(FOUR, replace(fork, next=replace(fork.next, stek=None)), NOW) == ()


def test_keys_that_have_expired_keep_their_roles_since_nodes_go_on_along_them() -> None:
    fork = rotated(THREE, FOUR.next.opens_until - HOUR, key=80)
    late_at = FOUR.next.opens_until

    window = mended(FOUR, fork, now_at=late_at, epoch=20)

    assert (window.current, window.next) == (FOUR.current, FOUR.next)
    assert {key.name for key in window.previous} == {stek(80).name}
    assert window.ancestors[:2] == (FOUR.digest, fork.digest)


def test_an_expired_current_stays_in_its_role_until_the_next_rotation() -> None:
    late_at = FOUR.current.opens_until
    assert FOUR.next.open_at(late_at)

    window = mended(FOUR, now_at=late_at)
    after = rotated(window, late_at + MINUTE, key=99)

    assert window.current == FOUR.current
    assert FOUR.current.name not in names(after)
    assert after.current.name == FOUR.next.name


def test_at_most_sixteen_keys_are_merged_those_that_open_longest() -> None:
    forks = [rotated(THREE, NOW - number * SECOND, key=300 + number) for number in range(20)]

    window = mended(FOUR, *forks)

    merged = names(window) - names(FOUR)
    assert merged == {stek(300 + number).name for number in range(MAX_MERGED)}
    assert len(window.ancestors) == MAX_ANCESTORS


def test_a_full_window_gives_up_its_least_useful_keys_and_not_those_it_merges() -> None:
    full = first(NOW - HOUR)
    for number in range(150):
        full = rotated(full, NOW - HOUR + number * SECOND, key=500 + number)
    assert len(full.all) == MAX_KEYS
    fork = rotated(rotated(THREE, NOW - MINUTE, key=80), NOW, key=81)

    window = mended(full, fork, now_at=NOW)

    sealed_last = next(key for key in fork.all if key.name == fork.current.name)
    assert len(window.all) == MAX_KEYS
    assert sealed_last in window.previous


def test_a_cap_on_previous_keys_holds_through_a_mend() -> None:
    capped = policy(previous_keys=1)
    fork = rotated(THREE, NOW, key=80, settled_at=THREE.published_at + MINUTE)

    window = mended(FOUR, fork, rules=capped)

    assert [key.name for key in window.previous] == [stek(3).name]


ages = st.lists(
    st.tuples(st.integers(min_value=0, max_value=3), st.integers(min_value=0, max_value=12 * HOUR)), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(ages, st.integers(min_value=0, max_value=30 * HOUR))
def test_after_a_mend_nobody_is_owed_anything_and_no_bound_is_raised(
    forks_at: list[tuple[int, int]], later_ms: int
) -> None:
    base = FOUR
    others = tuple(
        rotated((ONE, TWO, THREE, FOUR)[number], base.published_at - HOUR + age_ms, key=300 + index)
        for index, (number, age_ms) in enumerate(forks_at)
    )
    now_at = base.published_at + later_ms

    window = mended(base, *others, now_at=now_at)

    assert all(not owes(window, other, now_at) for other in (base, *others))
    signed = [key for each in (base, *others) for key in each.all]
    for key in window.all:
        bounds = [each.opens_until for each in signed if each.name == key.name]
        assert not bounds or key.opens_until <= max(bounds)
    said = {key.name: key for key in reversed(signed)}  # of a key that it knows, the base has the last word
    assert {key.name for key in said.values() if key.open_at(now_at)} <= names(window)
    assert len(names(window)) == len(window.all)
