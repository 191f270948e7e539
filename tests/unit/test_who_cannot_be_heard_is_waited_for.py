"""Reports that cannot be read are nobody's silence: a leader goes on once it has heard, or when the key must end."""

from dataclasses import replace

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.core.messages import Goal, Request
from keyrotd.core.policy import Interval
from keyrotd.seal.messages import sign_request
from keyrotd.seal.window import open_window
from keyrotd.store.memory import MemoryStore
from tests.stage import KEK, MINUTE, OPERATOR, POLICY, RING, SIGNER, Stage

QUICK = replace(
    POLICY,
    schedule=Interval(10 * MINUTE),
    ticket_lifetime_ms=2 * MINUTE,
    max_seal_age_ms=20 * MINUTE,
    overdue_after_ms=MINUTE,
)


def epoch(stage: Stage) -> int:
    found = stage.store().window()
    assert found is not None
    return open_window(found[1], verifiers=(SIGNER.verify_key,), keks=(KEK,), ring=RING).epoch


def ask(stage: Stage, past_epoch: int) -> None:
    request = Request(
        ring=RING,
        goal=Goal.ROTATE,
        past_epoch=past_epoch,
        drop_live_keys=False,
        who="ann",
        reason="drill",
        made_at=stage.now_at,
    )
    stage.store().request(id=f"past-{past_epoch}", request=sign_request(request, OPERATOR))


def unread(_: MemoryStore, *known: object, **most: int) -> dict[str, bytes]:  # noqa: ARG001 - as reports
    raise StoreUnavailable("store: reports: no answer within 1000 ms", operation="reports")


def test_a_node_whose_report_cannot_be_read_for_longer_than_it_stays_live_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage()
    stage.pause(2 * MINUTE)
    stage.servers["edge-2"].fail()
    ask(stage, 1)
    stage.pause(MINUTE)
    assert epoch(stage) == 2  # which edge-2 holds, and its server does not

    with monkeypatch.context() as patch:
        patch.setattr(MemoryStore, "reports", unread)
        ask(stage, 2)
        stage.pause(3 * POLICY.node_ttl_ms)
        assert epoch(stage) == 2
    stage.servers["edge-2"].heal()
    stage.pause(2 * MINUTE)

    assert epoch(stage) == 3


def test_reports_that_are_never_read_hold_no_rotation_beyond_the_bound_of_the_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(nodes=1, policy=QUICK)
    stage.pause(2 * MINUTE)
    monkeypatch.setattr(MemoryStore, "reports", unread)

    stage.pause(19 * MINUTE)

    assert epoch(stage) == 2
