"""A pause holds rotations that are due, never past a key's bound, and only an operator sets or revives one."""

import random
from collections.abc import Iterable
from dataclasses import replace

import pytest

from keyrotd.cli.desk import observe
from keyrotd.cli.forecast import asking
from keyrotd.cli.pausing import Terms, handed_in, pausing, resuming
from keyrotd.cli.screen import as_text, as_values
from keyrotd.cli.situation import Situation
from keyrotd.core.decide import Hold, Renew, Revoke, Rotate, decide, latest_rotation_at
from keyrotd.core.errors import KeyrotdError
from keyrotd.core.messages import Event, Goal, Pause, Resume
from keyrotd.core.pauses import fate, longest, resumed
from keyrotd.core.policy import Interval
from keyrotd.daemon import scheduler
from keyrotd.seal.keyfiles import OperatorKey
from keyrotd.seal.messages import read_event, sign_request
from keyrotd.store.limits import REPORTS_BYTES
from keyrotd.store.memory import MemoryStore
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.telemetry import SilentTelemetry
from tests import stage as scene
from tests.stage import HOUR, KEK, MINUTE, OPERATOR, RING, SIGNER, Stage
from tests.unit.builders import POLICY, SECOND, in_step, reigned, request, view

ONE, TWO, THREE = reigned(3)
DUE = THREE.published_at + 4 * HOUR
LATEST = latest_rotation_at(THREE, POLICY)


def wish(until: int, *, made_at: int = DUE - HOUR, who: str = "olga", reason: str = "load test") -> Pause:
    return Pause(ring=RING, until=until, who=who, reason=reason, made_at=made_at)


def end(made_at: int) -> Resume:
    return Resume(ring=RING, until=LATEST, who="olga", reason="", made_at=made_at)


# What the leader decides.


def test_a_paused_rotation_is_held_until_the_pause_ends() -> None:
    until = DUE + HOUR
    paused = replace(view(THREE, in_step(THREE, DUE), remembered=THREE), pause=wish(until))
    after = replace(view(THREE, in_step(THREE, until), remembered=THREE), pause=wish(until))

    assert decide(paused, POLICY, DUE) == Hold("paused by olga: load test", until)
    assert decide(after, POLICY, until) == Rotate("due")


def test_no_pause_outlasts_the_bound_of_the_key_that_seals() -> None:
    forever = wish(LATEST + 1000 * HOUR)
    held = replace(view(THREE, in_step(THREE, LATEST - 1), remembered=THREE), pause=forever)
    ending = replace(view(THREE, in_step(THREE, LATEST), remembered=THREE), pause=forever)
    gone = replace(view(THREE, in_step(THREE, THREE.seals_until), remembered=THREE), pause=forever)

    assert THREE.seals_until - 2 * SECOND == LATEST
    assert decide(held, POLICY, LATEST - 1) == Hold("paused by olga: load test", LATEST)
    assert decide(ending, POLICY, LATEST) == Rotate("due; current may not seal for longer")
    assert isinstance(decide(gone, POLICY, THREE.seals_until + HOUR // 2), Renew)


def test_what_somebody_asks_for_goes_through_a_pause() -> None:
    nodes = in_step(THREE, DUE)
    rotation = request(past_epoch=THREE.epoch, made_at=DUE)
    burn = request(Goal.REVOKE, past_epoch=THREE.epoch, made_at=DUE)

    for asked, done in ((rotation, Rotate("drill")), (burn, Revoke(burn))):
        paused = replace(view(THREE, nodes, remembered=THREE, requests=[asked]), pause=wish(DUE + HOUR))
        assert decide(paused, POLICY, DUE) == done


def test_before_a_rotation_is_due_a_pause_says_nothing() -> None:
    early = replace(view(THREE, in_step(THREE, DUE - 1), remembered=THREE), pause=wish(DUE + HOUR))

    assert decide(early, POLICY, DUE - 1) == Hold("not due", DUE)


# What becomes of a pause.


def test_a_resume_ends_the_pauses_made_up_to_it_and_no_later_one() -> None:
    before, after = wish(DUE, made_at=100), wish(DUE, made_at=201)

    assert [fate(pause, 200, 300) for pause in (before, wish(DUE, made_at=200), after)] == ["over", "over", "standing"]
    assert longest([before, after, wish(DUE + 1, made_at=250)], 200, 300) == wish(DUE + 1, made_at=250)
    assert longest([before], 200, 300) is None


def test_an_old_resume_ends_nothing_new() -> None:
    assert resumed([end(100), end(300), wish(DUE)], 200, 400) == 300
    assert resumed([end(100)], 200, 400) == 200
    assert fate(end(100), 200, 400) == "over"


def test_what_is_dated_far_ahead_of_the_fleet_is_void() -> None:
    assert fate(wish(DUE, made_at=DUE - 1), 0, DUE - 2 * HOUR) == "future"
    assert resumed([end(DUE)], 0, DUE - 2 * HOUR) == 0


# The scheduler.


class Counting(SilentTelemetry):
    """Keeps the gauge of the pause."""

    paused_until_s = 0.0

    def gauge(self, metric: str, value: float, **labels: str) -> None:  # noqa: ARG002 - the port's
        if metric == "rotation_paused_until_timestamp_seconds":
            self.paused_until_s = value


def successor(stage: Stage, folder: MemoryFolder, name: str = "scheduler-2") -> scheduler.RingScheduler:
    trust = scheduler.Trust(
        signer=SIGNER, verifiers=(SIGNER.verify_key,), operators=(OPERATOR.verify_key,), keks=(KEK,)
    )
    world = scheduler.World(
        store=stage.store(), state=folder, clock=stage.clock, rand=random.Random(2).randbytes, telemetry=Counting()
    )
    return scheduler.RingScheduler(RING, name, stage.policy, trust, world)


#: The hours of the policy as minutes, and then some: a simulated day of ticks is a real minute.
QUICK = replace(
    scene.POLICY,
    schedule=Interval(10 * MINUTE),
    ticket_lifetime_ms=2 * MINUTE,
    max_seal_age_ms=20 * MINUTE,
    overdue_after_ms=MINUTE,
)


def begun() -> Stage:
    stage = Stage(policy=QUICK)
    stage.pause(2 * MINUTE)
    return stage


def look(stage: Stage) -> Situation:
    return observe(stage.desk(), stage)


def terms(number: int = 1, *, operator: OperatorKey = OPERATOR, wait: bool = True) -> Terms:
    return Terms(operator=operator, timeout_ms=10_000 if wait else None, id=f"order-{number}")


def paused(stage: Stage, for_ms: int, *, number: int = 1) -> list[str]:
    order = pausing(look(stage), who="ann@ops", reason="load test", for_ms=for_ms)
    return list(handed_in(stage.desk(), order, terms(number), stage))


def resumed_by(stage: Stage, *, number: int = 9) -> list[str]:
    return list(handed_in(stage.desk(), resuming(look(stage), who="bob@ops", reason=""), terms(number), stage))


def history(stage: Stage) -> list[Event]:
    found = stage.store().history(limit=100)
    return [read_event(data, verifiers=(SIGNER.verify_key,), ring=RING) for data in found]


def epoch(stage: Stage) -> int:
    window = look(stage).reading.window
    assert window is not None
    return window.epoch


def test_a_pause_holds_the_rotation_shows_who_and_why_and_ends_by_itself() -> None:
    stage = begun()

    lines = paused(stage, 15 * MINUTE)
    stage.pause(12 * MINUTE)
    situation = look(stage)

    assert lines == [
        "ring edge: asked to pause rotation until 2027-03-01T12:17:00Z (in 15m), as ann@ops",
        "paused: nothing rotates merely because it is due; `rotate --now` and `revoke` go through",
    ]
    assert epoch(stage) == 1
    assert situation.healthy
    assert situation.held == Hold("paused by ann@ops: load test", scene.NOON + 17 * MINUTE)
    assert any(
        line.startswith("paused ") and "until 2027-03-01T12:17:00Z" in line and line.endswith(" by ann@ops: load test")
        for line in as_text(situation)
    )
    assert as_values(situation)["pause"] == {
        "who": "ann@ops",
        "reason": "load test",
        "until": scene.NOON + 17 * MINUTE,
    }
    stage.pause(3 * MINUTE + 10_000)
    assert epoch(stage) == 2
    assert look(stage).pause is None
    assert [event.kind for event in history(stage)] == ["rotate", "pause", "bootstrap"]


def test_a_resume_ends_the_pause_and_what_is_due_comes_at_once() -> None:
    stage = begun()
    paused(stage, 15 * MINUTE)
    stage.pause(12 * MINUTE)

    lines = resumed_by(stage)
    stage.pause(10_000)

    assert lines[0] == "ring edge: asked to resume rotation, as bob@ops"
    assert lines[1].startswith("resumed: the next rotation is due ")
    assert epoch(stage) == 2
    assert look(stage).pause is None


def test_a_pause_past_the_bound_of_the_current_key_is_refused_with_the_instant() -> None:
    stage = begun()

    with pytest.raises(KeyrotdError, match="so a pause may last until 2027-03-01T12:20:42Z") as refused:
        paused(stage, 20 * MINUTE)

    assert refused.value.hint is not None
    assert refused.value.hint.startswith("--for 18m is possible; ")
    paused(stage, 18 * MINUTE)


def test_a_leader_refuses_such_a_pause_too_whatever_signed_it() -> None:
    stage = begun()
    order = pausing(look(stage), who="ann@ops", reason="load test", for_ms=MINUTE)

    with pytest.raises(KeyrotdError, match="refused by the leader: a pause may last until 2027-03-01T12:20:42Z"):
        list(handed_in(stage.desk(), replace(order, until=order.until + 20 * MINUTE), terms(), stage))

    stage.pause(10 * MINUTE)
    assert epoch(stage) == 2


def test_an_order_goes_through_and_the_pause_goes_on() -> None:
    stage = begun()
    paused(stage, 15 * MINUTE)
    order = asking(Goal.ROTATE, look(stage), who="ann@ops", reason="leaver")

    stage.store().request(id="rotation", request=sign_request(order, OPERATOR))
    stage.pause(10_000)

    assert epoch(stage) == 2
    assert look(stage).pause is not None


def test_a_new_leader_goes_on_with_a_pause_and_tells_of_it_once() -> None:
    stage = begun()
    paused(stage, 15 * MINUTE)
    stage.scheduler.stop()
    stage.scheduler = successor(stage, MemoryFolder())
    stage.pause(12 * MINUTE)

    assert epoch(stage) == 1
    assert [event.kind for event in history(stage)].count("pause") == 1


def test_whoever_has_the_store_revives_no_pause_that_was_ended() -> None:
    """Neither under the leader that ended it, nor under one that stood by, nor after a restart of either."""
    stage = begun()
    standby, folder = successor(stage, MemoryFolder()), MemoryFolder()
    order = pausing(look(stage), who="ann@ops", reason="load test", for_ms=15 * MINUTE)
    kept = sign_request(order, OPERATOR)
    stage.scheduler.stop()
    stage.scheduler = successor(stage, folder, "scheduler-3")
    stage.pause(MINUTE)
    list(handed_in(stage.desk(), order, terms(), stage))
    list(handed_in(stage.desk(), resuming(look(stage), who="bob@ops", reason=""), terms(2), stage))
    standby.tick()

    for ruler in (stage.scheduler, standby, successor(stage, folder, "scheduler-4")):
        stage.scheduler.stop()
        stage.scheduler = ruler
        ring = stage.store()
        ring.settle(ids=["order-1", "order-2"])  # the resume is lost
        ring.request(id="order-1", request=kept)  # and the pause is back
        stage.pause(MINUTE)
        assert look(stage).pause is None
        assert stage.store().lead(holder="nobody", ttl_ms=1000, fence_above=0, known_digest="").requests == {}
    stage.pause(10 * MINUTE)
    assert epoch(stage) == 2


def test_a_pause_that_is_revived_where_nobody_saw_its_end_is_shown_again() -> None:
    """A store that hid the resume from who stood by can bring the pause back, within its bound, but not unseen."""
    stage = begun()
    standby = successor(stage, MemoryFolder())
    order = pausing(look(stage), who="ann@ops", reason="load test", for_ms=15 * MINUTE)
    list(handed_in(stage.desk(), order, terms(), stage))
    resumed_by(stage)
    stage.store().settle(ids=["order-1", "order-9"])
    assert look(stage).pause is None

    stage.scheduler.stop()
    stage.scheduler = standby
    stage.store().request(id="order-1", request=sign_request(order, OPERATOR))
    stage.pause(12 * MINUTE)

    assert epoch(stage) == 1
    found = look(stage).pause
    assert found is not None
    assert found.until == order.until
    stage.pause(4 * MINUTE)
    assert epoch(stage) == 2


def test_only_an_operator_pauses() -> None:
    stage = begun()
    order = pausing(look(stage), who="mallory", reason="none", for_ms=15 * MINUTE)

    with pytest.raises(KeyrotdError, match="no word from the leader within 10s"):
        list(handed_in(stage.desk(), order, terms(operator=OperatorKey(SIGNER.secret)), stage))

    stage.pause(12 * MINUTE)
    assert epoch(stage) == 2


def test_a_store_that_loses_the_pause_lets_rotation_go_on() -> None:
    stage = begun()
    paused(stage, 15 * MINUTE)

    stage.store().settle(ids=["order-1"])
    stage.pause(12 * MINUTE)

    assert epoch(stage) == 2


def test_the_metric_says_until_when() -> None:
    stage = begun()
    telemetry = Counting()
    stage.scheduler._world = replace(stage.scheduler._world, telemetry=telemetry)
    paused(stage, MINUTE)

    stage.pause(2_000)
    while_paused = telemetry.paused_until_s
    stage.pause(MINUTE)

    assert while_paused == scene.NOON / 1000 + 180
    assert telemetry.paused_until_s == 0


def test_neither_a_pause_nor_its_end_has_a_fleets_reports_read_every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = begun()
    readings: list[int] = []
    reports = MemoryStore.reports

    def counted(store: MemoryStore, known: Iterable[str] = (), *, most_bytes: int = REPORTS_BYTES) -> dict[str, bytes]:
        readings.append(stage.now_at)
        return reports(store, known, most_bytes=most_bytes)

    paused(stage, 15 * MINUTE)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "reports", counted)
        stage.pause(13 * MINUTE)
        while_paused = len(readings)
    resumed_by(stage)
    stage.pause(2 * MINUTE)
    epoch_after = epoch(stage)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "reports", counted)
        stage.pause(2 * MINUTE)

    seldom = QUICK.node_ttl_ms // 3
    assert while_paused <= 13 * MINUTE // seldom + 1
    assert len(readings) - while_paused <= 2 * MINUTE // seldom + 1
    assert epoch_after == 2
