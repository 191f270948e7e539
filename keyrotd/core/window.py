"""
Windows of ticket keys. Nothing here reads a clock, draws a random number or touches a disk.

A window is what a node accepts now. Its keys have roles, never positions:

    next       only opens: it is accepted everywhere for one whole period before it seals anything
    current    seals and opens, until the `seals_until` that its window states
    previous   only open, each until its own `opens_until`

`rotate` moves every key one role on and brings a fresh `next`. A key leaves by an instant and never by a count, so
that rotating five times in a minute orphans nothing. Instants are signed with the window: what a node accepts is a
function of the window and the time alone.

All instants are Unix milliseconds (`_at`, `_from`, `_until`), all durations milliseconds (`_ms`).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.stek import NAME_BYTES, Stek

#: A window names this many of its ancestors: a node that missed more counts a fork, which costs it nothing.
MAX_ANCESTORS = 16
#: A limit for whoever reads a window; a mend merges at most 16 keys, a rotation every second for a minute adds 60.
MAX_KEYS = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """
    One key in a window. `stek` is None once its seed has been forgotten.

    `born` is the epoch that first carried it. `seals_from` and `seals_until` are None for a key that never was
    `current`; `seals_until` is the last instant at which any node may have sealed with it. `steps_at` is the instant
    from which, where no leader is heard, the key that follows it in succession seals, and `step_ms` for how long.
    """

    name: bytes
    stek: Stek | None
    born: int
    made_at: int
    seals_from: int | None
    seals_until: int | None
    opens_until: int
    steps_at: int
    step_ms: int

    def __post_init__(self) -> None:
        if len(self.name) != NAME_BYTES or (self.stek is not None and self.stek.name != self.name):
            raise CorruptWindow(f"key {self.name.hex()}: the seed does not have this name", reason="wrong name")
        if (self.seals_from is None) != (self.seals_until is None):
            raise CorruptWindow(f"key {self.name.hex()}: seals_from without seals_until", reason="malformed")
        if self.seals_until is not None and self.opens_until < self.seals_until:
            raise CorruptWindow(f"key {self.name.hex()}: seals after it last opens", reason="malformed")
        if self.step_ms <= 0:
            raise CorruptWindow(f"key {self.name.hex()}: has a step of {self.step_ms} ms", reason="malformed")

    def open_at(self, now_at: int) -> bool:
        return now_at < self.opens_until


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The numbers that a policy puts into the window it publishes at one instant."""

    seals_until: int
    max_seal_age_ms: int
    ticket_lifetime_ms: int
    eps_ms: int
    step_ms: int
    max_stranded_ms: int
    previous_keys: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """
    One published state of a ring. Unbuildable with twin names, a key from before the barrier, or wrong instants.

    `ancestors` are digests, newest first. `max_stranded_ms` is how long after `seals_until` a stranded node goes on by
    succession (see core/succession).
    """

    ring: str
    epoch: int
    fence: int
    barrier: int
    published_at: int
    ticket_lifetime_ms: int
    max_stranded_ms: int
    ancestors: tuple[str, ...]
    current: Key
    next: Key
    previous: tuple[Key, ...]
    _digest: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is not None:
            reason, found = problem
            raise CorruptWindow(f"ring {self.ring}: window {self.epoch} {found}", reason=reason)

    def _problem(self) -> tuple[str, str] | None:
        keys = self.all
        born = [key.born for key in keys]
        if self.epoch < 1 or self.fence < 0 or not 0 <= self.barrier <= self.epoch:
            return "malformed", f"has epoch {self.epoch}, fence {self.fence}, barrier {self.barrier}"
        if len(keys) > MAX_KEYS or len(self.ancestors) > MAX_ANCESTORS:
            return "too large", f"has {len(keys)} keys and {len(self.ancestors)} ancestors"
        if len({key.name for key in keys}) != len(keys):
            return "twin names", "has two keys of one name"
        if min(born) < self.barrier:
            return (
                "below barrier",
                f"holds a key born in epoch {min(born)}, before its barrier {self.barrier}",
            )
        if max(born) > self.epoch:
            return "malformed", f"holds a key born in epoch {max(born)}, after itself"
        if self.current.seals_until is None or self.next.seals_until is not None:
            return "malformed", "must say until when current seals, and only of it and of previous keys"
        if any(key.stek is not None and key.stek.ring != self.ring for key in keys):
            return "wrong ring", "holds a key of another ring"
        return None

    @property
    def all(self) -> tuple[Key, ...]:
        return (self.current, self.next, *self.previous)

    @property
    def seals_until(self) -> int:
        """The instant after which no node seals with `current`."""
        assert self.current.seals_until is not None  # __post_init__ refuses a window without it
        return self.current.seals_until

    @property
    def eps_ms(self) -> int:
        """Within this long of a publish every node that can hear has heard."""
        return self.current.opens_until - self.seals_until - self.ticket_lifetime_ms

    @property
    def stands_in_at(self) -> int:
        """The instant at which `next` would have been promoted on time: stranded nodes do it themselves then."""
        return self.next.made_at + self.next.step_ms

    @property
    def header(self) -> str:
        """The readable half, canonical to the byte. It holds no secret; names commit to the seeds."""
        lines = [
            "keyrotd window v1",
            f"ring {self.ring}",
            f"epoch {self.epoch}",
            f"fence {self.fence}",
            f"barrier {self.barrier}",
            f"published_at {self.published_at}",
            f"ticket_lifetime_ms {self.ticket_lifetime_ms}",
            f"max_stranded_ms {self.max_stranded_ms}",
            f"ancestors {' '.join(self.ancestors) or '-'}",
            f"current {key_words(self.current)}",
            f"next {key_words(self.next)}",
            *(f"previous {key_words(key)}" for key in self.previous),
        ]
        return "".join(line + "\n" for line in lines)

    @property
    def digest(self) -> str:
        """What is compared and acknowledged: two windows are the same window when this is equal."""
        if self._digest is None:
            object.__setattr__(self, "_digest", hashlib.sha256(self.header.encode()).hexdigest())
        assert self._digest is not None  # just computed, once for all
        return self._digest

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Which of two windows of one ring is newer: a revoke outranks any number of rotations."""
        return (self.barrier, self.epoch, self.fence, self.published_at)

    def whole_at(self, now_at: int) -> bool:
        """Whether every key that may open has its seed: a seed can be withheld, and the signature still holds."""
        return all(key.stek is not None or not key.open_at(now_at) for key in self.all)

    def at(self, now_at: int) -> "Window":
        """This same window (same digest) with the seeds forgotten of every key that may no longer open."""
        return replace(
            self,
            current=_faded(self.current, now_at),
            next=_faded(self.next, now_at),
            previous=tuple(_faded(key, now_at) for key in self.previous),
        )


def bootstrap(
    *, ring: str, epoch: int, barrier: int, fence: int, fresh: tuple[Stek, Stek], now_at: int, terms: Terms
) -> Window:
    """The first window of a ring, or the first above the highest floor of a ring whose every window is lost."""
    return Window(
        ring=ring,
        epoch=epoch,
        fence=fence,
        barrier=barrier,
        published_at=now_at,
        ticket_lifetime_ms=terms.ticket_lifetime_ms,
        max_stranded_ms=terms.max_stranded_ms,
        ancestors=(),
        current=promoted(made(fresh[0], epoch, now_at, terms), now_at, terms),
        next=made(fresh[1], epoch, now_at, terms),
        previous=(),
    )


def rotate(window: Window, *, fresh: Stek, fence: int, now_at: int, terms: Terms, settled_at: int | None) -> Window:
    """
    Epoch n+1: `next` seals, `current` is the first `previous`, `fresh` is `next`.

    `settled_at` is the instant at which every live node had read `window` back, if it is known: after it no node in
    step seals with a previous key, so each of those may leave one ticket lifetime (and eps) later than that. No
    bound is ever raised. `next` may have been sealing at stranded nodes since `stands_in_at`: that counts.
    """
    older = settled(window, settled_at=settled_at, eps_ms=terms.eps_ms)
    seals_until = min(
        terms.seals_until,
        window.stands_in_at + terms.max_seal_age_ms,
        # A policy that was lengthened comes into force one key later: so long do those who hold `window` open it.
        window.next.opens_until - window.ticket_lifetime_ms - window.eps_ms,
    )
    return replace(
        successor(window, fence=fence, now_at=now_at, terms=terms),
        current=promoted(window.next, now_at, replace(terms, seals_until=seals_until)),
        next=made(fresh, window.epoch + 1, now_at, replace(terms, seals_until=seals_until)),
        previous=kept((window.current, *older), now_at, terms),
    )


def revoke(window: Window, *, fresh: tuple[Stek, Stek], fence: int, now_at: int, terms: Terms) -> Window:
    """Every key at once is gone, and by the raised barrier gone for good."""
    epoch = window.epoch + 1
    return replace(
        successor(window, fence=fence, now_at=now_at, terms=terms),
        barrier=epoch,
        current=promoted(made(fresh[0], epoch, now_at, terms), now_at, terms),
        next=made(fresh[1], epoch, now_at, terms),
        previous=(),
    )


def successor(window: Window, *, fence: int, now_at: int, terms: Terms) -> Window:
    """The window after `window`, for replace() to put other keys into: all at once, as the barrier judges them."""
    return replace(
        window,
        epoch=window.epoch + 1,
        fence=fence,
        published_at=now_at,
        ticket_lifetime_ms=terms.ticket_lifetime_ms,
        max_stranded_ms=terms.max_stranded_ms,
        ancestors=(window.digest, *window.ancestors)[:MAX_ANCESTORS],
    )


def made(stek: Stek, epoch: int, now_at: int, terms: Terms) -> Key:
    """A `next`."""
    # However late its promotion, it counts as promoted on time: see rotate.
    promoted_at = min(terms.seals_until, now_at + terms.step_ms)
    opens_until = promoted_at + terms.max_seal_age_ms + terms.ticket_lifetime_ms + terms.eps_ms
    return Key(
        name=stek.name,
        stek=stek,
        born=epoch,
        made_at=now_at,
        seals_from=None,
        seals_until=None,
        opens_until=opens_until,
        steps_at=terms.seals_until,
        step_ms=terms.step_ms,
    )


def promoted(key: Key, now_at: int, terms: Terms) -> Key:
    """`key` as `current`."""
    opens_until = terms.seals_until + terms.ticket_lifetime_ms + terms.eps_ms
    # Its follower seals at once when it no longer may, also where a policy was shortened since it was made.
    steps_at = min(key.steps_at, terms.seals_until)
    return replace(key, seals_from=now_at, seals_until=terms.seals_until, opens_until=opens_until, steps_at=steps_at)


def settled(window: Window, *, settled_at: int | None, eps_ms: int) -> tuple[Key, ...]:
    """Return the previous keys with their bounds lowered, now that no node in step has sealed with them since."""
    if settled_at is None:
        return window.previous
    return tuple(_lowered(key, settled_at, window.ticket_lifetime_ms + eps_ms) for key in window.previous)


def _lowered(key: Key, settled_at: int, after_ms: int) -> Key:
    if key.seals_until is None or key.seals_until <= settled_at:
        return key
    # Its tickets were promised the lifetime of the window that it sealed under, which may have been a longer one.
    opens_until = settled_at + max(after_ms, key.opens_until - key.seals_until)
    return replace(key, seals_until=settled_at, opens_until=min(key.opens_until, opens_until))


def kept(keys: Iterable[Key], now_at: int, terms: Terms) -> tuple[Key, ...]:
    def useful(key: Key) -> tuple[int, int]:
        sealed_at, opens_until = usefulness(key)
        return -1 if key.seals_from is not None and key.seals_from > now_at else sealed_at, opens_until

    still_open = sorted((key for key in keys if key.open_at(now_at)), key=useful, reverse=True)
    limit = MAX_KEYS - 2 if terms.previous_keys is None else min(terms.previous_keys, MAX_KEYS - 2)
    return tuple(still_open[:limit])


def usefulness(key: Key) -> tuple[int, int]:
    """Higher is more useful to a server with few slots: what sealed last; keys that never sealed come last."""
    return (-1 if key.seals_until is None else key.seals_until, key.opens_until)


def _faded(key: Key, now_at: int) -> Key:
    return key if key.open_at(now_at) else replace(key, stek=None)


def key_words(key: Key) -> str:
    """What a header says of a key, after its role."""
    seals_from = "-" if key.seals_from is None else key.seals_from
    seals_until = "-" if key.seals_until is None else key.seals_until
    return (
        f"{key.name.hex()} {key.born} {key.made_at} {seals_from} {seals_until} {key.opens_until} "
        f"{key.steps_at} {key.step_ms}"
    )
