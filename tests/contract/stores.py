"""Real stores for tests: one on a Unix socket, another behind a port that can be counted or go dead."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from keyrotd.store.addresses import Address
from keyrotd.store.embedded import Embedded, start
from keyrotd.store.redis import RedisStore

_NAMESPACES = itertools.count()


def fresh_namespace() -> str:
    return f"test{next(_NAMESPACES)}"


@contextmanager
def running(exe: Path, directory: Path, *, data_dir: Path | None = None) -> Iterator[Embedded]:
    server = start(runtime_dir=directory, data_dir=data_dir, server=exe)
    try:
        yield server
    finally:
        server.stop()


def address(server: Embedded) -> Address:
    return Address(path=str(server.socket))


def store_on(where: Address, *, ring: str = "edge", namespace: str = "keyrotd", timeout_ms: int = 5_000) -> RedisStore:
    return RedisStore(where, ring=ring, namespace=namespace, timeout_ms=timeout_ms)


@contextmanager
def owner(server: Embedded) -> Iterator[Any]:
    """Whoever owns the store, and may put anything anywhere."""
    with Redis(unix_socket_path=str(server.socket), protocol=3) as client:
        yield client


@dataclass
class Relay:
    """A TCP port in front of a store's socket: counts what passes, and turns; `before` is called ahead of each."""

    target: Path
    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    received: int = 0
    turns: int = 0
    before: Callable[[int], None] = lambda _: None
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self.listener.getsockname()[1])

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                thread = threading.Thread(target=self._carry, args=(client,), daemon=True)
                self.threads.append(thread)
                thread.start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
            server.connect(str(self.target))
            answers = threading.Thread(target=self._answers, args=(server, client), daemon=True)
            answers.start()
            while asked := client.recv(65_536):
                self.before(self.turns)
                self.turns += 1
                server.sendall(asked)
            server.shutdown(socket.SHUT_RDWR)
            answers.join()

    def _answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while answered := server.recv(65_536):
                self.received += len(answered)
                client.sendall(answered)


@contextmanager
def relayed(server: Embedded) -> Iterator[Relay]:
    relay = Relay(server.socket)
    acceptor = threading.Thread(target=relay.serve, daemon=True)
    acceptor.start()
    try:
        yield relay
    finally:
        relay.listener.shutdown(socket.SHUT_RDWR)
        relay.listener.close()
        acceptor.join()
        for thread in relay.threads:
            thread.join()


@contextmanager
def answering(reply: bytes) -> Iterator[Address]:
    """A server of ill will: whatever it is sent, it answers the same bytes, with its own port for {port}."""

    def answer(client: socket.socket) -> None:
        own = b"%d" % client.getsockname()[1]
        while client.recv(65_536):
            client.sendall(reply.replace(b"{port}", own))

    with _serving(answer) as where:
        yield where


@contextmanager
def dripping() -> Iterator[Address]:
    """A server that is always just about to finish its answer."""

    def answer(client: socket.socket) -> None:
        client.sendall(b"+")
        while True:
            client.sendall(b"O")
            time.sleep(0.05)

    with _serving(answer) as where:
        yield where


@contextmanager
def _serving(answer: Callable[[socket.socket], None]) -> Iterator[Address]:
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=attend, args=(client,), daemon=True))
                threads[-1].start()

    def attend(client: socket.socket) -> None:
        with client, suppress(OSError):
            answer(client)

    acceptor = threading.Thread(target=serve, daemon=True)
    acceptor.start()
    try:
        yield Address(host="127.0.0.1", port=listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()
