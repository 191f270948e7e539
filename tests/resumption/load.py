"""Clients who come back with the ticket that they took last, at a steady rate, to one regime after the other."""

import http.client
import random
import ssl
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

from keyrotd.tls.handshake import Trust, Version, client_context
from tests.resumption.line import Line

_TIMEOUT_S = 10.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

#: More than are ever under way at once. A client who finds no thread comes later, and is timed from then on.
_THREADS = 96


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection that was answered; `first_byte_ms` from before its connect to the answer's first byte."""

    version: Version
    offered: bool
    resumed: bool
    first_byte_ms: float


class Client:
    """
    Keeps tickets as browsers do: of TLS 1.2 the newest, of TLS 1.3 the newest two, each of which is offered once only.

    Whoever offers a ticket of TLS 1.3 again can be recognised by it (RFC 8446, C.4).
    """

    def __init__(self, version: Version) -> None:
        self.version = version
        self._once = version is Version.TLS13
        self._tickets: deque[ssl.SSLSession] = deque(maxlen=2 if self._once else 1)

    def keep(self, tickets: Iterable[ssl.SSLSession]) -> None:
        self._tickets.extend(tickets)

    def offer(self) -> ssl.SSLSession | None:
        if not self._tickets:
            return None
        return self._tickets.pop() if self._once else self._tickets[-1]


@dataclass
class Crowd:
    """
    `size` clients of each version of TLS, who all come through one port, each once at a time.

    Any number of threads may let one `come`. Nobody asks how old a ticket is: with `size` as many as come in a second
    or two, it is young.
    """

    port: int
    trust: Trust
    size: int
    rand: random.Random
    visits: list[Visit] = field(default_factory=list, init=False)
    failed: Counter[str] = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        self._contexts = {version: client_context(version, self.trust) for version in Version}
        self._at_home = [Client(version) for version in Version for _ in range(self.size)]
        self._lock = Lock()

    def come(self) -> None:
        """Anyone who is not under way already; nobody, if all are."""
        with self._lock:
            if not self._at_home:
                return
            client = self._at_home.pop(self.rand.randrange(len(self._at_home)))
        try:
            self._visit(client)
        finally:
            with self._lock:
                self._at_home.append(client)

    def prime(self, pool: ThreadPoolExecutor) -> None:
        """Each comes for a first ticket, which does not count."""
        for done in [pool.submit(self._visit, client) for client in self._at_home]:
            done.result()
        self.visits.clear()
        self.failed.clear()

    def _visit(self, client: Client) -> None:
        offered = client.offer()
        began_s = time.perf_counter()
        try:
            with Line(self.port, self._contexts[client.version], offered, _TIMEOUT_S) as line:
                line.shake_hands()
                line.say(_REQUEST)
                answer = line.hear()
                first_byte_ms = (time.perf_counter() - began_s) * 1000
                while answer and line.hear():
                    pass
                client.keep(line.tickets)
        except OSError as error:  # ssl.SSLError is one
            self.failed[str(error)] += 1
            return
        if answer:
            self.visits.append(Visit(client.version, offered is not None, line.resumed, first_byte_ms))
        else:
            self.failed["closed without an answer"] += 1


class Idlers:
    """Connections through one port that were used once and stay open, and are never opened again."""

    def __init__(self, port: int, ca: Path, count: int) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._lines = [
            http.client.HTTPSConnection("localhost", port, context=context, timeout=_TIMEOUT_S) for _ in range(count)
        ]
        for line in self._lines:
            line.connect()
            line.auto_open = 0
        assert self.closed == 0

    @property
    def closed(self) -> int:
        """How many do not answer any more."""
        return sum(not _answers(line) for line in self._lines)

    def leave(self) -> None:
        for line in self._lines:
            line.close()


def _answers(line: http.client.HTTPSConnection) -> bool:
    try:
        line.request("GET", "/")
        line.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    return True


class Comers(Protocol):
    def come(self) -> None:
        """One connection, to its end. Never raises."""


def threads() -> ThreadPoolExecutor:
    """As many as all comers want who are under way at once."""
    return ThreadPoolExecutor(_THREADS)


def come_steadily(
    pool: ThreadPoolExecutor, comers: Sequence[Comers], *, rate_per_s: float, until: Future[None]
) -> None:
    """Each of them in turn, `rate_per_s` connections in all, until that is done and the last has left."""
    began_s = time.monotonic()
    coming: list[Future[None]] = []
    while not until.done():
        wait_s = began_s + len(coming) / rate_per_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        coming.append(pool.submit(comers[len(coming) % len(comers)].come))
    for done in (until, *coming):
        done.result()
