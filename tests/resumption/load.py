"""Clients who come back with the ticket that they took last, at a steady rate, to one regime after the other."""

import http.client
import random
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from keyrotd.tls.handshake import Trust, Version, client_context

_TIMEOUT_S = 10.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

#: More than are ever under way at once. A client who finds no thread comes later, and is timed from then on.
_THREADS = 64


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection that was answered; `first_byte_ms` from before its connect to the answer's first byte."""

    version: Version
    resumed: bool
    first_byte_ms: float


@dataclass
class Crowd:
    """
    `size` clients of each version of TLS, all through one port. Each offers the ticket that it got last, if any.

    Any number of threads may `come` at once. Nobody asks how old a ticket is: with `size` as many as come in a second
    or two, it is young.
    """

    port: int
    trust: Trust
    size: int
    rand: random.Random
    visits: list[Visit] = field(default_factory=list, init=False)
    failed: Counter[str] = field(default_factory=Counter, init=False)
    _held: dict[tuple[Version, int], ssl.SSLSession] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._contexts = {version: client_context(version, self.trust) for version in Version}

    def come(self) -> None:
        """Anyone of them."""
        self.visit(self.rand.choice(tuple(Version)), self.rand.randrange(self.size))

    def everybody(self) -> Iterator[tuple[Version, int]]:
        return product(Version, range(self.size))

    def forget_visits(self) -> None:
        """What they hold they keep."""
        self.visits.clear()
        self.failed.clear()

    def visit(self, version: Version, client: int) -> None:
        began_s = time.perf_counter()
        try:
            with self._connected(version, self._held.get((version, client))) as line:
                line.sendall(_REQUEST)
                answer = line.recv(1)
                ended_s = time.perf_counter()
                while line.recv(1 << 14):
                    pass
                if not answer:
                    raise ConnectionError("closed without an answer")
                self.visits.append(Visit(version, line.session_reused is True, (ended_s - began_s) * 1000))
                if line.session is not None and line.session.has_ticket:
                    self._held[version, client] = line.session
        except OSError as error:  # ssl.SSLError is one
            self.failed[str(error)] += 1

    def _connected(self, version: Version, session: ssl.SSLSession | None) -> ssl.SSLSocket:
        line = socket.create_connection(("127.0.0.1", self.port), _TIMEOUT_S)
        try:
            return self._contexts[version].wrap_socket(line, server_hostname="localhost", session=session)
        except BaseException:
            line.close()
            raise


class Idlers:
    """Connections through one port that were used once and stay open, and are never opened again."""

    def __init__(self, port: int, ca: Path, count: int) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._lines = [
            http.client.HTTPSConnection("localhost", port, context=context, timeout=10) for _ in range(count)
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


@contextmanager
def prepared(crowds: Sequence[Crowd]) -> Iterator[ThreadPoolExecutor]:
    """Threads for the crowds, once each client came for a first ticket, which does not count."""
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(crowd.visit, *client) for crowd in crowds for client in crowd.everybody()]:
            done.result()
        for crowd in crowds:
            crowd.forget_visits()
        yield pool


def come_steadily(pool: ThreadPoolExecutor, crowds: Sequence[Crowd], *, rate_per_s: float, until: Future[None]) -> None:
    """Each crowd in turn, `rate_per_s` connections in all, until that is done and the last has left."""
    began_s = time.monotonic()
    coming: list[Future[None]] = []
    while not until.done():
        wait_s = began_s + len(coming) / rate_per_s - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        coming.append(pool.submit(crowds[len(coming) % len(crowds)].come))
    for done in (until, *coming):
        done.result()
