"""
Pauses of rotation. An operator sets one, with a reason and an end; a resume ends all that were made up to then.

The store keeps both, and may lose both: then rotation goes on, which is what is safe. It may bring a pause back, so
whoever leads remembers the last resume itself.
"""

from collections.abc import Iterable

from keyrotd.core.messages import REQUEST_LIFETIME_MS, Pause, Resume


def fate(order: Pause | Resume, resumed_at: int, now_at: int) -> str:
    """Return standing, over or future; `resumed_at` is that of the newest resume that anybody here ever saw."""
    if order.made_at > now_at + REQUEST_LIFETIME_MS:
        return "future"  # a clock far ahead of the fleet's: no later resume could end such a pause
    ended = order.made_at < resumed_at if isinstance(order, Resume) else order.made_at <= resumed_at
    return "over" if ended or now_at >= order.until else "standing"


def resumed(orders: Iterable[Pause | Resume], before_at: int, now_at: int) -> int:
    """Return up to when pauses are ended by any of `orders` or, as was known before, up to `before_at`."""
    resumes = (order for order in orders if isinstance(order, Resume) and fate(order, before_at, now_at) == "standing")
    return max((resume.made_at for resume in resumes), default=before_at)


def longest(pauses: Iterable[Pause], resumed_at: int, now_at: int) -> Pause | None:
    """Return the standing pause that lasts longest."""
    standing = (pause for pause in pauses if fate(pause, resumed_at, now_at) == "standing")
    return max(standing, key=lambda pause: pause.until, default=None)
