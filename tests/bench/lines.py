"""What a bench prints: one figure a line, its target beside it where there is one."""

import statistics
import time
from collections.abc import Callable, Sequence


class Lines:
    """One section. `missed` counts the targets that its figures did not meet."""

    def __init__(self, section: str) -> None:
        self.missed = 0
        print(f"\n{section}", flush=True)

    def say(self, what: str, figure: str) -> None:
        print(f"  {what:<58} {figure}", flush=True)

    def figure(self, what: str, value: float, unit: str) -> None:
        self.say(what, f"{_short(value)} {unit}")

    def judge(self, what: str, value: float, unit: str, *, most: float) -> None:
        """A figure with a target, which it meets if it is at most that."""
        met = value <= most
        self.missed += not met
        self.say(what, f"{_short(value)} {unit:<12} target {_short(most)}: {'met' if met else 'MISSED'}")

    def spread(self, what: str, values: Sequence[float], unit: str) -> None:
        """Median and worst."""
        self.say(what, f"{_short(statistics.median(values))} {unit}, worst {_short(max(values))}")


def timed_ms(act: Callable[[], object], times: int) -> list[float]:
    """How long each of `times` calls took."""
    took = []
    for _ in range(times):
        began_s = time.perf_counter()
        act()
        took.append((time.perf_counter() - began_s) * 1000)
    return took


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
