"""
What one scheduler knows of pauses: which it has judged, and up to when they were ended.

The latter it keeps on its own disk, and learns while it stands by too: a store that loses a resume and brings back the
pause holds nothing.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from keyrotd.core.decide import latest_rotation_at
from keyrotd.core.errors import CorruptWindow
from keyrotd.core.messages import Pause, Resume
from keyrotd.core.pauses import fate, longest, resumed
from keyrotd.core.policy import Policy
from keyrotd.core.window import Window
from keyrotd.daemon.state import Folder, refuse_downgrade
from keyrotd.seal import lines, versions
from keyrotd.seal.lines import line

_MAX_BYTES = 256


@dataclass(frozen=True, slots=True)
class TooLong:
    """A pause that would outlast the bound of the key that seals."""

    pause: Pause
    latest_at: int


News: TypeAlias = Pause | Resume | TooLong


class Pauses:
    """See the module."""

    def __init__(self, ring: str, folder: Folder) -> None:
        self._folder, self._name = folder, f"scheduler-{ring}.resumed"
        self._resumed_at = _recall(folder, self._name)
        self._judged: dict[Pause, bool] = {}  # and whether it was taken

    def hear(self, orders: Iterable[Pause | Resume], now_at: int) -> tuple[Resume, ...]:
        """Remember a resume before anything rests on it; return it if it is news."""
        orders = tuple(orders)
        resumed_at = resumed(orders, self._resumed_at, now_at)
        if resumed_at == self._resumed_at:
            return ()
        self._resumed_at = resumed_at
        with suppress(OSError):  # the store has it too; whether the disk is well, others say
            self._folder.write(self._name, versions.body("resumed", (line("resumed_at", resumed_at),)).encode())
        return tuple(order for order in orders if isinstance(order, Resume) and order.made_at == resumed_at)[:1]

    def judge(self, orders: Iterable[Pause | Resume], window: Window, policy: Policy, now_at: int) -> tuple[News, ...]:
        """Hear `orders`, and take those pauses that the bound of `window` lets stand; return what is new."""
        orders = tuple(orders)
        news: list[News] = [*self.hear(orders, now_at)]
        self._judged = {pause: taken for pause, taken in self._judged.items() if now_at < pause.until}
        latest_at = latest_rotation_at(window, policy)
        for pause in orders:
            if isinstance(pause, Resume) or pause in self._judged or self.fate(pause, now_at) != "standing":
                continue
            self._judged[pause] = pause.until <= latest_at
            news.append(pause if self._judged[pause] else TooLong(pause, latest_at))
        return tuple(news)

    def fate(self, order: Pause | Resume, now_at: int) -> str:
        """Say what becomes of it, as core/pauses does; one that was not taken is over."""
        if isinstance(order, Pause) and self._judged.get(order) is False:
            return "over"
        return fate(order, self._resumed_at, now_at)

    def standing(self, orders: Iterable[Pause | Resume], now_at: int) -> Pause | None:
        """Return the longest of those that the store still shows: what it loses holds nothing."""
        taken = (order for order in orders if isinstance(order, Pause) and self._judged.get(order))
        return longest(taken, self._resumed_at, now_at)


def _recall(folder: Folder, name: str) -> int:
    try:
        data = folder.read(name)
        if data is None:
            return 0
        body = lines.own(data, kind="resumed", limit=_MAX_BYTES)
        resumed_at = body.take("resumed_at", lines.number)
        body.end()
    except (CorruptWindow, OSError) as unreadable:
        refuse_downgrade(unreadable, name)
        return 0  # at worst a pause that was ended holds a while longer, within its own bound
    return resumed_at
