"""
How a ring goes on without a leader: every key has followers, which whoever holds it derives and nobody traces back.

A follower is a function of the key before it, and so is the time at which it seals: from that key's `steps_at`, for
`step_ms`, and never again. So all who hold a key go on in step, without a word, and one who takes a follower cannot
open what an earlier one sealed. Which keys' followers a node seals with, and which it opens, see core/reconcile.

While a key of the window is itself still held, its followers can be derived from it: their secrecy begins when the
window's own bound for that key has passed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from keyrotd.core.policy import DRIFT_DIVISOR
from keyrotd.core.stek import Stek
from keyrotd.core.window import MAX_KEYS, Key, Terms, Window, kept, made, promoted, successor

#: A line opens this many steps back, and no more: with three lines in use, what a renewal can take over in one window.
MAX_STEPS_OPEN = MAX_KEYS // 4

#: How many keys a line remembers to have followed, by their names.
MAX_ROOTS = 64


def follower(key: Key, linger_ms: int) -> Key:
    """Return the key that follows `key`, whose seed must be known; it opens for `linger_ms` after it last sealed."""
    assert key.stek is not None  # whoever calls has looked
    stek = key.stek.child
    seals_until = key.steps_at + key.step_ms
    return Key(
        name=stek.name,
        stek=stek,
        born=key.born,
        made_at=key.steps_at - key.step_ms,  # it opens a step before it seals, as `next` does
        seals_from=key.steps_at,
        seals_until=seals_until,
        opens_until=seals_until + linger_ms,
        steps_at=seals_until,
        step_ms=key.step_ms,
    )


def after(link: Key) -> Key:
    """Return the follower of a follower: its tickets are given more time, as clocks part while nobody sets them."""
    assert link.seals_until is not None  # a follower always says until when
    return follower(link, link.opens_until - link.seals_until + link.step_ms // DRIFT_DIVISOR)


def starts_at(link: Key) -> int:
    assert link.seals_from is not None  # a follower always says when
    return link.seals_from


def sealing_at(link: Key, now_at: int) -> bool:
    return link.seals_from is not None and link.seals_until is not None and link.seals_from <= now_at < link.seals_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """
    The followers of one key, from the oldest that may still open; none that begins at `ends_at`.

    `roots` are the names of the keys that all of them follow, oldest first: a renewal may have made any of these the
    key of a window whose seed is forgotten by now, and what follows it is known here.
    """

    roots: tuple[bytes, ...]
    oldest: Key
    ends_at: int

    def at(self, now_at: int) -> "Line":
        """Forget what may no longer open, and what too many have followed."""
        key, passed = self.oldest, list[bytes]()
        while starts_at(key) < self.ends_at and not self._needed(key, now_at):
            passed.append(key.name)
            key = after(key)
        return replace(self, roots=(*self.roots, *passed)[-MAX_ROOTS:], oldest=key)

    def open_at(self, now_at: int) -> tuple[Key, ...]:
        """Return all that open, oldest first: the last one seals a step later, and opens already, as `next` does."""
        return tuple(self._links(now_at))

    def _needed(self, key: Key, now_at: int) -> bool:
        return key.open_at(now_at) and now_at - starts_at(key) < MAX_STEPS_OPEN * key.step_ms

    def _links(self, now_at: int) -> Iterator[Key]:
        key = self.at(now_at).oldest
        while starts_at(key) < self.ends_at and starts_at(key) <= now_at + key.step_ms:
            yield key
            key = after(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """
    The lines of a window on which any node in step may seal. None for a key whose seed is not known.

    Nodes may hold the window before or after this one, and may or may not have heard that it was confirmed: so one
    seals with followers of this `current`, of its `next`, or of what the window before held (`others`).
    """

    current: Line | None
    next: Line | None
    others: tuple[Line, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(line for line in (self.next, self.current, *self.others) if line is not None)

    def at(self, now_at: int) -> "Succession":
        return Succession(
            current=None if self.current is None else self.current.at(now_at),
            next=None if self.next is None else self.next.at(now_at),
            others=tuple(line.at(now_at) for line in self.others),
        )

    def completed(self, window: Window) -> "Succession":
        """Return it with what `window`, of the same keys, knows of their lines and this does not."""
        known = succession(window)
        return replace(self, current=self.current or known.current, next=self.next or known.next)

    def open_at(self, now_at: int) -> tuple[Key, ...]:
        return tuple(key for line in self.lines for key in line.open_at(now_at))


def succession(window: Window, known: tuple[Line, ...] = ()) -> Succession:
    """Return what follows the keys of `window`; `known` are lines of the window before, for seeds forgotten since."""
    others = (_line(window, key, known) for key in _gone_on_along(window))
    return Succession(
        current=_line(window, window.current, known),
        next=_line(window, window.next, known),
        others=tuple(line for line in others if line is not None),
    )


def _gone_on_along(window: Window) -> tuple[Key, ...]:
    """Return the previous keys from which nodes that missed `window` may go on."""
    # After a renewal: all that it took over one step ahead of the time, its current's own line apart.
    ahead = (key for key in window.previous if key.seals_from is not None and key.seals_from > window.published_at)
    # After a rotation: the former current, at whose end this current was to be followed, and what stood in till then.
    former = (key for key in window.previous if key.seals_until == window.current.steps_at)
    return tuple({key.name: key for key in (*ahead, *former)}.values())


def _line(window: Window, key: Key, known: tuple[Line, ...]) -> Line | None:
    # Whoever holds the window after this one goes on for longer, by what one window may last: that is opened, too.
    lasts_ms = window.seals_until - (window.current.seals_from or window.published_at)
    ends_at = window.seals_until + window.max_stranded_ms + lasts_ms + key.step_ms
    if key.stek is None:
        line = next((line for line in known if key.name in line.roots), None)
        return line and replace(line, ends_at=max(ends_at, line.ends_at))
    return Line(roots=(key.name,), oldest=follower(key, window.ticket_lifetime_ms + window.eps_ms), ends_at=ends_at)


def carried(made: Window, window: Window, *, settled_at: int | None, now_at: int, terms: Terms) -> Window:
    """
    Return `made`, which replaces `window`, with the followers that nodes sealed with before they had read `window`.

    `settled_at` is as in `rotate`. Those that were late, and missed the end of the window before, went on from there.
    """
    until = (now_at if settled_at is None else settled_at) + window.eps_ms
    if until < window.current.steps_at:
        return made
    lines = succession(window)
    names = {key.name for key in made.all}
    gone_on = {
        key.name: key
        for line in (lines.current, *lines.others)
        if line is not None
        for key in line.open_at(now_at)
        if starts_at(key) <= until and key.name not in names
    }
    return replace(made, previous=kept((*made.previous, *gone_on.values()), now_at, terms)) if gone_on else made


def renew(
    window: Window, *, root: Key | None, fresh: tuple[Stek, Stek], fence: int, now_at: int, terms: Terms
) -> Window:
    """
    What a returning leader publishes: nodes went on by succession since `window.seals_until`.

    `current` is the follower of `root` that stranded nodes open already and do not seal with yet, `next` is fresh, and
    all else that may open goes on opening. Without a `root` both are fresh: nodes then seal with `current` only when
    all have it (see core/reconcile).
    """
    lines = succession(window)
    line = None if root is None else lines.next if root.name == window.next.name else lines.current
    followers = () if line is None else line.open_at(now_at)
    heir = followers[-1] if followers and starts_at(followers[-1]) > now_at else None
    epoch = window.epoch + 1
    if heir is not None:
        # No longer than its own step: whoever misses this window opens it for no longer than that takes.
        terms = replace(terms, seals_until=heir.steps_at)
    current = promoted(made(fresh[0], epoch, now_at, terms) if heir is None else heir, now_at, terms)
    # A key of the window comes last: what was signed for it stands.
    others = {key.name: key for key in (*lines.open_at(now_at), *window.all) if key.name != current.name}
    return replace(
        successor(window, fence=fence, now_at=now_at, terms=terms),
        current=current,
        next=made(fresh[1], epoch, now_at, terms),
        previous=kept(others.values(), now_at, terms),
    )
