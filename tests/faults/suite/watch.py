"""
Which keys sealed, seen from outside: the names in the tickets that every node issues, and the bounds that were signed.

A ticket was issued between the beginning and the end of its handshake, so a key is only ever blamed for what it sealed
in a handshake that began beyond its bound.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from keyrotd.core.errors import CorruptWindow, KeyrotdError
from keyrotd.core.succession import follower
from keyrotd.core.window import Key, Window
from keyrotd.daemon.state import decode_cache
from keyrotd.seal.window import open_window
from keyrotd.testing.fleet import RING, Fleet
from keyrotd.tls.handshake import Handshake, Version, client_context, visit
from tests.scenes import now_at

#: Far shorter than the time between two publishes, so that no window goes unseen.
_LOOK_EVERY_S = 0.05
#: An agent stops sealing with a key at an instant of its own clock; a machine that is busy may be this late.
_BUSY_MS = 2_000


@dataclass(frozen=True, slots=True)
class Sealed:
    """One key at work: `first_at` and `last_at` are beginnings of handshakes whose ticket it sealed."""

    name: bytes
    first_at: int
    last_at: int
    node: str


@dataclass
class Watch:
    """Reads every window that any node keeps or the store shows, and visits every node in turn."""

    fleet: Fleet
    eps_ms: int
    sealed: dict[bytes, Sealed] = field(default_factory=dict, init=False)
    windows: dict[str, Window] = field(default_factory=dict, init=False)
    visits: int = field(default=0, init=False)

    @contextmanager
    def watching(self) -> Iterator[None]:
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,))
        watcher.start()
        try:
            yield
        finally:
            stop.set()
            watcher.join()

    def beyond(self) -> list[str]:
        """What sealed beyond its bound, or under no window at all."""
        bounds = self._bounds()
        said = []
        for seen in self.sealed.values():
            bound_at = bounds.get(seen.name)
            if bound_at is None:
                said.append(f"{seen.node} sealed with {seen.name.hex()[:8]}, a key of no window")
            elif seen.last_at > bound_at + self.eps_ms + _BUSY_MS:
                said.append(f"{seen.node} sealed with {seen.name.hex()[:8]} {seen.last_at - bound_at} ms too long")
        return said

    def _bounds(self) -> dict[bytes, int]:
        """The last instant at which any node might seal with each key. Windows only ever lower it."""
        bounds: dict[bytes, int] = {}
        until = now_at()
        for window in self.windows.values():
            for key in _sealing(window, until):
                bounds[key.name] = max(key.seals_until or window.seals_until, bounds.get(key.name, 0))
        return bounds

    def _watch(self, stop: threading.Event) -> None:
        context, store = client_context(Version.TLS12, self.fleet.trust), self.fleet.store()
        while not stop.wait(_LOOK_EVERY_S):
            with suppress(KeyrotdError):  # away, or something that nobody signed
                self._keep(self.fleet.window(store))
            for server, target in zip(self.fleet.servers, self.fleet.targets, strict=True):
                for window in self._cached(server.name):
                    self._keep(window)
                began_at = now_at()
                answer = visit(target, context, sni="localhost", timeout_ms=5000)
                if isinstance(answer, Handshake) and answer.key_name is not None:
                    self._note(answer.key_name, began_at, server.name)
        store.close()

    def _keep(self, window: Window | None) -> None:
        if window is not None:
            self.windows.setdefault(window.digest, window)

    def _cached(self, node: str) -> list[Window]:
        home = f"a{node.removeprefix('node-')}"
        path = self.fleet.directory / home / "run" / f"agent-{RING}.cache"
        try:
            sealed = decode_cache(path.read_bytes()).windows
            return [open_window(w, verifiers=self.fleet.verifiers, keks=self.fleet.keks, ring=RING) for w in sealed]
        except (OSError, CorruptWindow):
            return []

    def _note(self, name: bytes, began_at: int, node: str) -> None:
        self.visits += 1
        before = self.sealed.get(name)
        first_at = began_at if before is None else before.first_at
        self.sealed[name] = Sealed(name, first_at, began_at, node)


def _sealing(window: Window, until: int) -> Iterator[Key]:
    """All keys that may have sealed under `window`, led or not: those in it (`next` stands in), and their followers."""
    for key in window.all:
        yield key
        link = key
        while link.stek is not None and link.steps_at < until:
            link = follower(link, 0)
            yield link
