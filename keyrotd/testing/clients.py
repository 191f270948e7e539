"""
TLS clients that hold tickets of every age up to T and resume them on any node, counting what became of each.

An *orphan* is a ticket younger than T that a node answered with a full handshake. Its age counts from before the
handshake that issued it to after the one that offered it: what happened while T ran out is nobody's fault.

Give servers a session lifetime well above T (HAProxy: tune.ssl.lifetime): OpenSSL seals the *first* handshake's time
into every ticket of TLS 1.2 that renews another.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace

from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target

_AGES = 64
_PER_AGE = 16
_MAX_STORIES = 100

#: After a failed connection, lest a node that is down be asked ten thousand times a second.
_PAUSE_S = 0.01

#: A client that comes back does so with this likelihood, if it holds a ticket; the others come for the first time.
_RETURNING = 0.8


@dataclass(frozen=True, slots=True)
class Held:
    """A ticket in a client's hands: `shake` issued it, begun at `issued_at`, on `issuer`."""

    shake: Handshake
    issuer: Target
    issued_at: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A live ticket that `taker` did not open, at `seen_at`."""

    key_name: bytes | None
    version: Version
    issuer: Target
    taker: Target
    age_ms: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What clients lived through. `full` counts first visits, `expired` refusals of tickets that T had overtaken."""

    full: int = 0
    resumed: int = 0
    expired: int = 0
    orphans: int = 0
    failed: int = 0

    @property
    def handshakes(self) -> int:
        return self.full + self.resumed + self.expired + self.orphans

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(**{item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self)})

    @property
    def resumption_ratio(self) -> float:
        """Of the tickets that were young enough to open, how many did; 1 when none was offered."""
        offered = self.resumed + self.orphans
        return self.resumed / offered if offered else 1.0


class Tickets:
    """Tickets by age, so that one of any age is as likely to be drawn as another. Not shared between threads."""

    def __init__(self, lifetime_ms: int, rand: random.Random) -> None:
        self._lifetime_ms = lifetime_ms
        self._width_ms = max(lifetime_ms // _AGES, 1)
        self._rand = rand
        self._ages: dict[int, list[Held]] = {}

    def hold(self, held: Held) -> None:
        kept = self._ages.setdefault(held.issued_at // self._width_ms, [])
        if len(kept) < _PER_AGE:
            kept.append(held)
        else:
            kept[self._rand.randrange(_PER_AGE)] = held

    def draw(self, now_at: int) -> Held | None:
        """One that is younger than T, or None when there is none."""
        while self._ages:
            age = self._rand.choice(tuple(self._ages))
            young = [held for held in self._ages.pop(age) if now_at - held.issued_at < self._lifetime_ms]
            if young:
                self._ages[age] = young
                return self._rand.choice(young)
        return None


@dataclass
class Clients:
    """
    Any number of threads may `visit` at once; `tally`, `stories` and `orphans` may be read at any time.

    `now` is Unix ms. `stories` keeps the first words about failed connections, `orphans` the first orphans.
    """

    targets: Sequence[Target]
    ticket_lifetime_ms: int
    trust: Trust
    sni: str | None
    now: Callable[[], int]
    rand: random.Random
    versions: tuple[Version, ...] = (Version.TLS12, Version.TLS13)
    timeout_ms: int = 5000
    tally: Tally = field(default=Tally(), init=False)
    orphans: list[Orphan] = field(default_factory=list, init=False)
    stories: list[tuple[Target, Fault]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._contexts = {version: client_context(version, self.trust) for version in self.versions}
        self._tickets = {version: Tickets(self.ticket_lifetime_ms, self.rand) for version in self.versions}
        self._lock = threading.Lock()

    def visit(self) -> None:
        """One handshake: some client, new or with a ticket of some age, comes to some node."""
        with self._lock:
            version, taker = self.rand.choice(self.versions), self.rand.choice(self.targets)
            held = self._tickets[version].draw(self.now()) if self.rand.random() < _RETURNING else None
        context, began_at = self._contexts[version], self.now()
        if held is None or held.shake.session is None:
            answer = visit(taker, context, sni=self.sni, timeout_ms=self.timeout_ms)
        else:
            answer = resume(taker, context, held.shake.session, sni=self.sni, timeout_ms=self.timeout_ms)
        with self._lock:
            self._record(answer, held, taker, began_at)

    def run(self, handshakes: int, *, threads: int = 1) -> Tally:
        """That many visits, shared out among threads."""
        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(self.visit) for _ in range(handshakes)]:
                done.result()
        return self.tally

    @contextmanager
    def hammering(self, *, threads: int = 1) -> Iterator[None]:
        """Visits without end, in the background, until the block is left."""
        stop = threading.Event()

        def hammer() -> None:
            while not stop.is_set():
                failed = self.tally.failed
                self.visit()
                if self.tally.failed != failed:
                    stop.wait(_PAUSE_S)

        with ThreadPoolExecutor(threads) as pool:
            try:  # from the first thread on: Ctrl-C may come before the last one
                hammers = [pool.submit(hammer) for _ in range(threads)]
                yield
            finally:
                stop.set()
            for done in hammers:
                done.result()

    def _record(self, answer: Handshake | Fault, held: Held | None, taker: Target, began_at: int) -> None:
        ended_at = self.now()
        if isinstance(answer, Fault):
            self._count("failed")
            if len(self.stories) < _MAX_STORIES:
                self.stories.append((taker, answer))
            return
        if answer.session is not None:
            self._tickets[answer.version].hold(Held(answer, taker, began_at))
        if held is None:
            self._count("full")
        elif answer.resumed:
            self._count("resumed")
        elif ended_at - held.issued_at >= self.ticket_lifetime_ms:
            self._count("expired")
        else:
            self._count("orphans")
            if len(self.orphans) < _MAX_STORIES:
                age_ms = ended_at - held.issued_at
                self.orphans.append(
                    Orphan(held.shake.key_name, answer.version, held.issuer, taker, age_ms, seen_at=ended_at)
                )

    def _count(self, what: str) -> None:
        self.tally = replace(self.tally, **{what: getattr(self.tally, what) + 1})
