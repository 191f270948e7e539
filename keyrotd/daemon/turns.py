"""What nobody expected costs only the turn in which it happened. The one place where everything is caught."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception that nobody expected: a fault of ours, or of a driver that somebody else wrote."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Ticked:
    """
    How a tick went: the longest pause in milliseconds before the next one, and whatever nobody expected on the way.

    `pause_ms` None: nobody was left to say. With a crash a tick has not run to its end, whoever else had a turn.
    """

    pause_ms: int | None
    crashes: tuple[Crash, ...] = ()


def attempt(act: Callable[[], _T]) -> _T | Crash:
    """Act, and return what came of it. A crash is to be told whole (`Reporter.crash`), and feeds no watchdog."""
    try:
        return act()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the one place; a driver may not end the daemon either
        return Crash(error)


def take_turns(acts: Iterable[Callable[[], _T]]) -> tuple[list[_T], tuple[Crash, ...]]:
    """Let everyone act, whatever became of those before; return the outcomes of those who came to their end."""
    outcomes = [attempt(act) for act in acts]
    crashes = tuple(outcome for outcome in outcomes if isinstance(outcome, Crash))
    return [outcome for outcome in outcomes if not isinstance(outcome, Crash)], crashes
