"""
What a node does with a window that it sees, and which keys it holds at an instant.

Nothing is removed because something could not be read: a window that is not newer, not complete or not fresh is
refused by reason and the keys stay. Only a higher barrier makes a key go before its own `opens_until`.
"""

from dataclasses import dataclass, replace

from keyrotd.core.decide import Memory
from keyrotd.core.keys import Keys
from keyrotd.core.stek import Stek
from keyrotd.core.window import Key, Window, usefulness


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """
    What a node holds: its window, and `strays`: keys of its own older windows that the leader did not know of.

    `confirmed`: a beat said that every live node had read this very window back.
    """

    window: Window
    strays: tuple[Key, ...] = ()
    confirmed: bool = False

    def at(self, now_at: int) -> "Held":
        """Forget every seed that may no longer open; a ring buffer may keep it until its window is confirmed."""
        strays = tuple(key for key in self.strays if key.open_at(now_at))
        faded = self.window.at(now_at) if self.confirmed or now_at >= self.window.seals_until else self.window
        return replace(self, window=faded, strays=strays)


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hold this from now on. `fork`: the new window does not descend from what the node held, which it offers."""

    held: Held
    fork: bool


@dataclass(frozen=True, slots=True)
class Keep:
    """The window is the one held already."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """`reason` is a closed set: below barrier, older epoch, incomplete, stale window."""

    reason: str


def accept(seen: Window, held: Held | None, memory: Memory, *, fresh: bool, now_at: int) -> Adopt | Keep | Refuse:
    """Judge a verified window of the node's own ring. `fresh`: a beat for it is younger than its max_seal_age."""
    if held is not None and seen.digest == held.window.digest:
        return Keep()
    if seen.barrier < memory.barrier:
        return Refuse("below barrier")
    if seen.epoch < memory.floor or (held is not None and seen.rank <= held.window.rank):
        return Refuse("older epoch")
    if any(key.stek is None and key.open_at(now_at) for key in seen.all):
        return Refuse("incomplete")
    if held is None:
        return Adopt(Held(window=seen), fork=False) if fresh else Refuse("stale window")
    fork = held.window.digest not in seen.ancestors
    ours = (*held.strays, *(held.window.all if fork else ()))
    names = {key.name for key in seen.all}
    strays = tuple(
        key
        for key in ours
        if key.stek is not None and key.open_at(now_at) and key.born >= seen.barrier and key.name not in names
    )
    return Adopt(Held(window=seen, strays=strays), fork=fork)


def isolated(held: Held | None, now_at: int) -> bool:
    """Whether a node may not (or no longer) seal with a shared key."""
    return held is None or now_at >= held.window.seals_until


def changes_at(held: Held, now_at: int) -> int | None:
    """Return the first instant after now at which `keys_at` would answer otherwise; None: only a new window matters."""
    keys = (*held.window.all, *held.strays)
    bounds = (held.window.seals_until, *(key.opens_until for key in keys if key.stek is not None))
    return min((until for until in bounds if until > now_at), default=None)


def keys_at(held: Held | None, own: tuple[Stek, Stek], now_at: int) -> Keys:
    """
    Return the keys for a server now.

    `own` are two random keys of this node alone: the first seals while the node is isolated, and both fill the roles
    for which no shared key may stand. An isolated node goes on opening every shared key until that key's own bound.
    """
    if held is None:
        return Keys(current=own[0], next=own[1])
    window = held.window
    alone = isolated(held, now_at)
    candidates = (*window.previous, *held.strays, *((window.current,) if alone else ()))
    ranked = sorted(candidates, key=usefulness, reverse=True)
    current = None if alone else window.current.stek
    next_stek = window.next.stek if window.next.open_at(now_at) else None
    return Keys(
        current=current or own[0],
        next=next_stek or own[1],
        previous=tuple(key.stek for key in ranked if key.stek is not None and key.open_at(now_at)),
        leaving=tuple(key.stek for key in ranked if key.stek is not None and not key.open_at(now_at)),
    )
