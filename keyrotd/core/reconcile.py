"""
What a node does with a window that it sees, and which keys it holds at an instant.

Nothing is removed because something could not be read: a window that is not newer, not complete or not fresh is
refused by reason and the keys stay. Only a higher barrier makes a key go before its own `opens_until`.

Where no leader is heard, a node goes on along the newest key that it knows to be in everywhere: `next` if a beat
confirmed the window, from the instant at which a leader would have promoted it (unless the window ends within T); else
`current`; and from the window's `seals_until` on with their followers (core/succession). What any other node in step
may seal with meanwhile, it opens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from keyrotd.core.decide import Memory
from keyrotd.core.keys import Keys
from keyrotd.core.stek import Stek
from keyrotd.core.succession import Line, Succession, sealing_at, starts_at, succession
from keyrotd.core.window import Key, Window, usefulness

#: More keys than any server's few slots, and than a node seals with while tickets of the first live.
MAX_SEALED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """
    What a node holds: its window, and `strays`: keys of its own older windows that the leader did not know of.

    `confirmed_at`: since when, as a beat said, every live node has read this very window back. `spread`: so its `next`
    is in everywhere, also if this window is the mended form of the one that was confirmed. `succession` is there since
    the instant from which somebody may have gone on without a leader, `stood_in` since this node seals with `next`.
    `sealed` names what this node has sealed with, the latest first: what a server with few slots keeps.
    """

    window: Window
    strays: tuple[Key, ...] = ()
    confirmed_at: int | None = None
    spread: bool = False
    stood_in: bool = False
    succession: Succession | None = None
    sealed: tuple[bytes, ...] = ()

    @property
    def confirmed(self) -> bool:
        return self.confirmed_at is not None

    def heard(self, confirmed_at: int) -> "Held":
        """Return this, confirmed. Who went on before stays on its line: to change lines is one more key that sealed."""
        spread = self.spread or confirmed_at < self.window.seals_until
        return replace(self, confirmed_at=confirmed_at, spread=spread)

    def on(self, now_at: int, *, silent: bool) -> "Held":
        """Go on to this instant: alone, if it must be (`silent`: no leader was heard lately), and never back."""
        window = self.window
        # Whoever had not read this window when the one before it ended, went on then.
        missed_at = window.current.steps_at - _ahead_ms(window)
        missed = now_at >= missed_at and (self.confirmed_at is None or self.confirmed_at > missed_at)
        line = self.succession
        if line is None and (silent or missed or now_at >= window.seals_until - _ahead_ms(window)):
            line = succession(window)
        # Not shortly before the window ends: three keys within T are more than three slots open.
        last_at = window.seals_until - window.ticket_lifetime_ms - window.eps_ms
        stands_in = silent and self.spread and window.stands_in_at <= now_at < last_at
        gone = replace(self, succession=line, stood_in=self.stood_in or stands_in)
        key = _sealing(gone, now_at)
        if key is None or self.sealed[:1] == (key.name,):
            return gone
        return replace(gone, sealed=(key.name, *(name for name in self.sealed if name != key.name))[:MAX_SEALED])

    def at(self, now_at: int) -> "Held":
        """Forget every seed that may no longer open; a ring buffer may keep it until its window is confirmed."""
        return replace(
            self,
            window=self.window.at(now_at) if self.confirmed or now_at >= self.window.seals_until else self.window,
            strays=tuple(key for key in self.strays if key.open_at(now_at)),
            succession=None if self.succession is None else self.succession.at(now_at),
        )


def _ahead_ms(window: Window) -> int:
    """How long before anybody may seal with a follower it is opened: time for clocks, and for a server that refuses."""
    return window.eps_ms + window.current.step_ms // 8


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
    # A step ahead, too: until all have this window, and while they wait for a key that nobody had, nodes go on.
    followers = () if held.succession is None else held.succession.open_at(now_at)
    ours = (*followers, *held.strays, *(held.window.all if fork else ()))
    names = {key.name for key in seen.all}
    strays = {
        key.name: key
        for key in ours
        if key.stek is not None and key.open_at(now_at) and key.born >= seen.barrier and key.name not in names
    }
    adopted = Held(window=seen, strays=tuple(strays.values()), sealed=held.sealed)
    if (seen.current.name, seen.next.name) == (held.window.current.name, held.window.next.name):
        # Mended: the same keys, so the same way on; where it was not known, this copy may have the seed.
        gone_on = None if held.succession is None else held.succession.completed(seen)
        adopted = replace(adopted, spread=held.spread, stood_in=held.stood_in, succession=gone_on)
    if adopted.succession is None and None in {seen.current.stek, seen.next.stek}:
        # A copy whose seeds were forgotten on the way: what this node knows of them does not go with its old window.
        known = held.succession or succession(held.window)
        adopted = replace(adopted, succession=succession(seen, known.lines))
    return Adopt(adopted, fork=fork)


class Footing(Enum):
    """What a node seals with: the `current` that a leader gave it, what follows without one, or keys of its own."""

    LED = "led"
    STRANDED = "stranded"
    ISOLATED = "isolated"


def footing(held: Held | None, now_at: int) -> Footing:
    key = None if held is None else _sealing(held, now_at)
    if held is None or key is None:
        return Footing.ISOLATED
    return Footing.LED if key.name == held.window.current.name else Footing.STRANDED


def steps(held: Held, now_at: int) -> int:
    """Return how many steps of succession a node has gone, 0 for none."""
    if footing(held, now_at) is not Footing.STRANDED or now_at < held.window.seals_until:
        return 0
    return (now_at - held.window.seals_until) // held.window.current.step_ms + 1


def along(held: Held, now_at: int) -> bytes | None:
    """Return the name of the window's key whose followers a node has gone on along; None for no step yet."""
    way = _way(held)
    return None if way is None or not steps(held, now_at) else way[0].name


def seals_until(held: Held, now_at: int) -> int | None:
    """Return the instant from which the shared key that seals now may not any more; None while none does."""
    key = _sealing(held, now_at)
    if key is None:
        return None
    # `next` has no end of its own yet: who stands in with it stops when the window ends.
    of_window = key.name in {held.window.current.name, held.window.next.name}
    return held.window.seals_until if of_window else key.seals_until


def opens_until(held: Held, now_at: int) -> int | None:
    """Return the instant from which none of the shared keys may open any more; None while none does."""
    opening = (key for key in _opening(held, now_at) if key.stek is not None and key.open_at(now_at))
    return max((key.opens_until for key in opening), default=None)


def steady(held: Held | None, now_at: int) -> bool:
    """Whether every key that opens here is open everywhere, so that any of them may seal for microseconds."""
    if held is None or held.confirmed:
        return True
    return footing(held, now_at) is not Footing.LED and not _unspread(held, now_at)


def _sealing(held: Held, now_at: int) -> Key | None:
    """Return the shared key that seals now, None if none may."""
    window = held.window
    if _unspread(held, now_at):
        return next((key for key in _sealed_along(held) if sealing_at(key, now_at)), None)
    if now_at < window.seals_until:
        return window.next if held.stood_in else window.current
    if now_at >= window.seals_until + window.max_stranded_ms:
        return None
    return next((key for key in _line(held, now_at) if sealing_at(key, now_at)), None)


def _sealed_along(held: Held) -> Iterator[Key]:
    """
    What this node went on along before it had its window, each with what follows: others open that, and wait as well.

    A parallel line may be one that only some know of.
    """
    known = {key.name: key for key in (*held.strays, *held.window.previous) if key.stek is not None}
    for key in (known[name] for name in held.sealed if name in known):
        yield key
        # Only what was opened a step ahead: it is in `known`, then.
        if key.stek is not None and key.stek.child.name in known:
            yield known[key.stek.child.name]


def _since(held: Held, key: Key) -> int:
    """Return how many keys this node has sealed with since it sealed with this one; if never, more than any."""
    return held.sealed.index(key.name) if key.name in held.sealed else len(held.sealed)


def _unspread(held: Held, now_at: int) -> bool:
    """
    Whether `current` came without having been a `next`, and may not be in everywhere yet.

    A revocation does not wait, and the first window of a ring has nobody to wait for.
    """
    window = held.window
    heard = held.confirmed or held.spread or window.current.name in held.sealed
    return _sprung(window) and not heard and now_at < _spread_at(window)


def _sprung(window: Window) -> bool:
    key = window.current
    return key.made_at == key.seals_from and key.born != window.barrier and bool(window.ancestors)


def _spread_at(window: Window) -> int:
    return (window.current.seals_from or window.published_at) + _ahead_ms(window)


def _line(held: Held, now_at: int) -> tuple[Key, ...]:
    way = _way(held)
    return () if way is None else way[1].open_at(now_at)


def _way(held: Held) -> tuple[Key, Line] | None:
    """Return the key whose followers this node goes on along: any that others open, rather than none."""
    if held.succession is None:
        return None
    following, standing = (held.window.next, held.succession.next), (held.window.current, held.succession.current)
    ways = (following, standing) if held.spread else (standing, following)
    return next(((key, line) for key, line in ways if line is not None), None)


def _opening(held: Held, now_at: int) -> tuple[Key, ...]:
    followers = () if held.succession is None else held.succession.open_at(now_at)
    return (*held.window.all, *held.strays, *followers)


def changes_at(held: Held, now_at: int) -> int | None:
    """Return the first instant after now at which `keys_at` would answer otherwise; None: only a new window matters."""
    window = held.window
    ends_at = window.seals_until
    bounds = [ends_at - _ahead_ms(window), ends_at - window.eps_ms, ends_at, ends_at + window.max_stranded_ms]
    bounds += [key.opens_until for key in _opening(held, now_at) if key.stek is not None]
    if not held.confirmed:
        bounds.append(window.current.steps_at - _ahead_ms(window))
    if _unspread(held, now_at):
        bounds += [_spread_at(window), *(starts_at(key) for key in _sealed_along(held) if key.seals_from is not None)]
    if held.succession is not None:
        bounds += [window.stands_in_at, *(starts_at(key) for key in held.succession.open_at(now_at))]
    return min((until for until in bounds if until > now_at), default=None)


def keys_at(held: Held | None, own: tuple[Stek, Stek], now_at: int) -> Keys:
    """
    Return the keys for a server now.

    `own` are two random keys of this node alone: the first seals while the node is isolated, and both fill the roles
    for which no shared key may stand. An isolated node goes on opening every shared key until that key's own bound.
    """
    if held is None:
        return Keys(current=own[0], next=own[1])
    sealing = _sealing(held, now_at)
    ahead = _ahead(held, sealing, now_at)
    taken = {key.name for key in (sealing, ahead) if key is not None}
    rest = {key.name: key for key in _opening(held, now_at) if key.stek is not None and key.name not in taken}
    ranked = _ranked(rest.values(), held, now_at)
    return Keys(
        current=(sealing and sealing.stek) or own[0],
        next=(ahead and ahead.stek) or own[1],
        previous=tuple(key.stek for key in ranked if key.stek is not None and key.open_at(now_at)),
        leaving=tuple(key.stek for key in ranked if key.stek is not None and not key.open_at(now_at)),
    )


def _ahead(held: Held, sealing: Key | None, now_at: int) -> Key | None:
    """Return the key that seals after this one, by all that the node knows."""
    window = held.window
    if sealing is not None and sealing.name not in {window.current.name, window.next.name}:
        if _unspread(held, now_at):
            return window.current
        line = _line(held, now_at)
    else:
        line = _line(held, now_at) if sealing is window.next else (window.next,)
    after = (key for key in line if key.open_at(now_at) and (key.seals_from is None or key.seals_from > now_at))
    return next(after, None)


def _ranked(keys: Iterable[Key], held: Held, now_at: int) -> list[Key]:
    """
    Most useful first: what this node may have sealed with, the latest first; then what only others may have.

    For eps before the window ends, what this node will seal with then comes before all.
    """
    window, line = held.window, {key.name for key in _line(held, now_at)}
    led = footing(held, now_at) is Footing.LED
    mine = line | {key.name for key in (*window.all, *held.strays)}

    ends_at = window.seals_until
    # No earlier: until then tickets of the key before `current` may live.
    ending = ends_at - window.eps_ms <= now_at < ends_at
    own = {key.name for key in _line(held, ends_at) if sealing_at(key, ends_at)} if ending else set[bytes]()

    def useful(key: Key) -> tuple[bool, int, bool, bool, int, int]:
        sealed_at, opens_until = usefulness(key)
        begun_at, by_at = key.seals_from, now_at if key.name in line else window.published_at
        if key.name == window.next.name and held.stood_in:
            begun_at, by_at, sealed_at = window.stands_in_at, now_at, key.steps_at
        begun = begun_at is not None and begun_at <= by_at
        # After a renewal those of its current's own line come first: the fleet went on along that one.
        akin = led and key.born == window.current.born
        last_at = min(sealed_at, now_at) if begun else -1
        return key.name in own, -_since(held, key), key.name in mine, akin, last_at, opens_until

    return sorted(keys, key=useful, reverse=True)
