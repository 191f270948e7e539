"""What people are shown of a ring, as whole screens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.cli import exits, screen
from keyrotd.cli.desk import observe
from keyrotd.cli.forecast import asking, forecast
from keyrotd.cli.inspection import Keyring, inspect
from keyrotd.cli.main import run
from keyrotd.cli.reading import Reading, Unproven, prove, prove_events
from keyrotd.cli.screen import as_text, as_values
from keyrotd.cli.situation import Situation, Standing, judge
from keyrotd.cli.views import health, history_document, history_text, inspection_text, keep_looking, recent
from keyrotd.cli.words import instant, span
from keyrotd.core.errors import ConfigError, CorruptWindow
from keyrotd.core.messages import Beat, Event, Goal, NodeState, ProbeState, Report, Request
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import make_secrets
from keyrotd.seal.messages import sign_beat, sign_event, sign_request, write_report
from keyrotd.seal.window import seal_window
from keyrotd.store.memory import Fault as StoreFault
from keyrotd.store.port import Look
from tests.stage import (
    HOUR,
    KEK,
    MINUTE,
    NOON,
    OPERATOR,
    POLICY,
    RING,
    SIGNER,
    Stage,
    beat,
    failing,
    report,
    stek,
    window_at,
)

WINDOW = window_at(NOON - 2 * MINUTE)
BEFORE = window_at(NOON - 4 * HOUR - 2 * MINUTE, epoch=1)
EVENT = Event(ring=RING, kind="rotate", epoch=2, happened_at=WINDOW.published_at, who="", reason="due")


def situation(
    *reports: Report,
    window: Window | None = WINDOW,
    found: Beat | None = None,
    leader: str = "scheduler-1",
    now_at: int = NOON,
    event: Event | None = EVENT,
    kek: bool = True,
    refused: tuple[str, ...] = (),
) -> Situation:
    """All is well unless said otherwise: led, confirmed two seconds after the publish."""
    if found is None and window is not None:
        found = beat(window, signed_at=now_at - 400, confirmed_at=window.published_at + 2_000)
    reading = Reading(
        ring=RING,
        leader=leader,
        lease_ms=9_000 if leader else 0,
        fence=7,
        window=window,
        beat=found,
        reports=reports if kek else None,
        report_count=len(reports),
        last_event=event,
        pauses=(),
        refused=refused,
    )
    return judge(reading, POLICY, now_at)


def spoken(node: str, *, ago_ms: int = 1_000, window: Window = WINDOW, slots: int | None = None) -> Report:
    return report(node, window, reported_at=NOON - ago_ms, slots=slots)


def text(found: Situation) -> str:
    return "\n".join(as_text(found))


def faults(found: Situation) -> list[str]:
    return [fault.words for fault in found.faults]


HEALTHY = """\
ring edge: healthy
leader       scheduler-1, lease for another 9s, fence 7
beat         just now, for epoch 2
window       epoch 2, digest 6c9c7d03, published 2027-03-01T11:58:00Z (2m ago)
             read back by every live node within 2s
next due     2027-03-01T15:58:00Z (in 3h58m)
bound        while rotations are on time, a key is gone within 14h43s500ms of being made (V)
last event   rotate, epoch 2, 2m ago: due
nodes        2 live, 0 silent; 0 still to read the window back

key       name      age   seals                                  opens until
current   CURRENT_  4h2m  until 2027-03-01T19:58:00Z (in 7h58m)  2027-03-01T21:58:43Z (in 9h58m)
next      NEXT____  2m    not yet                                2027-03-02T01:58:43Z (in 13h58m)
previous  PREVIOUS  4h2m  no more                                2027-03-01T17:58:43Z (in 5h58m)

node    standing  epoch  spoke   server   driver   state    slots  probe    fault
edge-1  in step   2      1s ago  haproxy  haproxy  in step  3      resumed
edge-2  in step   2      1s ago  haproxy  haproxy  in step  -      resumed"""


def named(shape: str) -> str:
    """`shape` with the names that the stage's seeds give."""
    names = {
        "CURRENT_": WINDOW.current.name.hex()[:8],
        "NEXT____": WINDOW.next.name.hex()[:8],
        "PREVIOUS": WINDOW.previous[0].name.hex()[:8],
        "6c9c7d03": WINDOW.digest[:8],
    }
    for word, name in names.items():
        shape = shape.replace(word, name)
    return shape


def test_a_healthy_ring_fits_one_screen() -> None:
    found = situation(spoken("edge-1", slots=3), spoken("edge-2"))

    assert text(found) == named(HEALTHY)
    assert health((found,)) == 0


def test_a_stranded_node_is_shown_with_its_step() -> None:
    stranded = replace(spoken("edge-1"), state=NodeState.STRANDED, steps=3)

    found = situation(stranded, spoken("edge-2"))

    assert "stranded, step 3" in text(found)
    assert faults(found) == ["1 node stranded: edge-1"]
    assert health((found,)) == 1


def test_what_every_live_node_acknowledged_waits_for_the_beat_that_confirms_it() -> None:
    unconfirmed = beat(WINDOW, signed_at=NOON - 400, confirmed_at=None)

    told = text(situation(spoken("edge-1"), spoken("edge-2"), found=unconfirmed)).splitlines()

    assert told[4] == "             read back by every live node; waiting for the next beat to confirm"
    assert "nodes        2 live, 0 silent; 0 still to read the window back" in told


@pytest.mark.parametrize("kek", [True, False])
def test_what_is_not_known_to_be_read_back_waits_for_no_beat(kek: bool) -> None:  # noqa: FBT001 - a parameter
    unconfirmed = beat(WINDOW, signed_at=NOON - 400, confirmed_at=None)

    told = text(situation(spoken("edge-1"), spoken("edge-2", window=BEFORE), found=unconfirmed, kek=kek)).splitlines()

    assert told[4] == "             not read back by every live node yet"


def test_without_a_lease_nobody_leads_and_the_last_beat_is_dated() -> None:
    found = situation(spoken("edge-1"), leader="", found=beat(WINDOW, signed_at=NOON - MINUTE, confirmed_at=None))

    assert faults(found) == ["no leader: nobody has the lease, the last beat was 1m ago"]
    assert health((found,)) == 1
    assert text(found).startswith("ring edge: NOT HEALTHY\nleader       none\nbeat         1m ago, for epoch 2\n")


def test_a_leader_that_signs_nothing_is_no_leader() -> None:
    found = situation(spoken("edge-1"), found=beat(WINDOW, signed_at=NOON - 10_000, confirmed_at=None))

    assert faults(found) == ["no leader: scheduler-1 has the lease and signs nothing, the last beat was 10s ago"]


def test_a_silent_leader_may_also_have_been_killed() -> None:
    found = situation(spoken("edge-1"), found=beat(WINDOW, signed_at=NOON - 10_000, confirmed_at=None))

    assert [fault.hint for fault in found.faults] == [
        "its log says why: clocks that disagree, a window that it cannot open, or a full disk; "
        "or it was killed: it is succeeded within lease_ttl, 10s"
    ]


@pytest.mark.parametrize(
    ("window", "found"), [(None, None), (None, beat(WINDOW, signed_at=NOON - MINUTE, confirmed_at=None))]
)
def test_before_the_first_window_the_leader_lets_every_node_speak(window: Window | None, found: Beat | None) -> None:
    shown = situation(spoken("edge-1"), window=window, found=found)

    assert not shown.healthy
    assert shown.faults[0].words.startswith(
        "scheduler-1 has the lease and signs nothing yet: a new leader lets every node speak first, "
    )
    assert shown.faults[0].hint.startswith("this takes up to 44s from when it took the lease; if longer, its log says")


def test_a_leader_whose_store_lost_windows_lets_every_node_speak() -> None:
    newer = window_at(NOON - MINUTE, epoch=3)
    old = beat(WINDOW, signed_at=NOON - MINUTE, confirmed_at=None)

    assert "lets every node speak first" in faults(situation(spoken("edge-1", window=newer), found=old))[0]


def test_a_real_leader_that_has_just_begun_is_told_so_and_then_heals() -> None:
    stage = Stage()
    stage.pause(3_000)

    found = observe(stage.desk(), stage)

    assert "scheduler-1 has the lease and signs nothing yet" in faults(found)[0]
    stage.pause(MINUTE)
    assert observe(stage.desk(), stage).healthy


def test_an_empty_store_is_no_healthy_ring() -> None:
    found = situation(window=None, leader="", event=None)

    assert text(found) == (
        "ring edge: NOT HEALTHY\n"
        "leader       none\n"
        "bound        while rotations are on time, a key is gone within 14h43s500ms of being made (V)\n"
        "nodes        0 live, 0 silent; 0 still to read the window back\n"
        "error: no leader: nobody has the lease, no beat was ever signed\n"
        "hint: is a scheduler running, and can it reach the store?\n"
        "error: the store holds no window\n"
        "hint: a leading scheduler lets every node speak first, then publishes: up to 44s after it took the lease\n"
        "error: no node reports\n"
        "hint: is an agent running, for this ring and on this store?"
    )


def test_a_due_rotation_says_who_holds_it_and_until_when() -> None:
    old = window_at(NOON - 4 * HOUR - MINUTE)
    broken = failing(spoken("edge-2", window=old), "server haproxy: the socket says no")

    found = situation(spoken("edge-1", window=old), broken, window=old)

    assert "held         waiting for edge-2, until 2027-03-01T12:30:00Z (in 30m) at most" in text(found).splitlines()
    assert faults(found) == ["1 node behind: edge-2"]


def test_a_due_rotation_that_nothing_holds_is_unhealthy() -> None:
    old = window_at(NOON - 4 * HOUR - MINUTE)

    assert faults(situation(spoken("edge-1", window=old), window=old)) == [
        "a rotation is due since 2027-03-01T11:59:00Z (1m ago) and nothing seen here holds it"
    ]


def test_a_hold_is_shown_with_its_reason_and_its_end() -> None:
    # Four hours in, a 3-slot server still has a live key to lose.
    old = window_at(NOON - 4 * HOUR)
    previous = replace(old.previous[0], opens_until=NOON + HOUR)
    crowded = replace(old, previous=(previous,), current=replace(old.current, opens_until=NOON + 6 * HOUR))
    unconfirmed = beat(crowded, signed_at=NOON, confirmed_at=None)

    found = situation(spoken("edge-1", window=crowded, slots=3), window=crowded, found=unconfirmed)

    assert (
        "held         a server has too few slots: a key whose tickets still live would be dropped, "
        "until 2027-03-01T13:00:00Z (in 1h) at most" in text(found).splitlines()
    )


def test_a_node_behind_is_named_with_its_fault() -> None:
    found = situation(spoken("edge-1"), failing(spoken("edge-2"), "server haproxy: the socket says no"))

    assert faults(found) == ["1 node behind: edge-2"]
    assert text(found).splitlines()[-1] == (
        "edge-2  behind    2      1s ago  haproxy  haproxy  FAILED   -      -        server haproxy: the socket says no"
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (NodeState.DRIFT, "1 node drifting: edge-2"),
        (NodeState.ISOLATED, "1 node isolated: edge-2"),
    ],
)
def test_drift_and_isolation_are_unhealthy(state: NodeState, words: str) -> None:
    found = situation(spoken("edge-1"), replace(spoken("edge-2"), state=state, read_back=None))

    assert faults(found) == [words]


def test_a_silent_node_is_unhealthy_and_not_waited_for() -> None:
    found = situation(spoken("edge-1"), spoken("edge-2", ago_ms=HOUR, window=BEFORE))

    assert faults(found) == ["1 node silent: edge-2"]
    assert [node.name for node in found.live] == ["edge-1"]
    assert found.behind == ()


def test_what_a_silent_nodes_servers_last_showed_is_told_with_its_age() -> None:
    found = situation(spoken("edge-1"), spoken("edge-2", ago_ms=HOUR, window=BEFORE, slots=3))

    assert text(found).splitlines()[-2:] == [
        "edge-1  in step   2      1s ago  haproxy  haproxy  in step           -      resumed",
        "edge-2  silent    1      1h ago  haproxy  haproxy  in step (1h ago)  3      resumed (1h ago)",
    ]


def test_a_node_may_take_two_polls_to_catch_up() -> None:
    young = window_at(NOON - 5_000)
    late = window_at(NOON - 20_000)
    old = spoken("edge-1", window=BEFORE)

    assert [node.standing for node in situation(old, window=young).nodes] == [Standing.CATCHING_UP]
    assert situation(old, window=young).healthy
    assert [node.standing for node in situation(old, window=late).nodes] == [Standing.BEHIND]


def test_a_node_with_a_newer_window_tells_of_a_store_that_forgot() -> None:
    newer = window_at(NOON - MINUTE, epoch=3)
    found = situation(
        spoken("edge-1", window=newer), found=beat(newer, signed_at=NOON - 300, confirmed_at=None), event=None
    )

    assert faults(found) == [
        "the store shows window 2, the last beat speaks of 3",
        "1 node ahead of the store: edge-1",
    ]


def test_a_window_that_may_no_longer_seal_is_said() -> None:
    dead = window_at(NOON - 9 * HOUR)

    found = situation(spoken("edge-1", window=dead), window=dead, leader="", found=None)

    assert any("may no longer seal since 2027-03-01T11:00:00Z (1h ago)" in words for words in faults(found))


def test_a_handshake_under_a_wrong_key_is_unhealthy() -> None:
    bad = spoken("edge-1")
    bad = replace(bad, servers=(replace(bad.servers[0], probe=ProbeState.WRONG_KEY, fault="tickets under key 00"),))

    assert faults(situation(bad)) == ["a handshake shows wrong key: edge-1/haproxy"]


def test_what_peers_did_with_tickets_is_shown_and_a_refusal_is_unhealthy() -> None:
    well, ill = (spoken(name) for name in ("edge-1", "edge-2"))
    well = replace(well, servers=(replace(well.servers[0], resumed=3, tried=3),))
    ill = replace(ill, servers=(replace(ill.servers[0], resumed=1, tried=3),))

    assert faults(situation(well)) == []
    assert "resumed, peers 3/3" in text(situation(well))
    assert faults(situation(well, ill)) == ["peers refuse tickets of edge-2/haproxy by 2 of 3"]


def test_without_the_kek_reports_are_counted_and_believed_for_nothing() -> None:
    confirmed = situation(spoken("edge-1"), spoken("edge-2"), kek=False)
    unconfirmed = situation(spoken("edge-1"), kek=False, found=beat(WINDOW, signed_at=NOON - 400, confirmed_at=None))

    assert confirmed.healthy
    assert "nodes        2 reports, unread: the ring's KEK proves them, and is not here" in text(confirmed)
    assert faults(unconfirmed) == [
        "window 2, published 2027-03-01T11:58:00Z (2m ago), is not read back by every live node, by the leader's word"
    ]
    assert as_values(confirmed)["nodes"] is None


def test_what_does_not_prove_itself_is_unhealthy_and_goes_no_further() -> None:
    stranger = sign_beat(beat(WINDOW, signed_at=NOON, confirmed_at=None), SIGNER).replace(b"epoch 2", b"epoch 9")
    look = Look(digest="", window=b"garbage\n", beat=stranger, leader="scheduler-1", lease_ms=9_000, fence=7)
    copied = write_report(spoken("edge-1"), (KEK,))

    reading = prove(
        look, {"edge-1": copied, "edge-9": copied}, [b"x"], ring=RING, verifiers=(SIGNER.verify_key,), keks=(KEK,)
    )

    assert (reading.window, reading.beat, reading.last_event) == (None, None, None)
    assert [found.node for found in reading.reports or ()] == ["edge-1"]
    assert reading.refused == (
        "the stored window: window: want `keyrotd window v1` as the first line",
        f"the stored beat: beat: the signature of {SIGNER.id} does not fit",
        "the report of edge-9: it is a copy of one by edge-1",
    )
    assert any(words.startswith("not proven: ") for words in faults(judge(reading, POLICY, NOON)))


def test_a_large_fleet_shows_who_is_not_in_step() -> None:
    many = [spoken(f"edge-{count:03}") for count in range(100)]

    found = text(situation(*many, failing(spoken("zebra"), "no"))).splitlines()

    assert [line.split()[0] for line in found[-4:]] == ["1", "node", "zebra", "100"]
    assert found[-4] == "1 behind, 100 in step"
    assert found[-1] == "100 nodes not shown, the best first; --all shows every one"


def test_ten_thousand_nodes_fit_one_screen_with_the_worst_first() -> None:
    silent = [replace(spoken(f"edge-{count:05}"), reported_at=NOON - HOUR) for count in range(5_000)]
    well = [spoken(f"east-{count:05}") for count in range(4_999)]
    found = situation(*silent, *well, failing(spoken("zebra"), "no"))

    lines = text(found).splitlines()

    assert "1 behind, 5000 silent, 4999 in step" in lines
    at = lines.index("1 behind, 5000 silent, 4999 in step")
    assert [line.split()[0] for line in lines[at + 2 : at + 4]] == ["zebra", "edge-00000"]
    assert len(lines) < 48
    assert len(list(as_text(found, most_rows=20_000))) > 10_000


def test_history_since_an_instant_keeps_what_nobody_signed() -> None:
    old, new, odd = replace(EVENT, happened_at=1), replace(EVENT, happened_at=NOON), Unproven("who knows")

    assert recent((new, odd, old), NOON) == (new, odd)


def test_a_large_fleet_shows_who_is_in_step_and_not_proven() -> None:
    many = [spoken(f"edge-{count:03}") for count in range(100)]
    shy = spoken("zebra")
    shy = replace(shy, servers=(replace(shy.servers[0], probe=ProbeState.NO_TICKETS),))

    found = text(situation(*many, shy)).splitlines()

    assert [line.split()[0] for line in found[-3:]] == ["node", "zebra", "100"]
    assert "no tickets" in found[-2]


def test_json_has_full_names_and_no_text_to_parse() -> None:
    found = json.loads(json.dumps(as_values(situation(spoken("edge-1", slots=3)))))

    assert found["healthy"] is True
    assert found["leader"] == {"name": "scheduler-1", "lease_ms": 9_000, "fence": 7}
    assert found["window"]["digest"] == WINDOW.digest
    assert [key["name"] for key in found["window"]["keys"]] == [key.name.hex() for key in WINDOW.all]
    assert found["nodes"][0]["servers"] == [
        {
            "name": "haproxy",
            "driver": "haproxy",
            "state": "in_step",
            "slots": 3,
            "probe": "resumed",
            "fault": "",
            "address": None,
            "peers": None,
        }
    ]


def test_every_field_of_json_is_in_the_help() -> None:
    values = as_values(situation(spoken("edge-1"), now_at=NOON))

    def fields(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(fields, value.values()))
        return set().union(*map(fields, value)) if isinstance(value, list) else set()

    assert {field for field in fields(values) if field not in screen.JSON_HELP} == set()


# The forecast.


def wanted(found: Situation) -> Request:
    return asking(Goal.ROTATE, found, who="ann@ops", reason="")


def test_the_forecast_says_which_key_does_what_and_who_is_waited_for() -> None:
    found = situation(spoken("edge-1"), spoken("edge-2"), spoken("edge-3", ago_ms=HOUR))

    told = "\n".join(forecast(found, wanted(found), stek(99)))

    assert told == named("""\
ring edge: what `keyrotd rotate --now` would do
window          epoch 2 to 3
current         NEXT____, now next; would seal until 2027-03-01T20:00:00Z (in 8h)
next            a fresh key, which only opens until the rotation after this one
previous        CURRENT_, now current; would leave 2027-03-01T21:58:43Z (in 9h58m)
previous        PREVIOUS, previous already; would leave 2027-03-01T13:58:45Z (in 1h58m)
waits for       2 live nodes: edge-1, edge-2
not waited for  edge-3, which last spoke 1h ago
the leader      would do it at once
due by itself   2027-03-01T15:58:00Z (in 3h58m)
error: 1 node silent: edge-3
hint: is its agent running, and can it reach the store? it is forgotten after a day""")


def test_the_forecast_says_when_three_slots_are_free() -> None:
    found = situation(spoken("edge-1", slots=3))

    told = "\n".join(forecast(found, wanted(found), stek(99)))

    previous = WINDOW.previous[0].name.hex()[:8]
    assert (
        f"slots           3 at the fewest: {previous} would be dropped with live tickets; "
        "free from 2027-03-01T13:58:45Z (in 1h58m)" in told
    )
    assert (
        "the leader      would refuse it: a server has too few slots: a key whose tickets still live would be dropped; "
        "free from 2027-03-01T13:58:45Z (in 1h58m), or with --drop-live-keys" in told
    )


def test_the_forecast_needs_no_kek() -> None:
    found = situation(spoken("edge-1"), kek=False)

    told = "\n".join(forecast(found, wanted(found), stek(99)))

    assert "waits for       up to 1 node, unnamed: the ring's KEK proves reports, and is not here" in told
    assert "the leader      decides by the nodes' reports, which cannot be proven here" in told


def test_the_forecast_of_a_ring_without_a_leader_is_nothing() -> None:
    found = situation(spoken("edge-1"), leader="", found=beat(WINDOW, signed_at=NOON - HOUR, confirmed_at=None))

    assert "the leader      is away: nothing would happen" in list(forecast(found, wanted(found), stek(99)))


# History.


def test_history_shows_a_forged_line_as_such() -> None:
    forged = sign_event(EVENT, SIGNER).replace(b"due", b"fun")
    declined = replace(EVENT, kind="decline", who="ann@ops", reason="too few slots; free from 2027-03-01T13:00:00Z")

    found = prove_events([sign_event(declined, SIGNER), forged], ring=RING, verifiers=(SIGNER.verify_key,))

    assert found == (declined, Unproven(f"event: the signature of {SIGNER.id} does not fit"))
    assert list(history_text({RING: found}, NOON)) == [
        "ring edge",
        "  when                           epoch  what        who      why",
        "  2027-03-01T11:58:00Z (2m ago)  2      decline     ann@ops  too few slots; free from 2027-03-01T13:00:00Z",
        "  ?                              ?      NOT PROVEN  ?        "
        f"event: the signature of {SIGNER.id} does not fit",
    ]
    assert json.loads(history_document({RING: found}))["rings"][0]["events"][1] == {
        "unproven": f"event: the signature of {SIGNER.id} does not fit"
    }


def test_an_empty_history_says_so() -> None:
    assert list(history_text({RING: ()}, NOON)) == [
        "ring edge",
        "  no history: nothing happened yet, or the store lost it",
    ]


# Inspect.


def nonce(length: int) -> bytes:
    nonce.count += 1  # type: ignore[attr-defined]  # a function with a counter is the smallest chance there is
    return int(nonce.count).to_bytes(length, "big")  # type: ignore[attr-defined]  # likewise


nonce.count = 0  # type: ignore[attr-defined]  # likewise

SEALED = seal_window(WINDOW, keks=(KEK,), signer=SIGNER, rand=nonce)
KEYRING = Keyring(verifiers=(SIGNER.verify_key,), operators=(OPERATOR.verify_key,), keks={RING: (KEK,)})
NO_KEYS = Keyring(keks={})
MESSAGES = {
    "beat": sign_beat(beat(WINDOW, signed_at=NOON, confirmed_at=None), SIGNER),
    "event": sign_event(EVENT, SIGNER),
    "request": sign_request(
        Request(
            ring=RING,
            goal=Goal.REVOKE,
            past_epoch=2,
            drop_live_keys=False,
            who="ann@ops",
            reason="a laptop was stolen",
            made_at=NOON,
        ),
        OPERATOR,
    ),
    "report": write_report(spoken("edge-1", slots=3), (KEK,)),
    "window": SEALED,
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_each_message_is_proven_by_its_key_and_disproven_by_one_byte(kind: str) -> None:
    data = MESSAGES[kind]
    flipped = data.replace(b"ring edge", b"ring edgy", 1)

    assert inspect(data, KEYRING, NOON).proven is True
    assert inspect(data, NO_KEYS, NOON).proven is None
    found = inspect(flipped, replace(KEYRING, keks={RING: (KEK,), "edgy": (KEK,)}), NOON)
    assert found.proven is False
    assert "NOT VERIFIED (bad signature)" in found.verdict


def test_a_request_is_shown_in_its_own_words() -> None:
    assert list(inspection_text(inspect(MESSAGES["request"], KEYRING, NOON + MINUTE))) == [
        "request: verified: signature",
        "ring              edge",
        "goal              revoke",
        "past_epoch        2",
        "drop_live_keys    no",
        "who               ann@ops",
        "reason            a laptop was stolen",
        "made_at           2027-03-01T12:00:00Z (1m ago)",
        f"signer            {OPERATOR.id}",
    ]


def test_a_window_without_the_kek_is_proven_as_far_as_its_signature() -> None:
    found = inspect(SEALED, replace(KEYRING, keks={}), NOON)

    assert found.verdict == "verified: signature; seeds not opened: no KEK of this ring at hand"
    assert found.values["signer"] == SIGNER.id


def test_no_inspection_ever_shows_a_secret() -> None:
    texts = make_secrets(RING, nonce_like)
    secrets = {line.split(":", 1)[1] for text in texts.values() for line in text.splitlines() if line[:1] != "#"}
    private = {name: text for name, text in texts.items() if "verify" not in name}

    shown = [
        word
        for data in (*MESSAGES.values(), *(text.encode() for text in private.values()))
        for found in [inspect(data, KEYRING, NOON)]
        for word in (*inspection_text(found), json.dumps(found.values))
    ]

    assert not any(secret in word for secret in secrets for word in shown)
    seeds = [key.stek.seed.hex() for key in WINDOW.all if key.stek is not None]
    assert not any(seed in word for seed in seeds for word in shown)
    assert any(word.startswith("KEK ") for word in shown)


def nonce_like(length: int) -> bytes:
    return stek(1000 + nonce(8)[-1]).seed[:length]


def test_what_keyrotd_never_wrote_is_refused_without_a_quotation() -> None:
    with pytest.raises(ConfigError) as refused:
        inspect(b"password = hunter2\n", KEYRING, NOON)
    with pytest.raises(CorruptWindow) as corrupt:
        inspect(b"keyrotd window v1\nhunter2\n", KEYRING, NOON)

    assert "hunter2" not in str(refused.value) + str(corrupt.value)


# Clocks.


def test_a_beat_that_moves_is_alive_whatever_the_wall_clock_says() -> None:
    stage = Stage()
    stage.pause(2 * MINUTE)
    stage.clock.skew_ms = HOUR

    found = observe(stage.desk(), stage)

    assert found.led
    assert abs(found.now_at - stage.now_at) <= 1_000
    assert found.healthy


def test_a_wall_clock_that_lags_shows_no_beat_from_the_future() -> None:
    stage = Stage()
    stage.pause(2 * MINUTE)
    stage.clock.skew_ms = -HOUR

    assert observe(stage.desk(), stage).healthy


class Impatient(Stage):
    """A person who has seen enough after some pauses."""

    pauses = 3

    def pause(self, duration_ms: int) -> None:
        super().pause(duration_ms)
        if duration_ms == 2_000:
            self.pauses -= 1
            if not self.pauses:
                raise KeyboardInterrupt


def test_watching_ends_with_the_health_of_the_last_look(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Impatient()
    stage.pause(2 * MINUTE)
    desk = stage.desk()
    outages = iter([None, None, None, StoreFault.AWAY])
    desk.store.fault = lambda _: next(outages, None)  # type: ignore[attr-defined]  # it is a MemoryStore

    code = keep_looking((desk,), stage, as_json=True)

    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == exits.DONE
    assert ["error" in look for look in looks] == [False, True, False]
    assert looks[2]["rings"][0]["healthy"] is True


# Files.


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (MESSAGES["window"], exits.DONE),
        (MESSAGES["beat"], exits.DONE),
        (MESSAGES["beat"] + b"more\n", exits.FAILED),
        (b"", exits.FAILED),
        (b"\x00" * 100, exits.FAILED),
        (b"keyrotd-kek-1:hunter2\n", exits.FAILED),
    ],
)
def test_a_file_is_inspected_without_a_configuration(
    data: bytes, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "found").write_bytes(data)

    assert run(["inspect", str(tmp_path / "found")]) == code

    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err
    assert bool(told.out) == (code == exits.DONE)


@pytest.mark.parametrize(
    ("duration_ms", "words"),
    [
        (0, "0ms"),
        (999, "999ms"),
        (1_000, "1s"),
        (1_270, "1.2s"),
        (59_999, "59s"),
        (61_000, "1m1s"),
        (3 * HOUR + 58 * MINUTE + 59_000, "3h58m"),
        (4 * HOUR + 30_000, "4h"),
        (50 * HOUR, "2d2h"),
    ],
)
def test_spans_are_said_by_their_two_largest_units(duration_ms: int, words: str) -> None:
    assert span(duration_ms) == words


def test_an_instant_beyond_the_calendar_is_shown_as_a_number() -> None:
    assert instant(2**62, NOON).startswith(str(2**62))
