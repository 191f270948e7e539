"""What the leader does next: mend, then burn, then move on, and nothing rotates before everyone shows what stands."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.core.decide import (
    MAX_FLOOR_JUMP,
    Bootstrap,
    Decision,
    Decline,
    Hold,
    Memory,
    Mend,
    Renew,
    Revoke,
    Rotate,
    Seen,
    View,
    acknowledged,
    decide,
    free_from,
    judge_gate,
    live,
    owes,
    verdict,
)
from keyrotd.core.messages import Goal, NodeState, Report
from keyrotd.core.policy import Interval, Policy, impossible
from keyrotd.core.succession import succession
from keyrotd.core.window import MAX_ANCESTORS, MAX_KEYS, Window
from tests.unit.builders import (
    DAY,
    HOUR,
    MINUTE,
    POLICY,
    SECOND,
    T0,
    Daily,
    chance,
    enact,
    first,
    in_step,
    names,
    policy,
    reigned,
    report,
    request,
    revoked,
    rotated,
    seen,
    view,
)

ONE, TWO, THREE, FOUR = reigned(4)
DUE = THREE.published_at + 4 * HOUR
LATEST = THREE.seals_until - 2 * SECOND


# When keys move on.


def test_a_rotation_waits_for_its_instant_and_then_happens() -> None:
    early = view(THREE, in_step(THREE, DUE - 1), remembered=THREE)
    due = view(THREE, in_step(THREE, DUE), remembered=THREE)

    assert decide(early, POLICY, DUE - 1) == Hold("not due", DUE)
    assert decide(due, POLICY, DUE) == Rotate("due")


def test_one_live_node_that_shows_another_window_holds_the_rotation() -> None:
    late = seen(report("d", TWO, floor=3), DUE, behind_since=DUE - MINUTE)
    nodes = [*in_step(THREE, DUE, "abc"), late]

    decision = decide(view(THREE, nodes, remembered=THREE), POLICY, DUE)

    assert decision == Hold("waiting for d", DUE - MINUTE + 30 * MINUTE)


def test_the_gate_compares_windows_and_not_epochs() -> None:
    """Trace F4: a forgetful leader published another window 4; two nodes still show the one that was lost."""
    stands = rotated(THREE, DUE + MINUTE, key=60)
    lost = FOUR
    now_at = stands.published_at + 5 * MINUTE
    ours = in_step(stands, now_at, "a")
    theirs = [seen(report(node, lost), now_at, behind_since=stands.published_at) for node in "bc"]
    asked = request(past_epoch=4, made_at=now_at)

    held = decide(view(stands, [*ours, *theirs], remembered=stands, requests=[asked]), POLICY, now_at)
    mended = decide(view(stands, [*ours, *theirs], remembered=stands, offers=[lost]), POLICY, now_at)

    assert held == Hold("waiting for b, c", stands.published_at + 30 * MINUTE)
    assert isinstance(mended, Mend)
    assert {mended.base.digest, *(other.digest for other in mended.others)} == {stands.digest, lost.digest}


@pytest.mark.parametrize(
    "word",
    [
        report("d", THREE, state=NodeState.JOINING),
        report("d", THREE, state=NodeState.DRIFT),
        report("d", THREE, state=NodeState.BEHIND),
        report("d", FOUR, read_back=THREE, floor=3),
        report("d", None),
    ],
    ids=["joining", "drift", "behind", "holds newer", "holds nothing"],
)
def test_a_node_that_joins_drifts_or_holds_newer_is_live_and_not_acknowledged(word: Report) -> None:
    """Trace F18."""
    nodes = [*in_step(THREE, DUE, "abc"), seen(word, DUE, behind_since=DUE)]

    decision = decide(view(THREE, nodes, remembered=THREE), POLICY, DUE)

    assert decision == Hold("waiting for d", DUE + 30 * MINUTE)


def test_a_node_that_went_on_alone_acknowledges_what_it_shows() -> None:
    """Its `next` opens like everyone's; were it waited for, an outage would last until it is overdue."""
    node = seen(report("a", THREE, state=NodeState.ISOLATED), DUE)

    assert acknowledged(node, THREE)


def test_a_silent_node_is_not_waited_for() -> None:
    gone = seen(report("d", TWO), DUE - 30 * SECOND, behind_since=DUE - MINUTE)

    assert decide(view(THREE, [*in_step(THREE, DUE), gone], remembered=THREE), POLICY, DUE) == Rotate("due")


def test_an_overdue_node_is_named_and_no_longer_waited_for() -> None:
    """Trace F13."""
    late = seen(report("d", TWO, floor=3), DUE, behind_since=DUE - 30 * MINUTE)
    nodes = [*in_step(THREE, DUE, "abc"), late]

    assert decide(view(THREE, nodes, remembered=THREE), POLICY, DUE) == Rotate("due", overdue=("d",))


def test_in_the_last_two_ticks_nobody_is_waited_for() -> None:
    """Trace F9: no hold outlasts the instant at which every healthy node would stop sealing."""
    late = seen(report("d", TWO, floor=3, slots=3), LATEST, behind_since=LATEST)
    nodes = [*in_step(THREE, LATEST, "abc"), late]
    stuck = view(THREE, nodes, remembered=THREE, durable=False)

    assert isinstance(decide(stuck, POLICY, LATEST - 1), Hold)
    assert decide(stuck, POLICY, LATEST) == Rotate("due; current may not seal for longer", overdue=("d",))


def test_a_window_that_too_few_replicas_have_holds_until_the_last_two_ticks() -> None:
    """Trace F15."""
    nodes = in_step(THREE, DUE)
    stuck = view(THREE, nodes, remembered=THREE, durable=False)

    assert decide(stuck, POLICY, DUE) == Hold("too few replicas have the window", LATEST)


def test_two_publishes_are_two_polls_of_the_slowest_node_apart() -> None:
    """Trace F18: a node must not fall two windows behind while it is well."""
    now_at = THREE.published_at
    nodes = [*in_step(THREE, now_at, "abc"), seen(report("d", THREE, poll_interval_ms=20 * SECOND), now_at)]
    asked = request(past_epoch=3, made_at=now_at)
    spaced_at = now_at + 44 * SECOND + SECOND

    def at(instant: int) -> object:
        fresh = [replace(node, seen_at=instant) for node in nodes]
        return decide(view(THREE, fresh, remembered=THREE, requests=[asked]), POLICY, instant)

    assert at(spaced_at - 1) == Hold("the last publish is too fresh for the slowest node", spaced_at)
    assert at(spaced_at) == Rotate("drill")


def test_a_node_that_claims_to_poll_once_a_century_does_not_stop_the_keys() -> None:
    liar = seen(report("d", THREE, poll_interval_ms=10**13), LATEST)

    assert isinstance(decide(view(THREE, [liar], remembered=THREE), POLICY, LATEST), Rotate)


def test_a_schedule_that_was_lengthened_does_not_let_current_run_out() -> None:
    longer = policy(Interval(12 * HOUR), max_seal_age_ms=24 * HOUR)
    due_at = THREE.seals_until - longer.overdue_after_ms - longer.eps_ms

    assert decide(view(THREE, in_step(THREE, due_at), remembered=THREE), longer, due_at) == Rotate("due")


_WENT_ON = "the fleet went on without a leader"


def stepped(seen_by: View, now_at: int) -> View:
    """All that was reported is of now."""
    nodes = (replace(node, seen_at=now_at, report=replace(node.report, reported_at=now_at)) for node in seen_by.nodes)
    return replace(seen_by, nodes=tuple(nodes))


def test_once_current_may_no_longer_seal_nodes_are_taken_up_along_next_where_it_is_everywhere() -> None:
    ended_at = THREE.seals_until
    ready_at = ended_at + THREE.eps_ms
    settled = view(THREE, in_step(THREE, ended_at), remembered=THREE, settled_at=THREE.published_at + MINUTE)
    unsettled = replace(settled, settled_at=None)

    assert decide(settled, POLICY, ended_at) == Hold("nodes have just gone a step of succession", ready_at)
    ready_at += THREE.eps_ms // 1000  # what clocks part meanwhile
    assert decide(stepped(settled, ready_at), POLICY, ready_at) == Renew(_WENT_ON, THREE.next)
    assert decide(stepped(unsettled, ready_at), POLICY, ready_at) == Renew(_WENT_ON, THREE.current)


def test_nodes_are_taken_up_along_what_they_say_that_they_went_on_along() -> None:
    """Once the window was mended, its leader hears only after its end that it is everywhere: that tells nothing."""
    ready_at = THREE.seals_until + THREE.eps_ms + THREE.eps_ms // 1000

    def at(settled_at: int | None, *told: bytes | None) -> Decision:
        nodes = in_step(THREE, ready_at, "abcd"[: len(told)])
        said = [
            replace(node, report=replace(node.report, along=way, reported_at=ready_at))
            for node, way in zip(nodes, told, strict=True)
        ]
        return decide(view(THREE, said, remembered=THREE, settled_at=settled_at), POLICY, ready_at)

    early_at, late_at, lost = THREE.published_at + MINUTE, THREE.seals_until, b"a key of no window"
    current, following = THREE.current.name, THREE.next.name
    assert at(late_at, None, None) == Renew(_WENT_ON, THREE.current)
    assert at(late_at, following, following) == Renew(_WENT_ON, THREE.next)
    assert at(early_at, current, current, following) == Renew(_WENT_ON, THREE.current)
    assert at(early_at, lost, None) == Renew(_WENT_ON, THREE.next)


def test_nobody_holds_the_renewal_by_naming_another_way_with_every_step() -> None:
    """Whoever was asked for earlier has followers on two grids; a node would always have just gone a step on one."""
    early = rotated(TWO, TWO.published_at + 2 * HOUR)
    assert early.current.steps_at % early.next.step_ms != early.next.steps_at % early.next.step_ms
    acts = []

    for minute in range(0, 3 * 4 * 60, 10):
        now_at = early.seals_until + minute * MINUTE
        ways = (early.current, early.next)
        just = min(ways, key=lambda key: (now_at - key.steps_at) % key.step_ms).name
        liars = [replace(report(node, early, slots=3), along=just, reported_at=now_at) for node in "lmno"]
        nodes = [seen(said, now_at) for said in (replace(report("a", early), reported_at=now_at), *liars)]
        acts.append(decide(view(early, nodes, remembered=early), POLICY, now_at))

    assert any(isinstance(act, Renew) for act in acts[: 2 * 4 * 6])


def test_what_is_taken_up_is_what_the_decision_went_by_where_a_seed_is_lost() -> None:
    """Nodes say `current`, whose seed the store has forgotten: bounds and instants are those of `next` then."""
    tight = policy(max_seal_age_ms=5 * HOUR)
    _, two = reigned(2, rules=tight)
    early = rotated(two, two.published_at + HOUR, rules=tight)
    lost = early.at(early.current.opens_until)
    assert (lost.current.stek is None, lost.next.stek is None) == (True, False)
    told = [replace(report(node, lost), along=lost.current.name) for node in "abc"]
    made = []

    for now_at in range(early.current.opens_until, early.next.opens_until, 5 * MINUTE):
        shown = view(lost, [seen(replace(said, reported_at=now_at), now_at) for said in told], remembered=lost)
        window = enact(decide(shown, tight, now_at), shown, tight, now_at, chance(9))
        followers = {key.name for key in succession(lost).open_at(now_at)}
        made += [] if window is None else [(window.seals_until - now_at, window.current.name in followers)]

    assert made
    assert all(seals_ms <= tight.max_seal_age_ms and follows for seals_ms, follows in made)


def test_where_no_seed_is_left_the_renewal_comes_whatever_the_bounds() -> None:
    """What comes then follows nothing: it need not fit into the rest of anybody's step."""
    tight = policy(max_seal_age_ms=4 * HOUR + 30 * MINUTE, overdue_after_ms=29 * MINUTE)
    assert not list(impossible(tight, slots=None, notice_delay_ms=0))
    _, two = reigned(2, rules=tight)
    lost = two.at(two.next.opens_until)
    acts = []

    for minute in range(4 * 60):
        now_at = two.next.opens_until + minute * MINUTE
        nodes = [seen(replace(report(node, lost), reported_at=now_at), now_at) for node in "abc"]
        acts.append(decide(view(lost, nodes, remembered=lost), tight, now_at))

    assert any(isinstance(act, Renew) for act in acts)


def test_the_renewal_waits_for_nodes_whose_servers_have_not_gone_the_step() -> None:
    """One that is frozen, or whose server refuses, does not open yet what would be `current`."""
    now_at = THREE.seals_until + 5 * MINUTE
    nodes = stepped(view(THREE, in_step(THREE, now_at, "abc"), settled_at=THREE.published_at + MINUTE), now_at).nodes
    frozen = seen(replace(report("d", THREE), reported_at=THREE.seals_until - 1), now_at - SECOND)
    refused = seen(report("e", TWO), now_at, behind_since=now_at - 20 * MINUTE)
    overdue_at = now_at - 20 * MINUTE + POLICY.overdue_after_ms

    def at(instant: int, *others: Seen) -> Decision:
        fresh = [replace(node, seen_at=instant) for node in nodes]
        standing = view(THREE, [*fresh, *others], remembered=THREE, settled_at=THREE.published_at + MINUTE)
        return decide(standing, POLICY, instant)

    gone_at = frozen.seen_at + POLICY.node_ttl_ms
    assert at(now_at, frozen) == Hold("waiting for d to go a step of succession", gone_at)
    assert at(gone_at, frozen) == Renew(_WENT_ON, THREE.next)
    assert at(now_at, refused) == Hold("waiting for e to go a step of succession", overdue_at)
    assert at(overdue_at, replace(refused, seen_at=overdue_at)) == Renew(_WENT_ON, THREE.next, overdue=("e",))


def test_no_node_that_says_it_is_slow_holds_the_renewal_for_longer_than_a_step() -> None:
    now_at = THREE.seals_until + 4 * HOUR - 2 * POLICY.tick_interval_ms
    liar = seen(replace(report("d", THREE), reported_at=T0), now_at)

    assert decide(view(THREE, [liar], remembered=THREE), POLICY, now_at) == Renew(
        _WENT_ON, THREE.current, overdue=("d",)
    )


def test_keys_that_nobody_expects_are_not_published_shortly_before_a_step() -> None:
    """Until all have them, nodes seal with what followed so far: that must not end meanwhile."""
    lost = THREE.at(THREE.next.opens_until)
    step_at = THREE.current.steps_at + 4 * lost.current.step_ms
    late_at = step_at - MINUTE
    early_at = step_at - 2 * HOUR

    nodes = stepped(view(lost, in_step(lost, late_at)), late_at).nodes
    assert decide(view(lost, nodes, remembered=lost), POLICY, late_at) == Hold(
        "nodes are about to go a step of succession", step_at
    )
    nodes = stepped(view(lost, in_step(lost, early_at)), early_at).nodes
    assert decide(view(lost, nodes, remembered=lost), POLICY, early_at) == Renew(_WENT_ON, lost.current)


def test_after_max_stranded_nobody_can_be_taken_up_where_he_is() -> None:
    late_at = THREE.seals_until + THREE.max_stranded_ms

    found = decide(view(THREE, in_step(THREE, late_at), remembered=THREE), POLICY, late_at)

    assert found == Renew("the fleet was without a leader for too long", None)


def test_no_node_at_all_has_shown_nothing_so_no_previous_key_may_leave_early() -> None:
    """The whole fleet may be cut off from the store and go on sealing with what is now previous (G1, in step)."""
    silent = [seen(report("a", TWO), T0)]

    assert not judge_gate(THREE, silent, POLICY, DUE).settled
    assert not judge_gate(THREE, (), POLICY, DUE).settled
    assert judge_gate(THREE, in_step(THREE, DUE), POLICY, DUE).settled


def test_nodes_out_of_step_by_definition_do_not_keep_the_previous_key() -> None:
    """Three slots count on it: a server that is broken for good must not hold every rotation of the others."""
    broken = seen(report("d", TWO), DUE, behind_since=THREE.published_at)
    gate = judge_gate(THREE, [*in_step(THREE, DUE, "abc"), broken], POLICY, DUE)

    assert (gate.settled, gate.confirmed, gate.overdue) == (True, False, ("d",))


# What operators ask for.


def test_a_request_rotates_now_and_its_replay_finds_the_goal_reached() -> None:
    now_at = THREE.published_at + HOUR
    asked = request(past_epoch=3, made_at=now_at)
    before = view(THREE, in_step(THREE, now_at), remembered=THREE, requests=[asked])

    decision = decide(before, POLICY, now_at)
    after = enact(decision, before, POLICY, now_at, chance())

    assert decision == Rotate("drill")
    assert after is not None
    assert verdict(asked, after, now_at + SECOND) == "reached"
    again_at = now_at + 5 * MINUTE
    again = view(after, in_step(after, again_at), remembered=after, requests=[asked])
    assert decide(again, POLICY, again_at) == Hold("not due", now_at + 4 * HOUR)


def test_a_mend_raises_the_epoch_and_does_not_pass_for_the_rotation_that_was_asked_for() -> None:
    now_at = FOUR.published_at + HOUR
    asked = request(past_epoch=4, made_at=now_at)
    lost = view(FOUR, in_step(FOUR, now_at), remembered=FOUR, offers=[rotated(THREE, DUE, key=70)])

    mended = enact(decide(lost, POLICY, now_at), lost, POLICY, now_at, chance())

    assert mended is not None
    assert mended.epoch == 5
    assert verdict(asked, mended, now_at) == "pending"
    assert verdict(asked, rotated(mended, now_at + MINUTE), now_at + MINUTE) == "reached"


def test_a_request_is_void_after_ten_minutes_or_long_before_it_was_made() -> None:
    asked = request(past_epoch=3, made_at=T0)

    assert verdict(asked, THREE, T0 + 10 * MINUTE - 1) == "pending"
    assert verdict(asked, THREE, T0 + 10 * MINUTE) == "expired"
    assert verdict(asked, THREE, T0 - 10 * MINUTE - 1) == "future"


def test_revoke_waits_for_no_gate_and_the_next_rotation_does() -> None:
    """Trace F19."""
    now_at = THREE.published_at + SECOND
    behind = [seen(report(node, TWO), now_at, behind_since=now_at) for node in "abcd"]
    asked = request(Goal.REVOKE, past_epoch=3, made_at=now_at)
    burning = view(THREE, behind, remembered=THREE, requests=[asked], durable=False)

    decision = decide(burning, POLICY, now_at)
    burnt = enact(decision, burning, POLICY, now_at, chance())

    assert decision == Revoke(asked)
    assert burnt is not None
    assert verdict(asked, burnt, now_at) == "reached"
    later_at = now_at + MINUTE
    still = [seen(report(node, TWO), later_at, behind_since=now_at) for node in "abcd"]
    again = request(past_epoch=4, made_at=later_at)
    found = decide(view(burnt, still, remembered=burnt, requests=[asked, again]), POLICY, later_at)
    assert found == Hold("waiting for a, b, c, d", now_at + 30 * MINUTE)


def test_revoke_comes_before_any_rotation_that_was_asked_for() -> None:
    rotation, burn = request(past_epoch=3, made_at=DUE), request(Goal.REVOKE, past_epoch=3, made_at=DUE)

    assert decide(view(THREE, in_step(THREE, DUE), requests=[rotation, burn]), POLICY, DUE) == Revoke(burn)


def test_a_compromised_node_cannot_put_off_its_own_revoke() -> None:
    """It raises its floor with every report, and whatever fork it has seen is offered anew."""
    now_at = THREE.published_at + HOUR
    asked = request(Goal.REVOKE, past_epoch=3, made_at=now_at)
    window, floor = THREE, 100
    for _ in range(3):
        liar = seen(report("d", TWO, floor=floor), now_at, behind_since=now_at)
        fork = rotated(TWO, DUE, key=70)
        lies = view(window, [*in_step(window, now_at, "abc"), liar], remembered=window, offers=[fork], requests=[asked])
        decision = decide(lies, POLICY, now_at)
        if isinstance(decision, Revoke):
            return
        window = enact(decision, lies, POLICY, now_at, chance(floor)) or window
        now_at, floor = now_at + SECOND, window.epoch + 50
    pytest.fail("never revoked")


# Three slots.


def test_a_rotation_by_hand_that_would_drop_a_live_key_is_declined_with_the_instant() -> None:
    """Trace F16: on three slots there is room for one previous key."""
    settled_at = THREE.published_at + MINUTE
    now_at = THREE.published_at + HOUR
    asked = request(past_epoch=3, made_at=now_at)
    nodes = in_step(THREE, now_at, slots=3)

    declined = decide(view(THREE, nodes, remembered=THREE, requests=[asked], settled_at=settled_at), POLICY, now_at)

    free_at = settled_at + POLICY.ticket_lifetime_ms + POLICY.eps_ms
    reason = "a server has too few slots: a key whose tickets still live would be dropped"
    assert declined == Decline(asked, reason, free_at)
    later = view(
        THREE,
        in_step(THREE, free_at, slots=3),
        remembered=THREE,
        requests=[replace(asked, made_at=free_at)],
        settled_at=settled_at,
    )
    assert decide(later, POLICY, free_at) == Rotate("drill")


def test_who_insists_drops_live_keys() -> None:
    now_at = THREE.published_at + HOUR
    asked = request(past_epoch=3, made_at=now_at, drop_live_keys=True)
    nodes = in_step(THREE, now_at, slots=3)

    assert decide(view(THREE, nodes, remembered=THREE, requests=[asked]), POLICY, now_at) == Rotate("drill")


def test_whoever_keeps_asking_does_not_outlast_the_sealing_key() -> None:
    asked = request(past_epoch=3, made_at=LATEST)
    nodes = in_step(THREE, LATEST, slots=2)
    assert free_from(THREE, 2, None, POLICY.eps_ms, LATEST) is not None

    assert isinstance(decide(view(THREE, nodes, remembered=THREE, requests=[asked]), POLICY, LATEST), Rotate)


def test_even_without_slots_a_window_holds_only_so_many_live_keys() -> None:
    window = ONE
    for number in range(MAX_KEYS):
        window = rotated(window, T0 + number * 20 * SECOND)
    now_at = window.published_at + MINUTE
    asked = request(past_epoch=window.epoch, made_at=now_at)

    assert isinstance(
        decide(view(window, in_step(window, now_at), remembered=window, requests=[asked]), POLICY, now_at), Decline
    )


# What a store may lose.


def test_an_empty_store_and_a_young_fleet_get_a_first_window_when_everyone_has_spoken() -> None:
    speak_until = T0 + POLICY.speak_ms

    held = decide(view(None, speak_until=speak_until), POLICY, speak_until - 1)

    assert held == Hold("the store has no window; letting every node speak", speak_until)
    assert decide(view(None, speak_until=speak_until), POLICY, speak_until) == Bootstrap(1, 0)


def test_a_rebooted_fleet_behind_an_emptied_store_is_not_locked_out_by_its_own_floors() -> None:
    """Trace F7a: nobody has a window, everyone's floor is 5."""
    nodes = [seen(report(node, None, floor=5, barrier=2), DUE) for node in "abcd"]

    assert decide(view(None, nodes), POLICY, DUE) == Bootstrap(6, 2)


def test_the_newest_offer_wins_and_not_the_first() -> None:
    """Trace F7b: the stale node spoke first."""
    nodes = [*in_step(FOUR, FOUR.published_at, "bcd"), seen(report("a", TWO), FOUR.published_at)]
    early = view(None, nodes, offers=[TWO], speak_until=FOUR.published_at + MINUTE)
    full = view(None, nodes, offers=[TWO, FOUR])

    assert isinstance(decide(early, POLICY, FOUR.published_at), Hold)
    assert decide(full, POLICY, FOUR.published_at) == Mend(FOUR, (), 5, "the store lost windows")


def test_a_leader_signs_nothing_at_or_below_what_it_signed_before() -> None:
    """Its publish was lost on the way to the store: not even a revoke may reuse the epoch."""
    now_at = FOUR.published_at + SECOND
    asked = request(Goal.REVOKE, past_epoch=4, made_at=now_at)
    memory = Memory(floor=6, barrier=0)

    decision = decide(
        view(FOUR, in_step(FOUR, now_at), remembered=FOUR, memory=memory, requests=[asked]), POLICY, now_at
    )

    assert decision == Mend(FOUR, (), 7, "the store lost windows")


def test_while_a_live_node_holds_what_it_has_not_offered_nothing_is_published() -> None:
    """Trace F7c: above all not with the epoch raised over its floor."""
    now_at = FOUR.published_at + MINUTE
    nodes = [seen(report("a", FOUR), now_at, behind_since=now_at), *in_step(TWO, now_at, "b")]
    words = "a hold a window that they have not offered yet"

    until = now_at + POLICY.overdue_after_ms

    assert decide(view(None, nodes, offers=[TWO], speak_until=now_at), POLICY, now_at) == Hold(words, until)
    assert decide(view(TWO, nodes, speak_until=now_at), POLICY, now_at) == Hold(words, until)
    assert decide(view(TWO, nodes, remembered=TWO, stood_at=now_at), POLICY, now_at) == Hold(words, until)


def test_a_node_that_never_offers_what_it_claims_to_hold_does_not_keep_the_ring_without_a_window() -> None:
    """While no window stands, nobody is behind one; the wait must end all the same."""
    speak_until = T0 + POLICY.speak_ms
    end_at = speak_until + POLICY.overdue_after_ms
    liar = report("d", None, holds="f" * 64, counter=9)

    assert isinstance(decide(view(None, [seen(liar, end_at - 1)], speak_until=speak_until), POLICY, end_at - 1), Hold)
    assert decide(view(None, [seen(liar, end_at)], speak_until=speak_until), POLICY, end_at) == Bootstrap(1, 0)


def test_nodes_that_are_made_up_one_after_the_other_share_one_bound() -> None:
    """Whoever has a KEK may speak as any node of its ring: a new name every second must not hold a mend for ever."""
    stood_at = FOUR.published_at + MINUTE
    end_at = stood_at + POLICY.overdue_after_ms
    made_up = seen(replace(report("z", FOUR), holds="f" * 64), end_at, behind_since=end_at)
    lost = view(TWO, [*in_step(THREE, end_at), made_up], remembered=THREE, stood_at=stood_at)

    assert decide(lost, POLICY, end_at) == Mend(THREE, (), 5, "the store lost windows")
    assert isinstance(decide(lost, POLICY, end_at - 1), Hold)


def test_own_memory_ends_the_speak_time() -> None:
    now_at = FOUR.published_at + MINUTE
    nodes = in_step(FOUR, now_at)

    decision = decide(view(None, nodes, remembered=FOUR, speak_until=now_at + HOUR), POLICY, now_at)

    assert decision == Mend(FOUR, (), 5, "the store lost windows")


def test_a_store_that_went_back_is_mended_above_everything() -> None:
    now_at = FOUR.published_at + MINUTE

    decision = decide(view(THREE, in_step(FOUR, now_at), offers=[FOUR]), POLICY, now_at)

    assert decision == Mend(FOUR, (), 5, "the store lost windows")


def test_what_a_revoke_burnt_is_never_built_upon() -> None:
    """Trace F3: the owner of the store puts the window of before the revoke back, as window and as offer."""
    now_at = THREE.published_at + HOUR
    burnt = revoked(THREE, now_at, keys=(8, 9))
    memory = Memory(floor=4, barrier=4)

    forgetful = decide(view(THREE, memory=memory, offers=[TWO, THREE]), POLICY, now_at + MINUTE)
    offered = decide(view(THREE, offers=[burnt], memory=memory), POLICY, now_at + MINUTE)
    replayed = decide(view(burnt, offers=[THREE], remembered=burnt), POLICY, now_at + MINUTE)

    assert forgetful == Bootstrap(5, 4)
    assert offered == Mend(burnt, (), 5, "the store lost windows")
    assert isinstance(replayed, Hold)


def test_a_revoke_whose_publish_was_lost_is_finished_at_once() -> None:
    """Memory is written first: it knows of the barrier, the store and every node do not."""
    now_at = THREE.published_at + HOUR
    asked = request(Goal.REVOKE, past_epoch=3, made_at=now_at)
    half = view(THREE, in_step(THREE, now_at), remembered=THREE, memory=Memory(floor=4, barrier=4), requests=[asked])

    decision = decide(half, POLICY, now_at)

    assert decision == Bootstrap(5, 4)


def test_a_window_without_the_seed_of_a_live_key_is_not_built_upon() -> None:
    """Seeds stand outside the signature, committed by hash: the owner of the store can leave one out."""
    gutted = replace(FOUR, next=replace(FOUR.next, stek=None))
    now_at = FOUR.published_at + 4 * HOUR

    assert gutted.digest == FOUR.digest
    assert decide(view(gutted, remembered=FOUR), POLICY, now_at) == Mend(FOUR, (), 5, "the store lost windows")
    assert decide(view(gutted, offers=[THREE]), POLICY, now_at) == Mend(THREE, (), 5, "the store lost windows")


def test_a_window_whose_expired_keys_were_forgotten_is_built_upon() -> None:
    late_at = FOUR.current.opens_until

    assert isinstance(decide(view(FOUR.at(late_at), remembered=FOUR), POLICY, late_at), Renew)


# Lies.


def test_a_floor_is_believed_up_to_a_jump_that_no_fleet_makes() -> None:
    def told(floor: int) -> object:
        nodes = [*in_step(FOUR, DUE + HOUR, "abc"), seen(report("d", None, floor=floor), DUE + HOUR)]
        return decide(view(FOUR, nodes, remembered=FOUR), POLICY, DUE + HOUR)

    assert told(9) == Mend(FOUR, (), 10, "the store lost windows")
    assert told(4 + MAX_FLOOR_JUMP) == Mend(FOUR, (), 4 + MAX_FLOOR_JUMP + 1, "the store lost windows")
    assert told(4 + MAX_FLOOR_JUMP + 1) == Hold("not due", FOUR.published_at + 4 * HOUR)


def test_a_barrier_is_believed_only_from_whom_the_floor_is() -> None:
    liar = seen(report("d", None, floor=MAX_FLOOR_JUMP + 5, barrier=MAX_FLOOR_JUMP), DUE)

    decision = decide(view(None, [liar]), POLICY, DUE)

    assert decision == Bootstrap(1, 0)
    assert enact(decision, view(None), POLICY, DUE, chance()) is not None


def test_a_node_that_raises_its_floor_for_ever_cannot_keep_the_keys_from_moving_on() -> None:
    """Tick by tick: the lie is believed again as soon as it may be, and yet current is replaced in time."""
    window, publishes = THREE, 0
    now_at = THREE.seals_until - 3 * MINUTE
    while now_at < THREE.seals_until:
        liar = seen(report("d", None, floor=window.epoch + 3), now_at, behind_since=window.published_at)
        lies = view(window, [*in_step(window, now_at, "abc"), liar], remembered=window)
        decision = decide(lies, POLICY, now_at)
        if isinstance(decision, Rotate):
            break
        made = enact(decision, lies, POLICY, now_at, chance(now_at))
        publishes += made is not None
        window = made or window
        now_at += SECOND

    assert now_at < THREE.seals_until
    assert publishes <= 3 * MINUTE // POLICY.spacing_ms + 1


def test_after_an_outage_a_lying_floor_costs_one_publish_and_then_the_keys_move_on() -> None:
    now_at, window, acts = THREE.seals_until + HOUR, THREE, []
    for _ in range(60):
        liar = seen(report("d", None, floor=window.epoch + 3), now_at, behind_since=now_at - HOUR)
        lies = view(window, [*in_step(window, now_at, "abc"), liar], remembered=window)
        decision = decide(lies, POLICY, now_at)
        made = enact(decision, lies, POLICY, now_at, chance(now_at))
        if made is not None:
            acts.append(type(decision).__name__)
            window = made
        if acts[-1:] == ["Renew"]:
            break
        now_at += SECOND

    assert acts == ["Mend", "Renew"]


# Whole lives.


class Fleet:
    """A leader and its nodes as pure functions: every node installs what it polls, and its word arrives next tick."""

    def __init__(self, rules: Policy, nodes: int, slots: int | None) -> None:
        self.rules, self.slots = rules, slots
        self.window = first(rules=rules)
        self.holds = dict.fromkeys((f"n{number}" for number in range(nodes)), self.window)
        self.behind: dict[str, int] = {}
        self.deaf: set[str] = set()
        self.dead: dict[str, int] = {}
        self.settled_at: int | None = None
        self.ticks = 0
        self.rotated_at: list[int] = []
        self.held: dict[str, int] = {}
        self.dropped: list[tuple[int, bytes]] = []
        self._rand = chance(99)

    def tick(self, now_at: int, rng: int) -> None:
        self.ticks += 1
        self._poll(rng)
        nodes = [self._seen(name, now_at) for name in self.holds]
        gate = judge_gate(self.window, nodes, self.rules, now_at)
        if gate.settled and self.settled_at is None:
            self.settled_at = now_at
        seen_by = view(self.window, nodes, remembered=self.window, settled_at=self.settled_at)
        decision = decide(seen_by, self.rules, now_at)
        if isinstance(decision, Hold):
            assert decision.reason
            self.held[decision.reason] = self.held.get(decision.reason, 0) + 1
        made = enact(decision, seen_by, self.rules, now_at, self._rand)
        if made is not None:
            assert isinstance(decision, Rotate)
            self._count_drops(made, now_at)
            self.window, self.settled_at = made, None
            self.rotated_at.append(now_at)
            self.behind = dict.fromkeys(self.holds, now_at)

    def _poll(self, rng: int) -> None:
        for index, name in enumerate(self.holds):
            polls = (self.ticks + index + rng) % 3 == 0
            if polls and name not in self.deaf and name not in self.dead:
                self.holds[name] = self.window

    def _seen(self, name: str, now_at: int) -> Seen:
        word = report(name, self.holds[name], slots=self.slots, floor=self.holds[name].epoch)
        node = seen(word, self.dead.get(name, now_at))
        if acknowledged(node, self.window):
            self.behind.pop(name, None)
            return node
        return replace(node, behind_since=self.behind.setdefault(name, now_at))

    def _count_drops(self, made: Window, now_at: int) -> None:
        """Note every key that a server of few slots gives up although a node in step may have sealed live tickets."""
        room = (len(made.all) if self.slots is None else self.slots) - 2
        self.dropped += [
            (now_at, key.name) for key in made.previous[room:] if key.seals_until is not None and key.open_at(now_at)
        ]


def run(fleet: Fleet, rotations: int, *, step_ms: int = 30 * SECOND) -> None:
    now_at = T0
    while len(fleet.rotated_at) < rotations:
        now_at += step_ms
        assert now_at < T0 + (rotations + 2) * fleet.rules.max_seal_age_ms
        fleet.tick(now_at, len(fleet.rotated_at))


def at_the_edge() -> Policy:
    """The longest ticket lifetime that three slots allow."""

    def lasting(ticket_lifetime_ms: int) -> Policy:
        return policy(
            Interval(HOUR),
            ticket_lifetime_ms=ticket_lifetime_ms,
            max_seal_age_ms=2 * HOUR,
            overdue_after_ms=7 * MINUTE,
            tick_interval_ms=30 * SECOND,
            lease_ttl_ms=2 * MINUTE,
            node_ttl_ms=2 * MINUTE,
        )

    fitting = (ms for ms in range(HOUR, 0, -SECOND) if not [*impossible(lasting(ms), slots=3, notice_delay_ms=0)])
    return lasting(next(fitting))


def test_three_slots_in_steady_state_are_never_held_and_never_drop_a_live_key() -> None:
    """Trace F16 (iii): fifty rotations under the tightest policy that `impossible` lets pass."""
    fleet = Fleet(at_the_edge(), nodes=4, slots=3)

    run(fleet, 50)

    assert fleet.dropped == []
    assert {*fleet.held} == {"not due"}
    gaps = {later - earlier for earlier, later in zip(fleet.rotated_at, fleet.rotated_at[1:], strict=False)}
    assert gaps == {HOUR}


def test_three_slots_with_one_broken_node_go_on_at_the_pace_of_overdue_after() -> None:
    rules = at_the_edge()
    fleet = Fleet(rules, nodes=4, slots=3)
    fleet.deaf.add("n3")

    run(fleet, 20)

    assert fleet.dropped == []
    gaps = [later - earlier for earlier, later in zip(fleet.rotated_at, fleet.rotated_at[1:], strict=False)]
    # The leader looks once a tick, so an instant between two ticks is seen at the next one.
    assert max(gaps) <= HOUR + 2 * rules.tick_interval_ms


def test_three_slots_with_a_node_that_died_go_on() -> None:
    rules = at_the_edge()
    fleet = Fleet(rules, nodes=4, slots=3)
    fleet.dead["n3"] = T0

    run(fleet, 20)

    assert fleet.dropped == []
    assert {*fleet.held} == {"not due"}


def test_an_uneven_schedule_rotates_at_every_due_instant_and_holds_for_nothing_else() -> None:
    schedule = Daily((0, 6, 7, 20))
    rules = policy(schedule, max_seal_age_ms=26 * HOUR, ticket_lifetime_ms=20 * MINUTE, overdue_after_ms=20 * MINUTE)
    assert [*impossible(rules, slots=3, notice_delay_ms=0)] == []
    fleet = Fleet(rules, nodes=3, slots=3)

    run(fleet, 14, step_ms=2 * MINUTE)

    assert fleet.dropped == []
    assert {*fleet.held} == {"not due"}
    midnight = T0 - T0 % DAY
    assert {(at - midnight) % DAY // HOUR for at in fleet.rotated_at} == {0, 6, 7, 20}
    assert all((at - midnight) % HOUR == 0 for at in fleet.rotated_at)


def test_unbounded_servers_keep_as_many_keys_as_live_tickets_need_and_no_more() -> None:
    rules = policy(Interval(HOUR), ticket_lifetime_ms=150 * MINUTE, max_seal_age_ms=2 * HOUR, tick_interval_ms=SECOND)
    fleet = Fleet(rules, nodes=3, slots=None)

    run(fleet, 12)

    # Settled within a minute, each key opens for 2.5 h after its hour: three of them, and the one just retired.
    assert len(fleet.window.all) == 2 + 3


# Whatever the world looks like.

instants = st.integers(min_value=T0 - HOUR, max_value=T0 + 40 * HOUR)
pool = st.sampled_from(
    [
        *reigned(9),
        *(rotated(window, window.published_at + 2 * HOUR, key=200 + window.epoch) for window in reigned(6)),
        revoked(TWO, T0 + 5 * HOUR, keys=(300, 301)),
        rotated(revoked(THREE, T0 + 9 * HOUR, keys=(302, 303)), T0 + 11 * HOUR, key=304),
        FOUR.at(FOUR.seals_until),
        replace(FOUR, next=replace(FOUR.next, stek=None)),
        reigned(9, every_ms=20 * SECOND)[-1],
    ]
)
maybe = st.none() | pool
numbers = st.integers(min_value=0, max_value=12) | st.integers(min_value=0, max_value=2**64)
words = st.builds(
    report,
    node=st.sampled_from("abcde"),
    window=maybe,
    read_back=maybe,
    state=st.sampled_from(NodeState),
    floor=numbers,
    barrier=numbers,
    slots=st.none() | st.integers(min_value=0, max_value=5),
    poll_interval_ms=st.sampled_from([0, 5 * SECOND, 10**15]),
    holds=st.none() | st.just("e" * 64),
)
sightings = st.builds(Seen, report=words, seen_at=instants, behind_since=st.none() | instants)
asks = st.builds(
    request,
    goal=st.sampled_from(Goal),
    past_epoch=st.integers(min_value=0, max_value=12),
    made_at=instants,
    drop_live_keys=st.booleans(),
)
views = st.builds(
    View,
    window=maybe,
    remembered=maybe,
    memory=st.builds(Memory, floor=st.integers(0, 12), barrier=st.just(0))
    | st.integers(0, 12).map(lambda epoch: Memory(floor=epoch, barrier=epoch)),
    nodes=st.lists(sightings, max_size=5).map(tuple),
    offers=st.lists(pool, max_size=4).map(tuple),
    requests=st.lists(asks, max_size=3).map(tuple),
    stood_at=instants,
    speak_until=instants,
    settled_at=st.none() | instants,
    durable=st.booleans(),
)


@settings(max_examples=120, deadline=None)
@given(views, instants)
def test_every_view_has_a_decision_and_every_decision_can_be_done(seen_by: View, now_at: int) -> None:
    decision = decide(seen_by, POLICY, now_at)

    made = enact(decision, seen_by, POLICY, now_at, chance(1))

    match decision:
        case Hold(reason) | Decline(_, reason):
            assert reason
            assert made is None
        case _:
            assert made is not None
            assert made.epoch > seen_by.memory.floor
            assert made.barrier >= seen_by.memory.barrier
            assert made.whole_at(now_at)
            burnt = [old for old in (seen_by.window, seen_by.remembered, *seen_by.offers) if old is not None]
            gone = {key.name for old in burnt for key in old.all if key.born < made.barrier}
            assert not names(made) & gone


@settings(max_examples=120, deadline=None)
@given(views, instants)
def test_nothing_rotates_while_a_live_node_in_time_shows_another_window(seen_by: View, now_at: int) -> None:
    decision = decide(seen_by, POLICY, now_at)
    if not isinstance(decision, Rotate) or seen_by.window is None:
        return
    last_ticks = seen_by.window.seals_until - 2 * SECOND <= now_at < seen_by.window.seals_until
    for node in live(seen_by.nodes, POLICY, now_at):
        if node.report.read_back != seen_by.window.digest:
            since = node.seen_at if node.behind_since is None else node.behind_since
            assert last_ticks or now_at >= since + POLICY.overdue_after_ms


@settings(max_examples=60, deadline=None)
@given(st.lists(words, max_size=5), st.sampled_from([LATEST, LATEST + SECOND]), st.booleans(), st.booleans())
def test_no_word_of_any_node_outlasts_the_sealing_key(
    said: list[Report],
    now_at: int,
    durable: bool,  # noqa: FBT001 - a fact of the view, drawn
    asking: bool,  # noqa: FBT001 - likewise
) -> None:
    nodes = [seen(word, now_at, behind_since=now_at) for word in said]
    asked = [request(past_epoch=3, made_at=now_at)] if asking else []

    decision = decide(view(THREE, nodes, remembered=THREE, durable=durable, requests=asked), POLICY, now_at)

    assert isinstance(decision, Rotate)


def test_a_window_that_is_older_than_ones_own_memory_ends_no_speak_time() -> None:
    """A revoke was remembered, and the scheduler died before it held the window: the fleet may hold it."""
    now_at = THREE.published_at
    burnt = Memory(floor=THREE.epoch + 1, barrier=THREE.epoch + 1)
    asked = replace(view(None, remembered=THREE), memory=burnt, speak_until=now_at + 1)

    assert decide(asked, POLICY, now_at) == Hold("the store has no window; letting every node speak", now_at + 1)
    assert decide(asked, POLICY, now_at + 1) == Bootstrap(burnt.floor + 1, burnt.barrier)


def test_a_goal_past_an_epoch_that_nobody_can_have_seen_is_void() -> None:
    """Else one signed request would have a leader revoke at every tick until it expires."""
    now_at = THREE.published_at
    far = request(Goal.REVOKE, past_epoch=THREE.epoch + 1, made_at=now_at)

    assert verdict(far, THREE, now_at) == "future"
    assert verdict(replace(far, past_epoch=THREE.epoch), THREE, now_at) == "pending"


def test_a_window_owes_nothing_to_one_that_was_born_of_it_however_long_ago() -> None:
    """A store owner who keeps an old offer brings back no key that was retired since."""
    later = THREE
    for number in range(1, MAX_ANCESTORS + 3):
        later = rotated(later, THREE.published_at + number * SECOND, key=600 + number)
    retired = replace(later, previous=tuple(key for key in later.previous if key.name == THREE.next.name))

    assert THREE.digest not in retired.ancestors
    assert owes(retired, THREE, later.published_at) == ()
