"""Servers side by side: whatever one of them does, it does it once, and to itself."""

import threading
from dataclasses import replace

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


def test_an_install_that_came_late_is_told_before_what_followed_it() -> None:
    """The run after it finds the server in step, and has nothing to install."""
    workers, go = Threads(1), threading.Event()
    late = replace(DONE, installed=True, took_ms=700)

    assert workers.run({"h": lambda: late if go.wait(10) else DONE}, 1) == {}
    go.set()
    workers._running["h"].result(10)

    assert workers.run({"h": lambda: DONE}, 10_000) == {"h": (late, DONE)}
    assert workers.run({"h": lambda: DONE}, 10_000) == {"h": (DONE,)}
    workers.close()


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
    assert workers.run({"h": lambda: DONE}, 10_000) == {"h": (DONE,)}
    workers.close()
