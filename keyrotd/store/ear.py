"""
When to look at a ring before it is time to, by what its channel says; nothing here knows a connection.

A hint may be lost, doubled or late, and whoever may publish hints may publish anything: all that they do is to shorten
a wait. Where nothing can be heard, looking is what finds the way back, so a lost connection is a hint too.
"""

import random
import time
from collections.abc import Callable
from typing import Final

#: What a request says on the channel: no node has anything to read then. Schedulers follow nothing else: they publish.
FOR_SCHEDULERS: Final = b"request"
#: The longest that a publish may ask the nodes to spread their looking over.
SPREAD_MOST_MS: Final = 1_000

_BACKOFF_LEAST_S: Final = 0.1
#: As long as an agent's poll interval by default: waiting longer would save nobody anything.
_BACKOFF_MOST_S: Final = 5.0
_SPREAD_DIGITS = 4


class Ear:
    """
    Of one ring's `channel`. `hint_s`, by time.monotonic, is when to look; None: nobody hinted.

    `fault` says in words why nothing can be heard just now, and `due` whether that may be tried again.
    """

    def __init__(
        self, channel: str, *, schedules: bool, changed: Callable[[], None], rand: Callable[[], float] = random.random
    ) -> None:
        self.channel, self.changed = channel, changed
        self.hint_s: float | None = None
        self.fault = ""
        self._news = False
        self._schedules, self._rand = schedules, rand
        self._failures = 0
        self._began_s: float | None = None
        self._retry_s = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._retry_s

    def hear(self, said: object) -> object:
        """Take what the store pushes, whatever it is, and hand it on."""
        match said:
            case [b"message", _, payload] if self._schedules is (payload == FOR_SCHEDULERS):
                self._hint(time.monotonic() + self._rand() * _spread_ms(payload) / 1000)
                self._news = True
        return said

    def begin(self) -> None:
        """The channel is heard from now on."""
        self._began_s, self.fault = time.monotonic(), ""

    def refuse(self, fault: str) -> None:
        """This user may not listen, now: looking costs no less for it, so there is no haste to ask again."""
        self.fault = fault
        self._retry_s = time.monotonic() + _BACKOFF_MOST_S

    def lose(self, fault: str) -> None:
        """The connection is gone. Half of the pause is chance: who lost a store together must not come back so."""
        now = time.monotonic()
        if self._began_s is not None and now - self._began_s > _BACKOFF_MOST_S:
            self._failures = 0
        backoff_s = min(_BACKOFF_MOST_S, _BACKOFF_LEAST_S * 2 ** min(self._failures, 10))
        self._began_s, self.fault = None, fault
        self._failures += 1
        self._retry_s = now + backoff_s * (0.5 + self._rand() / 2)
        self._hint(self._retry_s)

    def take_hint(self) -> bool:
        """Whether it is time to look, said once."""
        if self.hint_s is None or time.monotonic() < self.hint_s:
            return False
        self.hint_s = None
        return True

    def take_news(self) -> bool:
        """Whether something was said since this was asked last: a lost connection is no news."""
        news, self._news = self._news, False
        return news

    def _hint(self, at_s: float) -> None:
        self.hint_s = at_s if self.hint_s is None else min(self.hint_s, at_s)


def _spread_ms(payload: object) -> int:
    """Return over how long to spread what a fleet does at once; whatever is no number asks for no patience."""
    if isinstance(payload, bytes) and payload.isdigit() and len(payload) <= _SPREAD_DIGITS:
        return min(int(payload), SPREAD_MOST_MS)
    return 0
