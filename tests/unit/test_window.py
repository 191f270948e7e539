"""Windows: every key moves one role on, leaves by an instant and never by a count, and no bound is ever raised."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.mend import mend
from keyrotd.core.stek import Stek
from keyrotd.core.succession import renew
from keyrotd.core.window import (
    MAX_ANCESTORS,
    MAX_KEYS,
    Key,
    Window,
    revoke,
    rotate,
    settled,
    usefulness,
)
from tests.unit.builders import (
    HOUR,
    MINUTE,
    POLICY,
    RING,
    SECOND,
    T0,
    chance,
    first,
    names,
    policy,
    reigned,
    revoked,
    rotated,
    stek,
    terms,
)

EPS = POLICY.eps_ms
T = POLICY.ticket_lifetime_ms
MAX_SEAL_AGE = POLICY.max_seal_age_ms


# The life of a key.


def test_next_seals_current_only_opens_and_a_fresh_key_is_next() -> None:
    one = first()

    two = rotated(one, T0 + 4 * HOUR)

    assert (two.epoch, two.published_at, two.ancestors) == (2, T0 + 4 * HOUR, (one.digest,))
    assert (two.current.name, two.next.name) == (stek(2).name, stek(3).name)
    assert [key.name for key in two.previous] == [stek(1).name]
    assert (two.current.born, two.next.born, two.previous[0].born) == (1, 2, 1)


def test_a_key_seals_for_max_seal_age_and_opens_one_lifetime_longer() -> None:
    now_at = T0 + 4 * HOUR

    current = rotated(first(), now_at).current

    assert current.seals_from == now_at
    assert current.seals_until == now_at + MAX_SEAL_AGE
    assert current.opens_until == now_at + MAX_SEAL_AGE + T + EPS


def test_a_node_that_has_not_heard_may_seal_on_and_its_last_ticket_opens() -> None:
    """Trace F1: no constant after retirement would do; the bound is the one that the key was given as current."""
    one = first()
    two = rotated(one, T0 + 4 * HOUR)
    three = rotated(two, T0 + 8 * HOUR, settled_at=None)  # the gate never opened: some node may still seal K1

    last_ticket_at = one.seals_until - 1

    for window in (two, three):
        old = next(key for key in window.all if key.name == stek(1).name)
        assert old.open_at(last_ticket_at + T)


def test_once_all_moved_on_a_key_leaves_one_lifetime_later() -> None:
    two = rotated(first(), T0 + 4 * HOUR)
    moved_at = two.published_at + 7 * SECOND

    three = rotated(two, T0 + 8 * HOUR, settled_at=moved_at)

    assert names(three) == {stek(number).name for number in (2, 3, 4)}
    (last,) = settled(two, settled_at=moved_at, eps_ms=EPS)
    assert (last.seals_until, last.opens_until) == (moved_at, moved_at + T + EPS)


def test_a_shortened_lifetime_does_not_cut_tickets_that_were_promised_the_longer() -> None:
    """Tickets that K1 sealed count by the lifetime of its day; the window that came after states a shorter one."""
    long, short = policy(ticket_lifetime_ms=3 * HOUR), policy(ticket_lifetime_ms=HOUR)
    two = rotated(first(rules=long), T0 + 4 * HOUR, rules=short)
    moved_at = two.published_at + MINUTE

    (old,) = settled(two, settled_at=moved_at, eps_ms=short.eps_ms)

    assert old.open_at(moved_at + 3 * HOUR)


def test_five_rotations_by_hand_within_two_minutes_drop_nothing() -> None:
    windows = reigned(6, every_ms=20 * SECOND)

    assert names(windows[-1]) == {stek(number).name for number in range(1, 8)}


def test_a_cap_is_secrecy_before_resumption_and_keeps_what_sealed_last() -> None:
    capped = policy(previous_keys=1)

    window = reigned(5, every_ms=20 * SECOND, rules=capped)[-1]

    assert [key.name for key in window.previous] == [stek(4).name]


def test_no_number_of_rotations_outgrows_a_window() -> None:
    window = first()
    for number in range(150):
        window = rotated(window, T0 + number * SECOND)

    assert len(window.all) == MAX_KEYS
    assert len(window.ancestors) == MAX_ANCESTORS
    assert [key.born for key in window.previous] == sorted((key.born for key in window.previous), reverse=True)


def test_renewal_changes_both_sealing_keys_and_what_still_opens_goes_on_opening() -> None:
    one = first()

    two = renew(one, root=None, fresh=(stek(3), stek(4)), fence=1, now_at=T0 + HOUR, terms=terms(T0 + HOUR))

    assert (two.current.name, two.next.name) == (stek(3).name, stek(4).name)
    assert [key.name for key in two.previous] == [stek(1).name, stek(2).name]
    assert {key.name: key.opens_until for key in two.previous} == {key.name: key.opens_until for key in one.all}


def test_revoke_burns_every_key_and_raises_the_barrier_to_its_epoch() -> None:
    """Trace F19: nothing of before is accepted after, and the new keys were accepted nowhere before."""
    three = reigned(3)[-1]

    burnt = revoked(three, T0 + 9 * HOUR, keys=(8, 9))

    assert (burnt.epoch, burnt.barrier) == (4, 4)
    assert names(burnt) == {stek(8).name, stek(9).name}
    assert burnt.ancestors[0] == three.digest


# What cannot be built.


def corrupt(reason: str, build: Callable[[], object]) -> None:
    with pytest.raises(CorruptWindow) as refused:
        build()
    assert refused.value.reason == reason


def test_two_keys_of_one_name_are_refused() -> None:
    one = first()
    corrupt("twin names", lambda: replace(one, previous=(one.current,)))
    corrupt("twin names", lambda: rotated(one, T0 + HOUR, key=1))


def test_a_key_from_before_the_barrier_is_refused() -> None:
    """Trace F3: a window that brings a burnt key back is no window."""
    three = reigned(3)[-1]
    burnt = revoked(three, T0 + 9 * HOUR, keys=(8, 9))

    corrupt("below barrier", lambda: replace(burnt, previous=(three.previous[0],)))
    corrupt("below barrier", lambda: replace(three, barrier=3))


def test_a_key_of_another_ring_is_refused() -> None:
    stray = stek(7, "other")
    key = replace(first().next, name=stray.name, stek=stray)
    corrupt("wrong ring", lambda: replace(first(), next=key))


def test_a_seed_under_another_name_is_refused() -> None:
    corrupt("wrong name", lambda: replace(first().next, name=stek(5).name))


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 0},
        {"fence": -1},
        {"barrier": 2},
        {"current": replace(first().current, seals_from=None, seals_until=None)},
        {"next": first().current, "current": replace(first().next, seals_from=1, seals_until=2)},
        {"next": replace(first().next, born=2)},
    ],
)
def test_a_window_that_contradicts_itself_is_refused(changes: dict[str, Key | int]) -> None:
    corrupt("malformed", lambda: replace(first(), **changes))  # type: ignore[arg-type] # wrong on purpose


def test_a_key_that_contradicts_itself_is_refused() -> None:
    current = first().current
    corrupt("malformed", lambda: replace(current, seals_from=None))
    corrupt("malformed", lambda: replace(current, opens_until=T0))


# What a digest means.


def test_a_window_is_the_same_window_when_seeds_were_forgotten() -> None:
    two = rotated(first(), T0 + 4 * HOUR)
    later_at = two.previous[0].opens_until

    faded = two.at(later_at)

    assert faded.previous[0].stek is None
    assert faded.digest == two.digest
    assert faded != two


def test_the_header_holds_no_secret() -> None:
    two = rotated(first(), T0 + 4 * HOUR)

    assert all(key.stek is not None and key.stek.seed.hex() not in two.header for key in two.all)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 3},
        {"fence": 2},
        {"barrier": 1},
        {"published_at": T0},
        {"ticket_lifetime_ms": 1},
        {"max_stranded_ms": 1},
        {"ancestors": ()},
        {"previous": ()},
    ],
)
def test_a_change_of_anything_is_another_window(changes: dict[str, int]) -> None:
    two = rotated(first(), T0 + 4 * HOUR)

    assert replace(two, **changes).digest != two.digest  # type: ignore[arg-type] # each its own type


def test_a_revoke_outranks_any_number_of_rotations() -> None:
    """Trace F3: the barrier comes first, then the epoch; the fence only orders forks (F17)."""
    burnt = revoked(first(), T0 + HOUR, keys=(8, 9))

    assert burnt.rank > reigned(9)[-1].rank
    assert reigned(3)[-1].rank > replace(reigned(2)[-1], fence=99).rank
    assert replace(first(), fence=2).rank > first().rank


def test_slots_go_to_what_sealed_last_and_hedges_come_last() -> None:
    """Trace F16: a merged key that never sealed must not push out the true previous, however long it opens."""
    two = rotated(first(), T0 + 4 * HOUR)
    hedge = rotated(two, T0 + 5 * HOUR, key=50).next

    ranked = sorted((hedge, *two.all), key=usefulness, reverse=True)

    assert [key.name for key in ranked[:2]] == [stek(2).name, stek(1).name]
    assert {key.name for key in ranked[2:]} == {hedge.name, stek(3).name}


# What holds for every life of a ring.

Step = tuple[str, int, bool]
steps = st.lists(
    st.tuples(
        st.sampled_from(["rotate", "rotate", "rotate", "renew", "revoke", "mend"]),
        st.integers(min_value=1, max_value=9 * HOUR),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


def moved_at(before: Window, step: Step) -> int | None:
    """When every node had read `before` back, if it is known."""
    _, later_ms, moved = step
    return before.published_at + later_ms // 2 if moved else None


def lived(life: list[Step]) -> list[Window]:
    """Every window of a ring to which `life` happened."""
    rand = chance(7)
    windows = [first()]
    now_at = T0
    for step in life:
        act, later_ms, _ = step
        before = windows[-1]
        settled_at = moved_at(before, step)
        now_at += later_ms
        fresh = (Stek(rand(32), RING), Stek(rand(32), RING))
        now_terms = terms(now_at)
        match act:
            case "rotate":
                after = rotate(before, fresh=fresh[0], fence=1, now_at=now_at, terms=now_terms, settled_at=settled_at)
            case "renew":
                after = renew(before, root=before.next, fresh=fresh, fence=1, now_at=now_at, terms=now_terms)
            case "revoke":
                after = revoke(before, fresh=fresh, fence=1, now_at=now_at, terms=now_terms)
            case _:
                after = mend(
                    before,
                    tuple(windows[-4:-1]),
                    epoch=before.epoch + 1,
                    fence=1,
                    now_at=now_at,
                    terms=now_terms,
                )
        windows.append(after)
    return windows


@settings(max_examples=40, deadline=None)
@given(steps)
def test_names_are_unique_and_each_publish_adds_one_to_the_epoch(life: list[Step]) -> None:
    windows = lived(life)

    assert [window.epoch for window in windows] == list(range(1, len(windows) + 1))
    assert all(len(names(window)) == len(window.all) for window in windows)
    assert len({window.digest for window in windows}) == len(windows)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_no_bound_of_a_key_that_has_sealed_is_ever_raised(life: list[Step]) -> None:
    windows = lived(life)
    for before, after in pairwise(windows):
        bounds = {key.name: key for key in before.all if key.seals_until is not None}
        for key in after.all:
            if key.name in bounds:
                assert key.opens_until <= bounds[key.name].opens_until
                assert (key.seals_until or 0) <= (bounds[key.name].seals_until or 0)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_only_an_instant_or_a_barrier_takes_a_key_out(life: list[Step]) -> None:
    windows = lived(life)
    for step, before, after in zip(life, windows, windows[1:], strict=False):
        if step[0] != "revoke":
            older = settled(before, settled_at=moved_at(before, step), eps_ms=EPS)
            owed = {key.name for key in (before.current, before.next, *older) if key.open_at(after.published_at)}
            assert owed <= names(after)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_every_ticket_of_a_node_that_has_not_heard_opens_for_one_lifetime(life: list[Step]) -> None:
    """G1: at each publish, a ticket that the window before could have sealed until now opens until T later."""
    windows = lived(life)
    for before, after in pairwise(windows):
        now_at = after.published_at
        if after.barrier > before.barrier or now_at >= before.seals_until:
            continue
        sealed = next(key for key in after.all if key.name == before.current.name)
        assert sealed.open_at(now_at + T)
        assert sealed.open_at(before.seals_until - 1 + T)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_no_key_seals_longer_than_max_seal_age_and_opens_longer_than_t_and_eps_after(life: list[Step]) -> None:
    """G3, as far as a window states it."""
    for window in lived(life):
        for key in window.all:
            if key.seals_until is not None and key.seals_from is not None:
                assert key.seals_until - key.seals_from <= MAX_SEAL_AGE
                assert key.opens_until - key.seals_until <= MAX_SEAL_AGE + T + EPS
        assert window.current.opens_until - window.seals_until <= T + EPS


@settings(max_examples=40, deadline=None)
@given(steps)
def test_no_key_from_below_the_barrier_ever_comes_back(life: list[Step]) -> None:
    windows = lived(life)
    for number, window in enumerate(windows):
        burnt = set().union(*(names(old) for old in windows[:number] if old.epoch < window.barrier))
        assert not names(window) & burnt


@settings(max_examples=40, deadline=None)
@given(steps, st.integers(min_value=0, max_value=60 * HOUR))
def test_time_changes_no_digest_and_takes_only_expired_seeds(life: list[Step], later_ms: int) -> None:
    window, now_at = lived(life)[-1], T0 + later_ms

    faded = window.at(now_at)

    assert faded.digest == window.digest
    assert [key.stek is None for key in faded.all] == [not key.open_at(now_at) for key in window.all]
    assert faded.at(now_at) == faded


@settings(max_examples=40, deadline=None)
@given(steps)
def test_digests_are_equal_exactly_when_headers_are(life: list[Step]) -> None:
    windows = [*lived(life), *lived(life[:-1])]
    for one in windows:
        for other in windows:
            assert (one.digest == other.digest) == (one.header == other.header)
