"""A socket between an agent and its store that carries bytes, and counts who said how much in how many turns."""

import selectors
import socket
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Count:
    """`asked`: how often a word was said to the store; a round trip is a turn of speech on one connection."""

    asked: int = 0
    round_trips: int = 0
    answered_bytes: int = 0


@dataclass
class Relay:
    """Listens at `path` while its block lasts."""

    path: Path
    to: Path
    _talks: list["_Talk"] = field(default_factory=list, init=False)

    def __enter__(self) -> Self:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, word: bytes) -> Count:
        """The counts of the connection on which `word` was said most."""
        return max((talk.count(word) for talk in list(self._talks)), key=lambda count: count.asked, default=Count())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.to))
            talk = _Talk(client, server)
            self._talks.append(talk)
            threading.Thread(target=talk.carry, daemon=True).start()


class _Talk:
    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self._count, self._asked = Count(), bytearray()
        self._lock = threading.Lock()

    def count(self, word: bytes) -> Count:
        with self._lock:
            return replace(self._count, asked=self._asked.count(word))

    def carry(self) -> None:
        """Until either side has gone."""
        with self._client, self._server, selectors.DefaultSelector() as ready:
            for one, other in ((self._client, self._server), (self._server, self._client)):
                ready.register(one, selectors.EVENT_READ, other)
            asking = False
            while True:
                for key, _ in ready.select():
                    source, sink = key.fileobj, key.data
                    assert isinstance(source, socket.socket)
                    said = source.recv(1 << 16)
                    if not said:
                        return
                    with self._lock:
                        if source is self._client:
                            self._asked += said
                            self._count = replace(self._count, round_trips=self._count.round_trips + (not asking))
                        else:
                            self._count = replace(self._count, answered_bytes=self._count.answered_bytes + len(said))
                    asking = source is self._client
                    sink.sendall(said)
