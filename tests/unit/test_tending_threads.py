"""Servers side by side: whatever one of them does, it does it once, and to itself."""

import threading

import pytest

from keyrotd.core.messages import ProbeState, ServerReport, ServerState
from keyrotd.daemon.tending import Tended, Threads

DONE = Tended(
    report=ServerReport(
        name="h", driver="haproxy", state=ServerState.IN_STEP, slots=3, probe=ProbeState.NONE, fault=""
    ),
    wanted=(),
    tenure=None,
    instance="1",
)


def boom() -> Tended:
    raise ArithmeticError("unexpected")


def test_a_task_that_raised_late_raises_once_and_is_tried_again() -> None:
    workers, go = Threads(1), threading.Event()

    def late() -> Tended:
        go.wait(10)
        return boom()

    assert workers.run({"h": late}, 1) == {}
    go.set()
    with pytest.raises(ArithmeticError):
        workers.run({}, 10_000)
    assert workers.run({"h": lambda: DONE}, 10_000) == {"h": DONE}
    workers.close()
