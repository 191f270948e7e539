"""A leader that goes, dies, sleeps or cannot sign makes way for another, and publishes nothing once overtaken."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from keyrotd.core.messages import Goal, Request
from keyrotd.seal.keyfiles import Kek
from keyrotd.seal.messages import sign_request
from tests.faults.rig import POLICY, RING, STEP_MS, Desk, Rig, filled, names_in
from tests.mounts import mounted

HOUR_MS = 3_600_000


class Before:
    """A store that lets something happen right before one of its operations, once."""

    def __init__(self, store: Any, operation: str) -> None:
        self._store, self._operation = store, operation
        self._happens = _nothing

    def once(self, happens: Callable[[], None]) -> None:
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        if name == self._operation:
            happens, self._happens = self._happens, _nothing
            happens()
        return getattr(self._store, name)


def _nothing() -> None:
    pass


def leads(desk: Desk) -> bool:
    return desk.telemetry.value("leader", ring=RING) == 1


def ask_to_rotate(rig: Rig, past_epoch: int) -> None:
    wish = Request(
        ring=RING,
        goal=Goal.ROTATE,
        past_epoch=past_epoch,
        drop_live_keys=False,
        who="me",
        reason="a test",
        made_at=rig.now_at,
    )
    rig.peek.request(id="1", request=sign_request(wish, rig.operator))


def test_a_leader_told_to_stop_hands_over_within_one_tick(rig: Rig) -> None:
    window = rig.start(desks=2)
    first, second = rig.desks
    assert leads(first)

    first.scheduler.stop()
    second.scheduler.tick()

    assert not leads(first)
    assert leads(second)
    assert rig.window() == window  # nothing to publish: the heir goes on with what stands


def test_a_leader_that_was_overtaken_while_it_decided_publishes_nothing(rig: Rig) -> None:
    sleepy = Before(rig.store(), "publish")
    first, second = rig.add_desk(store=sleepy), rig.add_desk()
    window = rig.start(desks=0)
    ask_to_rotate(rig, past_epoch=window.epoch)

    def overtaken() -> None:
        rig.end_lease()
        second.scheduler.tick()  # and does what the sleeper was about to do

    sleepy.once(overtaken)
    rig.pass_until(lambda: leads(second), "the second one leads")

    assert not leads(first)
    (lost,) = first.telemetry.events("lease.lost")
    assert "publish refused: Fenced" in lost["why"]
    assert first.telemetry.events("window.published") == []
    newer = rig.settle(above=window.epoch)
    assert newer.epoch == window.epoch + 1
    assert newer.current.name == window.next.name


def test_a_leader_that_sleeps_past_its_lease_does_not_even_ask(rig: Rig) -> None:
    sleepy = Before(rig.store(), "reports")  # after the lease was renewed, before anything is decided
    first = rig.add_desk(store=sleepy)
    window = rig.start(desks=0)
    ask_to_rotate(rig, past_epoch=window.epoch)

    def slept() -> None:
        rig.now_at += POLICY.lease_ttl_ms

    sleepy.once(slept)
    rig.pass_until(lambda: bool(first.telemetry.events("lease.lost")), "it knows that its lease is over")

    (lost,) = first.telemetry.events("lease.lost")
    assert lost["why"] == "the lease ran out before a publish"
    rig.settle(above=window.epoch)  # then it asked for a new one


def test_beats_of_an_overtaken_leader_are_refused(rig: Rig) -> None:
    sleepy = Before(rig.store(), "beat")
    first, second = rig.add_desk(store=sleepy), rig.add_desk()
    rig.start(desks=0)

    def overtaken() -> None:
        rig.end_lease()
        second.scheduler.tick()

    sleepy.once(overtaken)
    first.scheduler.tick()

    assert not leads(first)
    assert leads(second)
    (lost,) = first.telemetry.events("lease.lost")
    assert "a beat was refused" in lost["why"]


def test_a_leader_whose_disk_is_full_makes_way_for_one_that_can_remember(rig: Rig) -> None:
    state = rig.directory / "full"
    state.mkdir()
    with mounted(state, read_only=False):
        broken, healthy = rig.add_desk(state=state), rig.add_desk()
        window = rig.start(desks=0)
        ring = names_in(rig.twins[0])
        free = filled(state)
        ask_to_rotate(rig, past_epoch=window.epoch)

        newer = rig.settle(above=window.epoch)

        assert leads(healthy)
        assert not leads(broken)
        assert names_in(rig.twins[0])[:2] == ring[1:]
        assert "no space left" in broken.telemetry.said_once("memory")[0].lower()
        assert len(broken.telemetry.events("lease.lost")) == 1

        free()
        healthy.scheduler.stop()
        healthy.away = True
        rig.pass_until(lambda: leads(broken), "it leads again", at_most_ms=POLICY.lease_ttl_ms + 2 * STEP_MS)

        assert broken.telemetry.standing() == []
        assert rig.window() == newer


def test_a_lone_leader_whose_disk_is_full_signs_nothing_and_says_so_once(rig: Rig) -> None:
    state = rig.directory / "full"
    state.mkdir()
    with mounted(state, read_only=False):
        desk = rig.add_desk(state=state)
        window = rig.start(desks=0)
        free = filled(state)
        ask_to_rotate(rig, past_epoch=window.epoch)

        rig.pass_time(3 * POLICY.lease_ttl_ms)

        assert rig.window() == window
        assert {window.current.name.hex(), window.next.name.hex()} <= set(names_in(rig.twins[0]))
        assert desk.telemetry.said_once("memory")
        assert len(desk.telemetry.events("lease.lost")) == 1

        free()
        rig.settle(above=window.epoch)
        assert desk.telemetry.standing() == []


@pytest.mark.parametrize("skew_ms", [-2 * HOUR_MS, 2 * HOUR_MS])
def test_a_scheduler_whose_clock_is_off_signs_nothing_and_makes_way(rig: Rig, skew_ms: int) -> None:
    astray = rig.add_desk()
    astray.clock.skew_ms = skew_ms
    rig.pass_time(2 * POLICY.speak_ms)

    assert rig.window() is None
    assert "clocks disagree" in astray.telemetry.said_once("clocks")[0]
    assert astray.telemetry.events("lease.taken") == []

    healthy = rig.add_desk()
    window = rig.start(desks=0)

    assert leads(healthy)
    assert not leads(astray)

    astray.clock.skew_ms = 0
    healthy.scheduler.stop()
    healthy.away = True
    rig.pass_until(lambda: leads(astray), "it leads", at_most_ms=POLICY.lease_ttl_ms + 2 * STEP_MS)

    assert astray.telemetry.standing() == []
    assert rig.window() == window


def test_a_scheduler_that_cannot_read_the_window_stands_aside_and_begins_nothing_anew(rig: Rig) -> None:
    """Half-rolled key files must cost no ticket: another scheduler may well read what this one cannot."""
    rig.start()
    standing = rig.peek.look().digest
    rig.desks.pop().scheduler.stop()
    stranger = rig.add_desk()
    stranger.scheduler.trust = replace(rig.trust, keks=(Kek(os.urandom(32)),))

    rig.pass_time(60_000)

    assert rig.peek.look().digest == standing
    assert rig.peek.look().leader == ""
