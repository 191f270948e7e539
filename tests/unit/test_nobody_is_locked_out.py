"""A key is promoted when everyone is proven to accept it, and retired when nothing that stands needs it any more."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from keyrotd.cli.desk import Desk, observe
from keyrotd.cli.lockout import Shown, bound_to_others, look_twice, unaware_of
from keyrotd.cli.situation import Situation
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.store import limits
from tests.stage import HOUR, KEK, MINUTE, OPERATOR, SIGNER, Stage

NEW_KEK = Kek(hashlib.sha256(b"new kek").digest())
NEW_SIGNER = SigningKey(hashlib.sha256(b"new signer").digest())
NEW_OPERATOR = OperatorKey(hashlib.sha256(b"new operator").digest())
BOTH_KEKS = (KEK, NEW_KEK)
BOTH_VERIFIERS = (SIGNER.verify_key, NEW_SIGNER.verify_key)


@pytest.fixture
def stage() -> Stage:
    found = Stage()
    found.pause(MINUTE)
    return found


def desk(stage: Stage) -> Desk:
    """What the host sees that has all keys, old and new."""
    return replace(stage.desk(), verifiers=BOTH_VERIFIERS, keks=BOTH_KEKS)


def unaware(stage: Stage, key_id: str, *, nodes: bool = True, given_up: tuple[str, ...] = ()) -> list[str]:
    shown = Shown(look=stage.store().look(), reports=stage.store().reports())
    return list(unaware_of(key_id, shown, observe(desk(stage), stage), nodes=nodes, given_up=given_up))


def bound(stage: Stage, *, given_up: tuple[str, ...] = ()) -> list[str]:
    """What could not be read with the new keys alone."""
    situation, store = observe(desk(stage), stage), stage.store()
    shown = Shown(look=store.look(), reports=store.reports())
    verifiers = (NEW_SIGNER.verify_key,)
    return list(bound_to_others(shown, situation, verifiers=verifiers, keks=(NEW_KEK,), given_up=given_up))


def give(stage: Stage, name: str, **changes: Any) -> None:
    """Other key files, and a reload."""
    if name == "scheduler-1":
        stage.scheduler.trust = replace(stage.scheduler.trust, **changes)
    else:
        stage.agents[name].trust = replace(stage.agents[name].trust, **changes)


def test_each_that_does_not_accept_a_kek_is_named(stage: Stage) -> None:
    assert unaware(stage, NEW_KEK.id) == [
        "the leader scheduler-1 does not accept it yet",
        "edge-1 does not accept it yet",
        "edge-2 does not accept it yet",
    ]

    give(stage, "scheduler-1", keks=BOTH_KEKS)
    give(stage, "edge-1", keks=BOTH_KEKS)
    stage.pause(MINUTE)
    assert unaware(stage, NEW_KEK.id) == ["edge-2 does not accept it yet"]
    assert unaware(stage, NEW_KEK.id, given_up=("edge-2",)) == []

    give(stage, "edge-2", keks=BOTH_KEKS)
    stage.pause(MINUTE)
    assert unaware(stage, NEW_KEK.id) == []


def test_a_silent_node_counts_by_its_last_word(stage: Stage) -> None:
    give(stage, "scheduler-1", verifiers=BOTH_VERIFIERS)
    give(stage, "edge-1", verifiers=BOTH_VERIFIERS)
    stage.pause(MINUTE)
    stage.away = {"edge-2"}
    stage.pause(HOUR)

    (found,) = unaware(stage, NEW_SIGNER.id)

    assert found.startswith("edge-2, silent since 2027-03-01T12:0")
    assert found.endswith(", does not accept it yet")


def test_an_operator_key_is_the_leader_s_affair_alone(stage: Stage) -> None:
    operators = (OPERATOR.verify_key, NEW_OPERATOR.verify_key)
    assert unaware(stage, NEW_OPERATOR.id, nodes=False) == ["the leader scheduler-1 does not accept it yet"]

    give(stage, "scheduler-1", operators=operators)
    stage.pause(MINUTE)

    assert unaware(stage, NEW_OPERATOR.id, nodes=False) == []


def test_without_a_leader_nothing_is_promoted_or_retired(stage: Stage) -> None:
    stage.away = {"scheduler-1"}
    stage.pause(HOUR)

    for found in (unaware(stage, NEW_KEK.id), bound(stage)):
        assert len(found) == 1
        assert found[0].startswith("no leader: ")


def test_an_old_key_is_kept_until_all_that_stands_is_under_the_new_one(stage: Stage) -> None:
    everyone = ("scheduler-1", "edge-1", "edge-2")
    for name in everyone:
        give(stage, name, keks=BOTH_KEKS, verifiers=BOTH_VERIFIERS)
    stage.pause(MINUTE)
    assert bound(stage) == [
        "the leader scheduler-1 still signs with another key",
        "the window that stands is signed with another key: the next one will not be",
        "edge-1 still reports under another KEK",
        "edge-2 still reports under another KEK",
    ]

    give(stage, "scheduler-1", signer=NEW_SIGNER, keks=BOTH_KEKS[::-1])
    give(stage, "edge-1", keks=BOTH_KEKS[::-1])
    stage.pause(MINUTE)
    assert bound(stage) == [
        "the window that stands is signed with another key: the next one will not be",
        "edge-2 still reports under another KEK",
    ]

    give(stage, "edge-2", keks=BOTH_KEKS[::-1])
    stage.away = {"edge-2"}
    stage.pause(5 * HOUR)
    (found,) = bound(stage)
    assert found.startswith("edge-2, silent since ")
    assert bound(stage, given_up=("edge-2",)) == []

    stage.away = set()
    stage.pause(MINUTE)
    assert bound(stage) == []


def test_a_window_under_the_old_kek_is_named_by_its_epoch(stage: Stage) -> None:
    for name in ("scheduler-1", "edge-1", "edge-2"):
        give(stage, name, keks=BOTH_KEKS[::-1], verifiers=BOTH_VERIFIERS)
    give(stage, "scheduler-1", signer=NEW_SIGNER, keks=BOTH_KEKS)
    stage.pause(5 * HOUR)
    give(stage, "scheduler-1", keks=BOTH_KEKS[::-1])
    stage.pause(MINUTE)

    assert bound(stage) == ["window 2, which stands, is sealed with another KEK: the next one will not be"]


def test_a_live_node_that_lags_behind_is_waited_for(stage: Stage) -> None:
    for name in ("scheduler-1", "edge-1", "edge-2"):
        give(stage, name, keks=BOTH_KEKS[::-1], verifiers=BOTH_VERIFIERS)
    give(stage, "scheduler-1", signer=NEW_SIGNER)
    stage.pause(4 * HOUR - MINUTE)
    stage.servers["edge-1"].fail()
    stage.pause(HOUR)

    assert bound(stage) == ["the leader has not confirmed the window yet", "edge-1 has not read the window back"]


def hinders(stage: Stage, *, given_up: tuple[str, ...] = ()) -> list[str]:
    """What hinders the promotion of the new KEK, seen twice."""

    def judged(_: Desk, shown: Shown, situation: Situation) -> Iterator[str]:
        return unaware_of(NEW_KEK.id, shown, situation, nodes=True, given_up=given_up)

    return look_twice([desk(stage)], stage, judged, again=lambda _: None)


@pytest.fixture
def half(stage: Stage) -> Stage:
    """All but edge-2 have the new KEK."""
    for name in ("scheduler-1", "edge-1"):
        give(stage, name, keks=BOTH_KEKS)
    stage.pause(MINUTE)
    return stage


def test_a_node_whose_report_was_lost_is_waited_for(half: Stage) -> None:
    half.store().forget(nodes=["edge-2"])

    assert hinders(half) == ["edge-2 does not accept it yet"]


def test_a_report_that_was_lost_after_the_first_look_still_counts(half: Stage) -> None:
    give(half, "edge-2", keks=BOTH_KEKS)
    half.pause(MINUTE)
    lost: list[str] = []

    def judged(_: Desk, shown: Shown, _situation: Situation) -> Iterator[str]:
        lost.extend(shown.reports)
        half.away = {"edge-2"}
        half.store().forget(nodes=["edge-2"])
        return iter(())

    assert look_twice([desk(half)], half, judged, again=lambda _: None) == []
    assert lost == ["edge-1", "edge-2"] * 2


def test_a_report_that_is_not_proven_stands_for_a_node(half: Stage) -> None:
    half.store().report(node="edge-2", report=b"x")

    assert hinders(half) == ["not proven: the report of edge-2"]
    assert hinders(half, given_up=("edge-2",)) == []


def test_reports_that_the_store_does_not_show_stand_for_nodes(half: Stage) -> None:
    for count in range(limits.STRANGERS_BYTES // limits.REPORT_BYTES * 4):
        half.store().report(node=f"rogue-{count}", report=bytes(limits.REPORT_BYTES))

    assert hinders(half)[-1].startswith("the store counts 1 report more than it shows: ")


def test_an_empty_fleet_says_nothing_about_anybody(half: Stage) -> None:
    half.away = {"edge-1", "edge-2"}
    half.store().forget(nodes=["edge-1", "edge-2"])

    assert hinders(half) == ["no live node is seen, so nobody can say what nodes accept"]


def test_the_last_node_may_be_given_up(half: Stage) -> None:
    half.store().forget(nodes=["edge-1"])
    half.away = {"edge-1", "edge-2"}
    half.pause(HOUR)

    assert len(hinders(half)) == 2
    assert hinders(half, given_up=("edge-2",)) == []
