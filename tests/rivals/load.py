"""
What clients see, as an expectation: nothing is sampled, so two protocols differ by what they do and not by luck.

Every server that is up takes the same share of the handshakes, and each handshake leaves a ticket with its client, who
comes back to any server that is up. A quarter of the clients come back within 10 s, a quarter within a minute, a
quarter within ten, the rest within T: each quarter at any moment of its time alike. An *orphan* is a ticket younger
than T that is answered with a full handshake. Why it was is known by what its key does at that server:

    late      the server gets the key only afterwards: the ticket came before its key
    dropped   the server had the key, and gave it up too soon
    never     the key never comes to that server: its issuer alone has it, or nobody has
"""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import lcm

#: Ages of tickets are known to within this.
BIN_MS = 1000
#: Within these clients come back, beside T.
RETURNS_MS = (10_000, 60_000, 600_000)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one server that is up does: the key it seals new tickets with, if any, and those that it opens."""

    seals: str | None
    opens: frozenset[str]


class Cause(StrEnum):
    LATE = "late"
    DROPPED = "dropped"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Span:
    """Offered tickets and orphans between two instants, in the same unit; only their ratio means anything."""

    offered: float
    orphans: dict[Cause, float]

    @property
    def per_million(self) -> float:
        return 1e6 * sum(self.orphans.values()) / self.offered if self.offered else 0.0


@dataclass
class Returning:
    """The tickets of those clients who come back within a time: how much under which key, second by second."""

    bins: int
    tickets: Counter[str] = field(default_factory=Counter)
    by_bin: deque[Counter[str]] = field(default_factory=lambda: deque([Counter()]))

    def add(self, key: str, weight: int) -> None:
        self.by_bin[-1][key] += weight
        self.tickets[key] += weight

    def turn(self) -> bool:
        """A second is over: tickets that might be too old leave. Whether a key went with them."""
        self.by_bin.append(Counter())
        if len(self.by_bin) <= self.bins:
            return False
        gone = self.by_bin.popleft()
        self.tickets.subtract(gone)
        emptied = [key for key in gone if not self.tickets[key]]
        for key in emptied:
            del self.tickets[key]
        return bool(emptied)


class Ledger:
    """Call `see` whenever a server may have changed; what was last seen held until then."""

    def __init__(self, *, began_at: int, ticket_lifetime_ms: int, spans: Sequence[tuple[int, int]]) -> None:
        self._at = began_at
        times_ms = (*RETURNS_MS, ticket_lifetime_ms)
        self._clients = tuple(Returning(min(time_ms, ticket_lifetime_ms) // BIN_MS) for time_ms in times_ms)
        self._shown: tuple[Shown | None, ...] = ()
        self._missing: list[tuple[str, int]] | None = None
        self._spans = tuple(spans)
        self._offered = [0.0] * len(self._spans)
        self._orphans: list[defaultdict[tuple[str, int, bool], float]] = [defaultdict(float) for _ in self._spans]
        self._opened: list[set[str]] = []
        self.first_at: dict[str, int] = {}
        self.last_at: dict[str, int] = {}

    def see(self, now: int, shown: Sequence[Shown | None]) -> None:
        self._pass(now)
        if tuple(shown) == self._shown:
            return
        self._shown = tuple(shown)
        self._missing = None
        self._opened = self._opened or [set() for _ in shown]
        for opened, server in zip(self._opened, shown, strict=True):
            if server is not None:
                opened.update(server.opens)
                for key in server.opens - self.first_at.keys():
                    self.first_at[key] = now

    def _pass(self, now: int) -> None:
        for server in self._shown:
            if server is not None:
                self.last_at.update(dict.fromkeys(server.opens, now))
        while self._at < now:
            edge_at = self._at - self._at % BIN_MS + BIN_MS
            until = min(now, edge_at)
            self._spend(until - self._at)
            self._at = until
            if until == edge_at:
                for clients in self._clients:
                    if clients.turn():
                        self._missing = None

    def _spend(self, duration_ms: int) -> None:
        up = [server for server in self._shown if server is not None]
        if not up:
            return
        for i, (begin, end) in enumerate(self._spans):
            if begin <= self._at < end:
                self._offer(i, duration_ms, len(up))
        # Whole numbers, whichever number of servers shares the load: what comes goes without a trace.
        weight = duration_ms * lcm(*range(1, len(self._shown) + 1)) // len(up)
        for server in up:
            if server.seals is not None:
                for clients in self._clients:
                    self._missing = self._missing if server.seals in clients.tickets else None
                    clients.add(server.seals, weight)

    def _offer(self, span: int, duration_ms: int, servers: int) -> None:
        if self._missing is None:
            self._missing = self._find_missing()
        for clients in self._clients:
            live = clients.tickets.total()
            if live:
                self._offered[span] += duration_ms
            for key, place in self._missing:
                if clients.tickets[key]:
                    had = key in self._opened[place]
                    self._orphans[span][key, place, had] += duration_ms * clients.tickets[key] / (live * servers)

    def _find_missing(self) -> list[tuple[str, int]]:
        keys = {key for clients in self._clients for key in clients.tickets}
        return [
            (key, place)
            for place, server in enumerate(self._shown)
            if server is not None
            for key in sorted(keys - server.opens)
        ]

    def span(self, i: int) -> Span:
        """What is known about the span number `i`, once all was seen."""
        causes = dict.fromkeys(Cause, 0.0)
        for (key, place, had), share in self._orphans[i].items():
            later = key in self._opened[place]
            causes[Cause.DROPPED if had else Cause.LATE if later else Cause.NEVER] += share
        return Span(self._offered[i], causes)

    def longest_life(self) -> tuple[int, bool]:
        """From when any server first had a key until the last had it; and whether that one is there still."""
        life_ms, key = max((self.last_at[key] - self.first_at[key], key) for key in self.first_at)
        return life_ms, any(server is not None and key in server.opens for server in self._shown)
