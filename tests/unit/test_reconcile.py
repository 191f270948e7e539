"""A node takes what is newer and whole, keeps what it cannot judge, and forgets only by an instant or a barrier."""

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyrotd.core.decide import NO_MEMORY, Memory
from keyrotd.core.keys import Keys
from keyrotd.core.mend import mend
from keyrotd.core.reconcile import Adopt, Footing, Held, Keep, Refuse, accept, footing, keys_at
from keyrotd.core.window import Window
from tests.unit.builders import HOUR, MINUTE, T0, first, names, reigned, revoked, rotated, stek, terms

OWN = (stek(900), stek(901))
ONE, TWO, THREE, FOUR = reigned(4)
NOW = FOUR.published_at + MINUTE


def memory_of(*windows: Window) -> Memory:
    memory = NO_MEMORY
    for window in windows:
        memory = memory.after(window)
    return memory


def open_names(held: Held, now_at: int) -> set[bytes]:
    return {key.name for key in keys_at(held, OWN, now_at).opening} - {key.name for key in OWN}


# Which window.


def test_a_newer_window_is_adopted_and_its_ancestor_let_go() -> None:
    assert accept(FOUR, Held(window=THREE), memory_of(THREE), fresh=False, now_at=NOW) == Adopt(
        Held(window=FOUR), fork=False
    )


def test_the_window_held_already_is_kept_even_when_its_seeds_have_faded() -> None:
    assert accept(FOUR, Held(window=FOUR.at(NOW + 20 * HOUR)), memory_of(FOUR), fresh=True, now_at=NOW) == Keep()


def test_an_older_window_is_refused() -> None:
    """Trace F7d: a store that went back in time changes nobody's keys."""
    assert accept(THREE, Held(window=FOUR), memory_of(FOUR), fresh=True, now_at=NOW) == Refuse("older epoch")


def test_a_window_below_the_floor_is_refused_even_by_a_node_that_holds_none() -> None:
    assert accept(THREE, None, memory_of(FOUR), fresh=True, now_at=NOW) == Refuse("older epoch")


def test_a_rebooted_node_takes_the_very_window_of_its_floor() -> None:
    assert accept(FOUR, None, memory_of(FOUR), fresh=True, now_at=NOW) == Adopt(Held(window=FOUR), fork=False)


def test_a_window_from_before_the_revoke_is_refused_however_high_its_epoch() -> None:
    """Trace F3: floors alone cannot see a leader that laundered the old window."""
    burnt = revoked(THREE, NOW, keys=(8, 9))
    laundered = rotated(rotated(FOUR, NOW), NOW + HOUR)
    assert laundered.epoch > burnt.epoch

    for held in (Held(window=burnt), None):
        assert accept(laundered, held, memory_of(burnt), fresh=True, now_at=NOW) == Refuse("below barrier")


def test_a_node_without_a_window_takes_none_that_is_not_fresh() -> None:
    """Trace F8."""
    assert accept(FOUR, None, NO_MEMORY, fresh=False, now_at=NOW) == Refuse("stale window")


def test_a_window_that_lacks_the_seed_of_a_live_key_is_refused() -> None:
    gutted = replace(FOUR, previous=tuple(replace(key, stek=None) for key in FOUR.previous))

    assert accept(gutted, Held(window=THREE), memory_of(THREE), fresh=True, now_at=NOW) == Refuse("incomplete")


def test_a_window_that_lacks_only_the_seeds_of_expired_keys_is_whole() -> None:
    late_at = FOUR.previous[-1].opens_until

    assert isinstance(accept(FOUR.at(late_at), Held(window=THREE), NO_MEMORY, fresh=True, now_at=late_at), Adopt)


# What stays open.


def test_a_fork_costs_no_live_key() -> None:
    """Trace F6: the surviving side is epochs ahead and knows nothing of the key that this node has just sealed with."""
    ours = rotated(THREE, NOW, key=80)
    theirs = rotated(rotated(FOUR, NOW + HOUR), NOW + 2 * HOUR)

    adopted = accept(theirs, Held(window=ours), memory_of(ours), fresh=True, now_at=NOW + 2 * HOUR)

    assert isinstance(adopted, Adopt)
    assert adopted.fork
    assert stek(80).name in open_names(adopted.held, NOW + 2 * HOUR)
    assert names(theirs) <= open_names(adopted.held, NOW + 2 * HOUR)


def test_a_stray_key_stays_through_later_windows_until_its_own_bound() -> None:
    ours = rotated(THREE, NOW, key=80)
    five = rotated(FOUR, NOW + HOUR, key=70)
    adopted = accept(five, Held(window=ours), memory_of(ours), fresh=True, now_at=NOW + HOUR)
    assert isinstance(adopted, Adopt)

    six = rotated(five, NOW + 2 * HOUR)
    later = accept(six, adopted.held, memory_of(five), fresh=True, now_at=NOW + 2 * HOUR)

    assert isinstance(later, Adopt)
    assert not later.fork
    assert stek(80).name in open_names(later.held, ours.next.opens_until - 1)
    assert stek(80).name not in open_names(later.held, ours.next.opens_until)


def test_a_mend_brings_a_stray_home() -> None:
    ours = rotated(THREE, NOW, key=80)
    theirs = rotated(FOUR, NOW + HOUR, key=70)
    adopted = accept(theirs, Held(window=ours), memory_of(ours), fresh=True, now_at=NOW + HOUR)
    assert isinstance(adopted, Adopt)

    now_terms = terms(NOW + HOUR)
    mended = mend(theirs, (ours,), epoch=6, fence=1, now_at=NOW + HOUR, terms=now_terms)
    home = accept(mended, adopted.held, memory_of(theirs), fresh=True, now_at=NOW + HOUR)

    assert home == Adopt(Held(window=mended), fork=False)
    assert stek(80).name in names(mended)


def test_only_a_higher_barrier_takes_a_key_before_its_time() -> None:
    burnt = revoked(FOUR, NOW, keys=(8, 9))
    ours = Held(window=rotated(THREE, NOW, key=80), strays=(TWO.current,))

    adopted = accept(burnt, ours, memory_of(ours.window), fresh=True, now_at=NOW)

    assert adopted == Adopt(Held(window=burnt), fork=True)


# Which keys.


def test_a_node_without_a_window_seals_with_keys_of_its_own() -> None:
    assert keys_at(None, OWN, NOW) == Keys(current=OWN[0], next=OWN[1])
    assert footing(None, NOW) is Footing.ISOLATED


def test_at_seals_until_a_node_goes_on_alone_and_opens_what_it_sealed() -> None:
    keys = keys_at(Held(window=FOUR), OWN, FOUR.seals_until)

    assert keys == Keys(
        current=OWN[0], next=stek(5), previous=(stek(4),), leaving=tuple(key.stek for key in FOUR.previous if key.stek)
    )
    assert keys_at(Held(window=FOUR), OWN, FOUR.seals_until - 1).current == stek(4)


def test_expired_keys_leave_and_are_named_for_a_ring_buffer_until_forgotten() -> None:
    late_at = FOUR.previous[0].opens_until
    held = Held(window=FOUR)
    assert footing(held, FOUR.seals_until - 1) is Footing.LED

    keys = keys_at(held, OWN, late_at)
    forgotten = keys_at(held.heard(NOW).at(late_at), OWN, late_at)

    assert stek(3) in keys.leaving
    assert stek(3) not in keys.opening
    assert forgotten.leaving == ()


def test_a_window_that_nobody_confirmed_keeps_the_seeds_that_a_ring_buffer_may_need() -> None:
    late_at = max(key.opens_until for key in FOUR.previous)
    five = rotated(FOUR, late_at - 1, key=6)
    held = Held(window=five)

    assert held.at(late_at).window == five
    assert held.at(five.seals_until).window == five.at(five.seals_until)


# What holds for every node.

worlds = st.lists(st.sampled_from(["on", "on", "on", "skip", "fork", "back", "revoke", "mend"]), max_size=14)
waits = st.integers(min_value=0, max_value=80 * HOUR)


def walked(story: list[str], gap_ms: int) -> list[tuple[Held | None, Memory, Window, int, Held | None, Memory]]:
    """A node's steps through a store that goes on, skips, forks, goes back, burns and mends."""
    stored, past, held, memory = first(), [first()], None, NO_MEMORY
    walk: list[tuple[Held | None, Memory, Window, int, Held | None, Memory]] = []
    for number, turn in enumerate(story):
        now_at = T0 + (number + 1) * gap_ms
        key = 1000 + 10 * number
        match turn:
            case "on":
                stored = rotated(stored, now_at, key=key, settled_at=now_at - gap_ms // 2)
            case "skip":
                stored = rotated(rotated(stored, now_at, key=key), now_at, key=key + 1)
            case "fork":
                stored = rotated(past[len(past) // 2], now_at, key=key)
            case "back":
                stored = past[-2] if len(past) > 1 else past[-1]
            case "revoke":
                stored = revoked(stored, now_at, keys=(key, key + 1))
            case _:
                best = max(past, key=lambda window: window.rank)
                others = tuple(window for window in past[-3:] if window.barrier >= best.barrier)
                stored = mend(best, others, epoch=best.epoch + 1, fence=1, now_at=now_at, terms=terms(now_at))
        past.append(stored)
        found = accept(stored, held, memory, fresh=True, now_at=now_at)
        after, memory_after = held, memory
        if isinstance(found, Adopt):
            after, memory_after = found.held.at(now_at), memory.after(found.held.window)
        walk.append((held, memory, stored, now_at, after, memory_after))
        held, memory = after, memory_after
    return walk


@settings(max_examples=50, deadline=None)
@given(worlds, st.integers(min_value=MINUTE, max_value=6 * HOUR))
def test_floor_barrier_and_rank_never_fall(story: list[str], gap_ms: int) -> None:
    for before, memory, _, _, after, memory_after in walked(story, gap_ms):
        assert memory_after.floor >= memory.floor
        assert memory_after.barrier >= memory.barrier
        if before is not None:
            assert after is not None
            assert after.window.rank >= before.window.rank
            assert after.window.epoch >= before.window.epoch


@settings(max_examples=50, deadline=None)
@given(worlds, st.integers(min_value=MINUTE, max_value=6 * HOUR))
def test_what_is_open_stays_open_unless_a_barrier_or_the_ancestry_says_otherwise(story: list[str], gap_ms: int) -> None:
    for before, _, seen, now_at, after, _ in walked(story, gap_ms):
        if before is None or after is None or seen.barrier > before.window.barrier:
            continue
        lost = open_names(before, now_at) - open_names(after, now_at)
        if lost:
            # The leader knew the window that held them, and says that no ticket lives under them any more.
            assert after.window.digest == seen.digest
            assert before.window.digest in seen.ancestors or lost <= names(seen)


@settings(max_examples=50, deadline=None)
@given(worlds, st.integers(min_value=MINUTE, max_value=6 * HOUR))
def test_no_key_from_below_the_barrier_is_ever_held_again(story: list[str], gap_ms: int) -> None:
    for _, _, _, _, after, memory in walked(story, gap_ms):
        if after is not None:
            assert all(key.born >= memory.barrier for key in (*after.window.all, *after.strays))


@settings(max_examples=50, deadline=None)
@given(worlds, st.integers(min_value=MINUTE, max_value=6 * HOUR), waits)
def test_no_expired_key_opens_and_no_shared_key_seals_past_its_instant(
    story: list[str], gap_ms: int, later_ms: int
) -> None:
    """G3 on a node: whatever the store did, and whether or not anybody is there."""
    walk = walked(story, gap_ms)
    assume(walk)
    held, now_at = walk[-1][4], walk[-1][3] + later_ms
    keys = keys_at(held, OWN, now_at)

    bounds = {} if held is None else {key.name: key for key in (*held.strays, *held.window.all)}
    for opening in keys.opening:
        assert opening in OWN or bounds[opening.name].open_at(now_at)
    for leaving in keys.leaving:
        assert not bounds[leaving.name].open_at(now_at)
    assert len({key.name for key in keys.opening}) == len(keys.opening)
    assert (keys.current == OWN[0]) == (footing(held, now_at) is Footing.ISOLATED)
    if keys.current not in OWN:
        seals_until = bounds[keys.current.name].seals_until
        assert seals_until is not None
        assert now_at < seals_until
