"""A question's bound on bytes is its own, though another thread listens on the connection just when it is asked."""

import threading
from pathlib import Path
from typing import Any

import pytest

from keyrotd.store.addresses import parse
from keyrotd.store.redispy import RedisTimeoutError
from keyrotd.store.wire import ANSWER_BYTES, Command, Wire


class Held:
    """A connection on which nothing was said, as somebody finds out in his own time."""

    def __init__(self) -> None:
        self.listened, self.go = threading.Event(), threading.Event()

    def read_response(self, **_: object) -> object:
        self.listened.set()
        self.go.wait(10)
        raise RedisTimeoutError


def test_a_question_asked_while_another_thread_listens_has_all_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    wire, line = Wire(parse("redis://127.0.0.1", runtime_dir=Path("/nowhere")), timeout_ms=10_000), Held()
    monkeypatch.setattr(wire, "_connection", line)
    monkeypatch.setattr(wire, "_listening", True)
    wire._bounds.left = 17  # what the last question left
    found: list[int] = []

    def exchange(_: tuple[Command, ...]) -> list[Any]:
        with wire._turn:
            found.append(wire._bounds.left)
        return []

    monkeypatch.setattr(wire, "_exchange", exchange)
    listener = threading.Thread(target=wire.listen)
    asker = threading.Thread(target=wire.ask, args=("poll", ("PING",)))
    listener.start()
    line.listened.wait(10)
    asker.start()
    asker.join(0.05)  # it may begin now, and must not
    line.go.set()
    listener.join(10)
    asker.join(10)

    assert found == [ANSWER_BYTES]
