"""A machine's clocks, told what time it is by a test. Nothing moves unless the test moves it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class FakeClock:
    """
    One machine in a world where `true_ms` tells the time.

    Its wall clock is `skew_ms` ahead of that; its boot clock began with the test and runs `rate_ppm` too fast.
    """

    true_ms: Callable[[], int]
    skew_ms: int = 0
    rate_ppm: int = 0

    def __post_init__(self) -> None:
        self._boots = 1
        self._booted_at = self.true_ms()

    @property
    def boot_id(self) -> str:
        return f"boot-{self._boots}"

    def wall_ms(self) -> int:
        return self.true_ms() + self.skew_ms

    def boot_ms(self) -> int:
        elapsed_ms = self.true_ms() - self._booted_at
        return elapsed_ms + elapsed_ms * self.rate_ppm // 1_000_000

    def reboot(self) -> None:
        """Boot time begins anew, under another id."""
        self._boots += 1
        self._booted_at = self.true_ms()
