"""
A real agent that is killed at a step: once it has heard of a new window it does so many things more, and no other.

    python fated.py STEPS --config FILE

A step is the end of anything that an agent does to the world, and of the half of it that a kill could cut off: a file
written and not yet renamed. The last words in its log name the step.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyrotd.cli.main import run
from keyrotd.servers import files
from keyrotd.servers.haproxy_socket import RuntimeSocket
from keyrotd.store.redis import RedisStore

LAST_WORDS = "killed after "

#: What an agent does to the world, as (whose, name).
EFFECTS: tuple[tuple[Any, str], ...] = (
    (RedisStore, "poll"),
    (RedisStore, "report"),
    (RedisStore, "offer"),
    (files, "_write_temp"),
    (files, "write"),
    (RuntimeSocket, "push"),
)


class Fate:
    """Counts steps from the first window that a poll brings."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._heard = False

    def after(self, name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        def fated(*arguments: Any, **named: Any) -> Any:
            done = effect(*arguments, **named)
            self._heard = self._heard or (name == "poll" and done.window is not None)
            if self._heard:
                self._step(_words(name, arguments[0]))
            return done

        return fated

    def _step(self, name: str) -> None:
        if self._left == 0:
            print(LAST_WORDS + name, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def _words(name: str, subject: object) -> str:
    match subject:
        case Path():
            return f"{name} {subject.name}"
        case str():  # .FILE.HEX.tmp
            return f"{name} {subject[1:].rsplit('.', 2)[0]}"
        case _:
            return name


if __name__ == "__main__":
    fate = Fate(int(sys.argv[1]))
    for owner, name in EFFECTS:
        setattr(owner, name, fate.after(name, getattr(owner, name)))
    sys.exit(run(["agent", *sys.argv[2:]]))
