"""Succession: who holds a key goes on in step with all who do, without a word, and nobody can go back."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.core.decide import NO_MEMORY
from keyrotd.core.reconcile import Adopt, Footing, Held, accept, changes_at, footing, keys_at, steps
from keyrotd.core.stek import Stek
from keyrotd.core.succession import after, carried, follower, renew, succession
from tests.unit.builders import HOUR, MINUTE, POLICY, T0, first, policy, reigned, rotated, stek, terms

ONE, TWO, THREE = reigned(3)
OWN = (stek(900), stek(901))
T_MS = POLICY.ticket_lifetime_ms
R_MS = POLICY.rotation_interval_ms


def on(held: Held, now_at: int, *, silent: bool = True) -> Held:
    return held.on(now_at, silent=silent).at(now_at)


def sealing(held: Held, now_at: int) -> Stek:
    return keys_at(held, OWN, now_at).current


# Followers.


def test_a_follower_is_a_function_of_the_key_before_it() -> None:
    key = follower(THREE.next, T_MS)

    assert key == follower(THREE.next, T_MS)
    assert key.name not in {THREE.next.name, follower(key, T_MS).name}


def test_followers_seal_one_after_the_other_and_open_a_lifetime_longer() -> None:
    one = follower(THREE.next, T_MS)
    two = follower(one, T_MS)

    assert one.seals_from == THREE.seals_until  # where next was made, that was when its current would end
    assert (one.seals_until, one.opens_until) == (THREE.seals_until + R_MS, THREE.seals_until + R_MS + T_MS)
    assert two.seals_from == one.seals_until


@given(hours=st.lists(st.integers(0, 60 * 24), max_size=8))
def test_however_often_a_node_looked_it_comes_to_the_same_keys(hours: list[int]) -> None:
    line = succession(THREE).next
    assert line is not None
    looked = line
    for hour in sorted(hours):
        looked = looked.at(THREE.seals_until + hour * MINUTE * 5)
    end_at = THREE.seals_until + 60 * 24 * MINUTE * 5

    assert looked.at(end_at) == line.at(end_at)
    assert looked.open_at(end_at) == line.open_at(end_at)


def test_what_may_no_longer_open_is_forgotten_and_cannot_be_derived() -> None:
    """The oldest that is left still opens: no earlier one follows from it."""
    line = succession(THREE).next
    assert line is not None
    late_at = THREE.seals_until + 10 * R_MS

    left = line.at(late_at)

    assert left.oldest.open_at(late_at)
    assert line.oldest.name not in {key.name for key in left.open_at(late_at)}
    gone = [line.oldest]
    while gone[-1].steps_at < left.oldest.steps_at:
        gone.append(after(gone[-1]))
    assert gone[-1] == left.oldest
    assert not any(key.open_at(late_at) for key in gone[:-1])


def test_no_follower_seals_after_max_stranded() -> None:
    held = Held(window=THREE).heard(THREE.published_at + MINUTE)
    end_at = THREE.seals_until + THREE.max_stranded_ms

    assert footing(on(held, end_at - 1), end_at - 1) is Footing.STRANDED
    assert footing(on(held, end_at), end_at) is Footing.ISOLATED
    assert sealing(on(held, end_at), end_at) == OWN[0]


# A node.


def test_without_a_leader_next_seals_from_the_instant_of_its_promotion() -> None:
    held = Held(window=THREE).heard(THREE.published_at + MINUTE)
    due_at = THREE.published_at + R_MS

    assert sealing(on(held, due_at - 1), due_at - 1) == THREE.current.stek
    assert sealing(on(held, due_at), due_at) == THREE.next.stek
    assert sealing(on(held, due_at, silent=False), due_at) == THREE.current.stek
    assert sealing(on(held, THREE.seals_until), THREE.seals_until) == follower(THREE.next, 1).stek


def test_what_nobody_is_known_to_have_is_not_gone_on_along() -> None:
    held = Held(window=THREE)

    assert sealing(on(held, THREE.seals_until - 1), THREE.seals_until - 1) == THREE.current.stek
    one = follower(THREE.current, 1)
    two = follower(one, 1)
    assert sealing(on(held, THREE.seals_until), THREE.seals_until) == two.stek  # the first one's step is over


def test_each_step_is_one_push_for_a_ring_of_three() -> None:
    """[previous, current, next]: what sealed, what seals, what will."""
    held = Held(window=THREE).heard(THREE.published_at + MINUTE)
    seen = []
    for number in range(5):
        now_at = THREE.published_at + R_MS * (number + 1)
        held = on(held, now_at)
        keys = keys_at(held, OWN, now_at).fit(3)
        seen.append((keys.previous[0], keys.current, keys.next))

    line = [THREE.current, THREE.next, follower(THREE.next, 1)]
    for _ in range(4):
        line.append(follower(line[-1], 1))
    assert seen == [tuple(key.stek for key in line[number : number + 3]) for number in range(5)]


def test_steps_are_counted_from_the_end_of_the_last_window() -> None:
    held = Held(window=THREE).heard(THREE.published_at + MINUTE)
    end_at = THREE.seals_until

    assert [steps(on(held, at), at) for at in (end_at - 1, end_at, end_at + R_MS - 1, end_at + R_MS)] == [0, 1, 1, 2]


def test_next_stands_in_unless_the_window_ends_before_the_last_ticket_of_current_does() -> None:
    """Three keys within T are more than three slots open: `current`, `next`, and what follows that."""
    held = Held(window=THREE).heard(THREE.published_at + MINUTE)
    late_at = THREE.seals_until - T_MS - THREE.eps_ms

    assert sealing(on(held, late_at - 1), late_at - 1) == THREE.next.stek
    assert sealing(on(held, late_at), late_at) == THREE.current.stek
    assert sealing(on(on(held, late_at - 1), late_at), late_at) == THREE.next.stek


def test_a_leader_that_is_heard_again_in_time_is_followed() -> None:
    held = on(Held(window=THREE).heard(THREE.published_at + MINUTE), THREE.published_at + R_MS + MINUTE)
    four = rotated(THREE, THREE.published_at + R_MS + HOUR)

    adopted = accept(four, held, NO_MEMORY, fresh=True, now_at=four.published_at)

    assert isinstance(adopted, Adopt)
    assert (adopted.held.window, adopted.fork) == (four, False)
    assert sealing(adopted.held, four.published_at) == THREE.next.stek


def test_a_current_that_comes_with_a_renewal_of_nothing_known_waits_until_all_have_it() -> None:
    late_at = THREE.seals_until + R_MS + MINUTE
    held = on(Held(window=THREE).heard(THREE.published_at + MINUTE), late_at)
    followers = {key.stek for key in succession(THREE).open_at(late_at) if key.seals_from == late_at - MINUTE}
    anew = renew(THREE, root=None, fresh=(stek(50), stek(51)), fence=2, now_at=late_at, terms=terms(late_at))

    adopted = accept(anew, held, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    assert sealing(adopted.held, late_at) in followers
    assert stek(50) in keys_at(adopted.held, OWN, late_at).opening
    assert sealing(adopted.held.heard(late_at), late_at) == stek(50)
    assert sealing(adopted.held, late_at + anew.eps_ms + R_MS // 8) == stek(50)


def test_a_node_that_waits_for_such_a_current_takes_the_steps_that_come_meanwhile() -> None:
    stepped_at = THREE.seals_until + R_MS
    late_at = stepped_at - MINUTE
    held = on(Held(window=THREE).heard(THREE.published_at + MINUTE), late_at)
    one, two = (key.stek for key in succession(THREE).lines[0].open_at(late_at)[-2:])
    anew = renew(THREE, root=None, fresh=(stek(50), stek(51)), fence=2, now_at=late_at, terms=terms(late_at))

    adopted = accept(anew, held, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    assert sealing(adopted.held, late_at) == one
    assert changes_at(adopted.held, late_at) == stepped_at
    assert sealing(on(adopted.held, stepped_at, silent=False), stepped_at) == two


def test_a_node_opens_the_next_step_of_those_that_have_not_read_a_renewal_yet() -> None:
    """The store lost the seed of THREE's current: the leader, who read a copy, took up the line of its next alone."""
    stepped_at = THREE.seals_until + R_MS
    late_at = stepped_at - MINUTE
    held = on(Held(window=THREE), late_at)
    copy = replace(THREE, current=replace(THREE.current, stek=None))
    renewal = renew(copy, root=THREE.next, fresh=(stek(50), stek(51)), fence=2, now_at=late_at, terms=terms(late_at))

    adopted = accept(renewal, held, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    behind = sealing(on(held, stepped_at), stepped_at)
    assert behind not in {key.stek for key in renewal.all}
    assert behind in keys_at(adopted.held, OWN, stepped_at).opening


# A fleet.


@dataclass(frozen=True)
class Fleet:
    """What nodes in step may hold when the store dies: the newest window or the one before, confirmed or not."""

    held: tuple[Held, ...]
    skews_ms: tuple[int, ...]

    def at(self, now_at: int) -> tuple[Held, ...]:
        held = zip(self.held, self.skews_ms, strict=True)
        return tuple(on(each, now_at + skew_ms) for each, skew_ms in held)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    gaps = draw(st.lists(st.integers(MINUTE, 8 * HOUR - 2 * MINUTE), min_size=2, max_size=3))
    windows = [first()]
    for gap_ms in gaps:
        window = windows[-1]
        windows.append(rotated(window, min(window.published_at + gap_ms, window.seals_until - 2_000)))
    before, newest = windows[-2:]
    everywhere = draw(st.booleans())
    confirmed_at = newest.published_at + MINUTE
    older = Held(window=before)
    choices = [Held(window=newest)]
    choices += [Held(window=newest).heard(confirmed_at)] if everywhere else [older, older.heard(before.published_at)]
    held = draw(st.lists(st.sampled_from(choices), min_size=2, max_size=4))
    skews = draw(st.lists(st.integers(-5_000, 5_000), min_size=len(held), max_size=len(held)))
    return Fleet(tuple(held), tuple(skews))


@settings(max_examples=80, deadline=None)
@given(fleet=fleets(), minutes=st.lists(st.integers(1, 90), min_size=10, max_size=60))
def test_a_ticket_of_any_node_opens_on_every_node_for_its_lifetime_through_any_absence(
    fleet: Fleet, minutes: list[int]
) -> None:
    """Whatever each holds of two windows, whatever it heard, and however its clock goes within eps."""
    now_at = max(held.window.published_at for held in fleet.held) + MINUTE
    sealed: dict[Stek, int] = {}
    held = fleet.at(now_at)
    for later in minutes:
        for each, skew_ms in zip(held, fleet.skews_ms, strict=True):
            sealed[sealing(each, now_at + skew_ms)] = now_at
        now_at += later * MINUTE
        held = tuple(on(each, now_at + skew_ms) for each, skew_ms in zip(held, fleet.skews_ms, strict=True))
        for each, skew_ms in zip(held, fleet.skews_ms, strict=True):
            opening = keys_at(each, OWN, now_at + skew_ms).opening
            assert all(key in opening for key, at in sealed.items() if now_at - at < T_MS)


@settings(max_examples=80, deadline=None)
@given(fleet=fleets(), away_ms=st.integers(0, 40 * HOUR))
def test_a_returning_leader_takes_nodes_up_where_they_are(fleet: Fleet, away_ms: int) -> None:
    """Whoever has read the renewal, and whoever has not yet, opens what the others seal with."""
    newest = max((held.window for held in fleet.held), key=lambda window: window.epoch)
    root = newest.next if any(held.spread for held in fleet.held if held.window == newest) else newest.current
    now_at = newest.seals_until + away_ms
    stepped_at = now_at - (now_at - root.steps_at) % R_MS
    now_at = max(now_at, stepped_at + newest.eps_ms)  # the leader waits for that
    renewal = renew(newest, root=root, fresh=(stek(70), stek(71)), fence=9, now_at=now_at, terms=terms(now_at))
    stranded = fleet.at(now_at)

    renewed = []
    for each, skew_ms in zip(stranded, fleet.skews_ms, strict=True):
        adopted = accept(renewal, each, NO_MEMORY, fresh=True, now_at=now_at + skew_ms)
        assert isinstance(adopted, Adopt)
        renewed.append(adopted.held)
    fresh = Held(window=renewal)

    everyone = [*zip(stranded, fleet.skews_ms, strict=True), *zip(renewed, fleet.skews_ms, strict=True), (fresh, 0)]
    used = {sealing(each, now_at + skew_ms) for each, skew_ms in everyone}
    for each, skew_ms in everyone:
        assert used <= set(keys_at(each, OWN, now_at + skew_ms).opening)
    assert renewal.next.name == stek(71).name
    assert {sealing(each, now_at) for each in (*renewed, fresh)} == {renewal.current.stek}


def test_a_rotation_carries_what_late_nodes_went_on_along_before_they_had_its_window() -> None:
    """One missed THREE until TWO had ended: it stepped along the key that it knew to be in everywhere."""
    ended_at, now_at = TWO.seals_until, TWO.seals_until + 2 * HOUR
    late = on(Held(window=TWO).heard(TWO.published_at + MINUTE), ended_at)
    four = rotated(THREE, now_at, settled_at=ended_at + HOUR)

    carries = carried(four, THREE, settled_at=ended_at + HOUR, now_at=now_at, terms=terms(now_at))
    in_time = carried(four, THREE, settled_at=THREE.published_at + MINUTE, now_at=now_at, terms=terms(now_at))

    assert sealing(late, ended_at) not in {key.stek for key in four.all}
    assert sealing(late, ended_at) in {key.stek for key in carries.all}
    assert in_time == four


def test_a_copy_without_seeds_takes_no_line_from_who_knows_them() -> None:
    """The store lost the window, and others offer it as it is left to them."""
    late_at = THREE.current.opens_until
    held = on(Held(window=TWO).heard(TWO.published_at + MINUTE), late_at)

    adopted = accept(THREE.at(late_at), held, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    assert adopted.held.succession is not None
    assert adopted.held.succession.lines[1].roots[0] == THREE.current.name
    assert sealing(on(adopted.held, late_at), late_at) == sealing(held, late_at)


def test_a_renewal_drops_nothing_that_still_opens() -> None:
    now_at = THREE.seals_until + 2 * R_MS + MINUTE
    renewal = renew(THREE, root=THREE.next, fresh=(stek(70), stek(71)), fence=9, now_at=now_at, terms=terms(now_at))

    names = {key.name for key in renewal.all}
    open_now = {key.name for key in (*THREE.all, *succession(THREE).open_at(now_at)) if key.open_at(now_at)}
    assert open_now <= names
    assert renewal.seals_until <= now_at + POLICY.max_seal_age_ms
    assert renewal.current.opens_until - renewal.current.made_at <= POLICY.worst_ms


@pytest.mark.parametrize("late_ms", [0, HOUR, 3 * HOUR, 4 * HOUR - 2_000])
def test_however_late_a_promotion_no_key_outlives_v(late_ms: int) -> None:
    four = rotated(THREE, THREE.published_at + R_MS + late_ms)

    assert four.current.opens_until - four.current.made_at <= POLICY.worst_ms
    assert four.next.opens_until - four.next.made_at <= POLICY.worst_ms
    assert four.seals_until == THREE.published_at + R_MS + POLICY.max_seal_age_ms


def test_a_short_max_stranded_ends_the_succession_soon() -> None:
    brief = policy(max_stranded_ms=HOUR)
    window = first(T0, rules=brief)
    held = on(Held(window=window), window.seals_until + HOUR)

    assert footing(held, window.seals_until + HOUR) is Footing.ISOLATED


def test_a_node_that_missed_renewals_knows_their_keys_by_what_it_went_on_along() -> None:
    """The renewal's `current` is one of the followers that it passed, and nobody has that one's seed any more."""
    now_at = THREE.seals_until + HOUR
    renewal = renew(THREE, root=THREE.next, fresh=(stek(70), stek(71)), fence=9, now_at=now_at, terms=terms(now_at))
    late_at = renewal.seals_until + 9 * R_MS
    missed = on(Held(window=THREE).heard(THREE.published_at + MINUTE), late_at)
    read = on(Held(window=renewal).heard(renewal.published_at + MINUTE), late_at)

    adopted = accept(renewal.at(late_at), missed, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    assert renewal.at(late_at).current.stek is None
    for key in (read.succession and read.succession.current and read.succession.current.open_at(late_at)) or ():
        assert key.stek in keys_at(adopted.held, OWN, late_at).opening


def test_a_renewal_seals_no_longer_than_those_who_miss_it_open_what_it_took() -> None:
    now_at = THREE.seals_until + HOUR
    renewal = renew(THREE, root=THREE.next, fresh=(stek(70), stek(71)), fence=9, now_at=now_at, terms=terms(now_at))
    missed = on(Held(window=THREE).heard(THREE.published_at + MINUTE), now_at)

    last_at = renewal.seals_until + T_MS - 1

    assert renewal.current.stek in keys_at(on(missed, last_at), OWN, last_at).opening


def test_both_ways_on_that_ended_with_a_rotation_are_gone_on_along_after_it() -> None:
    """Some went on along `current`, some along what `current` followed, until the same instant."""
    ended_at = THREE.current.steps_at
    twins = tuple(
        replace(THREE.current, name=key.name, stek=key, seals_from=THREE.published_at, seals_until=ended_at)
        for key in (stek(80), stek(81))
    )
    window = replace(THREE, previous=twins)

    assert {line.roots[0] for line in succession(window).others} == {key.name for key in twins}


def test_a_mended_copy_that_has_a_seed_again_shows_the_way_on_to_who_had_lost_it() -> None:
    """It came to the ring by an offer, from which the seed was gone; a leader that remembers it publishes anew."""
    late_at = THREE.current.opens_until
    offered = accept(THREE.at(late_at), None, NO_MEMORY, fresh=True, now_at=late_at)
    assert isinstance(offered, Adopt)
    held = on(offered.held, late_at)
    mended = replace(THREE, epoch=THREE.epoch + 1, ancestors=(THREE.digest, *THREE.ancestors), published_at=late_at)

    adopted = accept(mended, held, NO_MEMORY, fresh=True, now_at=late_at)

    assert isinstance(adopted, Adopt)
    assert held.succession is not None
    assert held.succession.current is None
    assert adopted.held.succession is not None
    assert adopted.held.succession.current == succession(THREE).current
