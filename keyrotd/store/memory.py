"""The store's twin: a few dicts behind a lock, with a clock and faults that a test decides."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from math import ceil

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import limits
from keyrotd.store.limits import fitting, named
from keyrotd.store.port import Desk, Fenced, Look, Moved, Poll, Published


class Fault(Enum):
    """How an operation fails; its caller is told the same in both cases."""

    AWAY = "away"  # it never reached the store
    UNANSWERED = "unanswered"  # it was done, and the answer was lost


@dataclass(frozen=True, slots=True)
class Lease:
    holder: str
    fence: int
    until: int


@dataclass(frozen=True, slots=True)
class StoredWindow:
    window: bytes
    digest: str
    epoch: int
    fence: int


@dataclass(slots=True)
class Ring:
    window: StoredWindow | None = None
    beat: bytes | None = None
    lease: Lease | None = None
    fence: int = 0
    reports: dict[str, bytes] = field(default_factory=dict)
    offers: dict[str, bytes] = field(default_factory=dict)
    peers: bytes | None = None
    requests: dict[str, bytes] = field(default_factory=dict)
    history: list[bytes] = field(default_factory=list)
    wakes: int = 0


class MemoryServer:
    """What several MemoryStores share. `clock` tells Unix milliseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        self._rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        return self._rings.setdefault(name, Ring())

    def flush(self) -> None:
        """Lose everything."""
        self.restore({})

    def snapshot(self) -> dict[str, Ring]:
        """What a replica has at this moment."""
        with self.changed:
            return deepcopy(self._rings)

    def restore(self, snapshot: dict[str, Ring]) -> None:
        """Go back to `snapshot`: a failover to a replica that missed what came since."""
        with self.changed:
            self._rings = deepcopy(snapshot)


def _sound(operation: str) -> Fault | None:  # noqa: ARG001 - the signature of every fault
    return None


@dataclass(slots=True)
class MemoryStore:
    """
    One ring in `server`. Set `fault` to make operations fail by name, `server` to sit in another partition.

    Each operation asks `fault` once before it begins.
    """

    ring: str
    server: MemoryServer
    fault: Callable[[str], Fault | None] = _sound

    def publish(
        self, *, window: bytes, digest: str, epoch: int, fence: int, parent: str, spread_ms: int = 0
    ) -> Published | Fenced | Moved:
        _ = spread_ms  # here nobody is many
        fitting("publish", window, limits.WINDOW_BYTES)
        named("publish", digest)
        with _call(self, "publish") as ring:
            stored = ring.window
            if stored is not None and (stored.digest, stored.fence) == (digest, fence):
                return Published()
            if fence != ring.fence:
                return Fenced(ring.fence)
            if _digest(ring) != parent:
                return Moved(_digest(ring))
            ring.window = StoredWindow(window, digest, epoch, fence)
            ring.offers.pop(digest, None)
            ring.wakes += 1
            return Published()

    def lead(self, *, holder: str, ttl_ms: int, fence_above: int, known_digest: str) -> Desk:
        named("lead", holder)
        if not 0 < ttl_ms <= limits.LEASE_MS:
            raise ValueError(f"a lease runs 1 to {limits.LEASE_MS} ms, not {ttl_ms}")
        with _call(self, "lead") as ring:
            now = self.server.clock()
            lease, led = _live(ring, now), 0
            if lease is None or lease.holder == holder:
                told = (ring.fence, ring.window.fence if ring.window is not None else 0)
                highest = max(fence_above, *(fence for fence in told if fence <= fence_above + limits.FENCE_JUMP), 0)
                for name in list(ring.requests)[limits.REQUESTS :]:
                    del ring.requests[name]
                kept = lease is not None and lease.fence == ring.fence == highest
                ring.fence = led = highest if kept else highest + 1
                lease = ring.lease = Lease(holder, ring.fence, now + ttl_ms)
            return Desk(
                fence=led or None,
                leader=lease.holder,
                lease_ms=lease.until - now,
                digest=_digest(ring),
                window=_news(ring, known_digest),
                beat=ring.beat,
                requests=dict(islice(ring.requests.items(), limits.REQUESTS)),
                offers=_some_offers(ring),
                offer_count=len(ring.offers),
                report_count=len(ring.reports),
                store_at=now,
            )

    def release(self, *, holder: str) -> None:
        with _call(self, "release") as ring:
            if ring.lease is not None and ring.lease.holder == holder:
                ring.lease = None

    def beat(self, *, beat: bytes, fence: int) -> bool:
        fitting("beat", beat, limits.BEAT_BYTES)
        with _call(self, "beat") as ring:
            lease = _live(ring, self.server.clock())
            if lease is None or not lease.fence == ring.fence == fence:
                return False
            ring.beat = beat
            return True

    def poll(self, *, known_digest: str, node: str, report: bytes) -> Poll:
        named("poll", node)
        fitting("poll", report, limits.REPORT_BYTES)
        with _call(self, "poll") as ring:
            ring.reports[node] = report
            return Poll(
                beat=ring.beat,
                digest=_digest(ring),
                window=_news(ring, known_digest),
                offers=_some_offers(ring) if len(ring.offers) <= limits.OFFERS else (),
            )

    def report(self, *, node: str, report: bytes) -> None:
        named("report", node)
        fitting("report", report, limits.REPORT_BYTES)
        with _call(self, "report") as ring:
            ring.reports[node] = report

    def reports(self, known: Iterable[str] = (), *, most_bytes: int = limits.REPORTS_BYTES) -> dict[str, bytes]:
        with _call(self, "reports") as ring:
            share = most_bytes / limits.REPORTS_BYTES
            asked = [name for name in islice(known, limits.REPORTS) if name in ring.reports]
            found = _within(ring.reports, asked, limits.REPORTS, most_bytes - int(limits.STRANGERS_BYTES * share))
            others = sorted(ring.reports.keys() - found, key=lambda name: (len(ring.reports[name]), name))
            left = most_bytes - sum(map(len, found.values()))
            room = limits.STRANGERS if len(ring.reports) > limits.REPORTS else limits.REPORTS
            return found | _within(ring.reports, others, ceil(room * share), left)

    def forget(self, *, nodes: Iterable[str]) -> None:
        with _call(self, "forget") as ring:
            for node in nodes:
                ring.reports.pop(node, None)

    def prune_reports(self, *, keep: Iterable[str]) -> None:
        with _call(self, "prune_reports") as ring:
            ring.reports = _only(ring.reports, keep)

    def offer(self, *, digest: str, window: bytes) -> None:
        named("offer", digest)
        fitting("offer", window, limits.WINDOW_BYTES)
        with _call(self, "offer") as ring:
            ring.offers[digest] = window

    def withdraw(self, *, digests: Iterable[str]) -> None:
        with _call(self, "withdraw") as ring:
            for digest in digests:
                ring.offers.pop(digest, None)

    def prune_offers(self, *, keep: Iterable[str]) -> None:
        with _call(self, "prune_offers") as ring:
            ring.offers = _only(ring.offers, keep)

    def offers(self, digests: Iterable[str]) -> dict[str, bytes]:
        with _call(self, "offers") as ring:
            asked = islice(digests, limits.OFFERS)
            return {digest: ring.offers[digest] for digest in asked if digest in ring.offers}

    def name_peers(self, *, peers: bytes) -> None:
        fitting("name_peers", peers, limits.PEERS_BYTES)
        with _call(self, "name_peers") as ring:
            ring.peers = peers

    def peers(self) -> bytes | None:
        with _call(self, "peers") as ring:
            return ring.peers

    def request(self, *, id: str, request: bytes) -> None:  # noqa: A002 - as in the port
        named("request", id)
        fitting("request", request, limits.REQUEST_BYTES)
        with _call(self, "request") as ring:
            ring.requests[id] = request
            ring.wakes += 1

    def settle(self, *, ids: Iterable[str]) -> None:
        with _call(self, "settle") as ring:
            for name in ids:
                ring.requests.pop(name, None)

    def record(self, *, event: bytes) -> None:
        fitting("record", event, limits.EVENT_BYTES)
        with _call(self, "record") as ring:
            if ring.history[:1] != [event]:
                ring.history.insert(0, event)
            del ring.history[limits.HISTORY :]

    def history(self, *, limit: int) -> tuple[bytes, ...]:
        with _call(self, "history") as ring:
            return tuple(ring.history[: max(0, limit)])

    def window(self) -> tuple[str, bytes] | None:
        with _call(self, "window") as ring:
            return (ring.window.digest, ring.window.window) if ring.window is not None else None

    def look(self) -> Look:
        with _call(self, "look") as ring:
            now = self.server.clock()
            lease = _live(ring, now)
            return Look(
                digest=_digest(ring),
                window=_news(ring, ""),
                beat=ring.beat,
                leader=lease.holder if lease is not None else "",
                lease_ms=lease.until - now if lease is not None else 0,
                fence=ring.fence,
                report_count=len(ring.reports),
            )

    def wake(self) -> None:
        with _call(self, "wake") as ring:
            ring.wakes += 1

    def close(self) -> None:
        """Nothing to close."""


@contextmanager
def _call(store: MemoryStore, operation: str) -> Iterator[Ring]:
    # One operation, alone with its ring, and as lucky as the store's `fault` lets it be.
    fault = store.fault(operation)
    if fault is Fault.AWAY:
        raise _unanswered(operation)
    with store.server.changed:
        yield store.server.ring(store.ring)
        store.server.changed.notify_all()
    if fault is Fault.UNANSWERED:
        raise _unanswered(operation)


def _unanswered(operation: str) -> StoreUnavailable:
    return StoreUnavailable(f"store: {operation} got no answer from memory", operation=operation)


def _within(values: dict[str, bytes], names: Iterable[str], most: int, most_bytes: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        if len(found) < most and len(values[name]) <= most_bytes:
            found[name] = values[name]
            most_bytes -= len(values[name])
    return found


def _some_offers(ring: Ring) -> tuple[str, ...]:
    """Return digests of as many as may be read, and of none where so many take more than is fair."""
    held = sum(len(digest) + len(window) for digest, window in ring.offers.items())
    if held * min(1, limits.OFFERS / max(1, len(ring.offers))) > limits.OFFERS_HELD_BYTES:
        return ()
    return tuple(sorted(islice(ring.offers, limits.OFFERS)))


def _only(values: dict[str, bytes], keep: Iterable[str]) -> dict[str, bytes]:
    kept = frozenset(keep)
    return {name: value for name, value in values.items() if name in kept}


def _live(ring: Ring, now_at: int) -> Lease | None:
    if ring.lease is None or not 0 < ring.lease.until - now_at <= limits.LEASE_MS:
        return None
    return ring.lease


def _digest(ring: Ring) -> str:
    return ring.window.digest if ring.window is not None else ""


def _news(ring: Ring, known_digest: str) -> bytes | None:
    return ring.window.window if ring.window is not None and ring.window.digest != known_digest else None


class MemoryWakes:
    """Hints out of a MemoryServer, for threads; the wait itself is on real time."""

    def __init__(self, server: MemoryServer, rings: Iterable[str]) -> None:
        self._server = server
        self._rings = tuple(rings)
        self._heard = self._wakes()
        self._closed = False
        self.fault = ""

    def wait(self, timeout_ms: int) -> bool:
        with self._server.changed:
            self._server.changed.wait_for(lambda: self._closed or self._wakes() != self._heard, timeout_ms / 1000)
            woken = not self._closed and self._wakes() != self._heard
            self._heard = self._wakes()
            return woken

    def close(self) -> None:
        with self._server.changed:
            self._closed = True
            self._server.changed.notify_all()

    def _wakes(self) -> int:
        with self._server.changed:
            return sum(self._server.ring(ring).wakes for ring in self._rings)
