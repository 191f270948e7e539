"""
A layer-4 balancer at the end of a long road: a connection goes to any node, every byte arrives a one-way time later.

Any node is as likely as another, as where ports are hashed. Turn by turn would be unfair to nodes with keys of their
own: then a client who comes twice in a row never finds the same one again.

It is a process (`python -m tests.resumption.balancer`), so that its time is no server's and no client's. Loopback
answers a connect at once; on the road that takes a round trip, so whatever a client says counts as said a round trip
after it connected, at the earliest. What bandwidth, loss and the opening of TCP's window add is not simulated.
"""

import argparse
import errno
import heapq
import random
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports

_BACKLOG = 512
_READ_BYTES = 1 << 16

#: A full socket is tried again after so long. Pages are small: it hardly ever is.
_RETRY_S = 0.001


@contextmanager
def balanced(groups: Sequence[Sequence[int]], *, one_way_ms: float, log: Path) -> Iterator[tuple[int, ...]]:
    """A port in front of each group of ports, while the block lasts; all in one process."""
    ports = free_ports(len(groups))
    fronts = [f"{port}={','.join(map(str, group))}" for port, group in zip(ports, groups, strict=True)]
    argv = [sys.executable, "-m", "tests.resumption.balancer", "--one-way-ms", str(one_way_ms), *fronts]
    child = start_child(argv, log=log)
    try:
        wait_until(lambda: child.poll() is not None or all(map(_listens, ports)), "the balancer listens")
        assert child.poll() is None, log.read_text()[-2000:]
        yield ports
    finally:
        stop_child(child)


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


@dataclass(eq=False)
class _Flow:
    """One direction of a connection; its sockets are closed when both directions have ended."""

    source: socket.socket
    sink: socket.socket
    #: time.monotonic() before which the source has not got through to anybody.
    speaks_from: float
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    back: "_Flow | None" = None
    heard_all: bool = False
    ended: bool = False


class _Balancer:
    def __init__(self, one_way_s: float) -> None:
        self._one_way_s = one_way_s
        self._ready = selectors.DefaultSelector()
        self._order = count()
        self._due: list[tuple[float, int, _Flow]] = []

    def listen(self, port: int, nodes: Sequence[int]) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
        listener.setblocking(False)

        def accept() -> None:
            client, _ = listener.accept()
            self._join(client, random.choice(nodes))

        self._ready.register(listener, selectors.EVENT_READ, accept)

    def run(self) -> None:
        while True:
            wait_s = None if not self._due else max(self._due[0][0] - time.monotonic(), 0)
            for key, _ in self._ready.select(wait_s):
                act: Callable[[], None] = key.data
                act()
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._deliver(heapq.heappop(self._due)[2])

    def _join(self, client: socket.socket, node: int) -> None:
        server = socket.socket()
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.connect_ex(("127.0.0.1", node)) not in (0, errno.EINPROGRESS):
            client.close()
            server.close()
            return
        now = time.monotonic()
        there = _Flow(client, server, speaks_from=now + 2 * self._one_way_s)
        there.back = _Flow(server, client, speaks_from=now, back=there)
        for flow in (there, there.back):
            self._ready.register(flow.source, selectors.EVENT_READ, lambda flow=flow: self._hear(flow))

    def _hear(self, flow: _Flow) -> None:
        try:
            said = flow.source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            flow.heard_all = True
            self._ready.unregister(flow.source)
        due = max(time.monotonic(), flow.speaks_from) + self._one_way_s
        flow.queue.append((due, said))
        heapq.heappush(self._due, (due, next(self._order), flow))

    def _deliver(self, flow: _Flow) -> None:
        now = time.monotonic()
        while flow.queue and flow.queue[0][0] <= now and not flow.ended:
            due, said = flow.queue.popleft()
            if not said:
                self._end(flow)
                return
            try:
                sent = flow.sink.send(said)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(flow)
                return
            if sent < len(said):
                flow.queue.appendleft((due, said[sent:]))
                heapq.heappush(self._due, (now + _RETRY_S, next(self._order), flow))
                return

    def _end(self, flow: _Flow) -> None:
        """Nothing more goes this way."""
        flow.ended = True
        assert flow.back is not None
        try:
            flow.sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._abandon(flow.back)
        if flow.back.ended:
            for side in (flow, flow.back):
                self._abandon(side)
                side.source.close()

    def _abandon(self, flow: _Flow) -> None:
        """Nobody is there any more to hear what comes this way."""
        flow.ended = True
        if not flow.heard_all:
            flow.heard_all = True
            self._ready.unregister(flow.source)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.resumption.balancer", description=__doc__)
    parser.add_argument("--one-way-ms", type=float, required=True)
    parser.add_argument("fronts", nargs="+", metavar="PORT=NODE,NODE", help="a port of its own and those behind it")
    asked = parser.parse_args()
    balancer = _Balancer(asked.one_way_ms / 1000)
    for front in asked.fronts:
        port, nodes = front.split("=")
        balancer.listen(int(port), [int(node) for node in nodes.split(",")])
    balancer.run()


if __name__ == "__main__":
    main()
