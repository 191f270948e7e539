"""
A real agent that is killed at a step: the COUNTth time that STEP is done since it heard of a new window.

    python fated.py STEP COUNT --config FILE

A step is the end of anything that an agent does to the world, or of the half of it that a kill could cut off: a file
written and not yet renamed.
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

#: What an agent does to the world, as (whose, name).
EFFECTS: tuple[tuple[Any, str], ...] = (
    (RedisStore, "poll"),
    (RedisStore, "report"),
    (files, "_write_temp"),
    (files, "write"),
    (RuntimeSocket, "push"),
)


class Fate:
    """Counts from the first window that a poll brings."""

    def __init__(self, step: str, count: int) -> None:
        self._step, self._left = step, count
        self._heard = False

    def after(self, name: str, effect: Callable[..., Any]) -> Callable[..., Any]:
        def fated(*arguments: Any, **named: Any) -> Any:
            done = effect(*arguments, **named)
            self._heard = self._heard or (name == "poll" and done.window is not None)
            if self._heard and _words(name, arguments[0]) == self._step:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return done

        return fated


def _words(name: str, subject: object) -> str:
    match subject:
        case Path():
            return f"{name} {subject.name}"
        case str():  # .FILE.HEX.tmp
            return f"{name} {subject[1:].rsplit('.', 2)[0]}"
        case _:
            return name


if __name__ == "__main__":
    fate = Fate(sys.argv[1], int(sys.argv[2]))
    for owner, name in EFFECTS:
        setattr(owner, name, fate.after(name, getattr(owner, name)))
    sys.exit(run(["agent", *sys.argv[3:]]))
