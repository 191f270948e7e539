"""A network that takes all and brings nothing: a leader stops by its own clock, and what comes late changes nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keyrotd.store.addresses import Address
from keyrotd.store.redis import RedisStore
from tests.faults.rig import POLICY, RING, STORE_TIMEOUT_MS, Desk, Rig, names_in
from tests.faults.test_leader import ask_to_rotate, leads

#: What one tick may ask in turn, each time in vain: reports, and then whatever ends the tick; or history, and the beat.
_WAITS = 2
#: The machine that runs the tests may be busy; the point is a lease.
_GENEROUS_S = 3.0


@dataclass
class Network:
    """Carries what is said at `path` to `to`: all of it, or only the next `passes` messages, and keeps the others."""

    path: Path
    to: str
    passes: int | None = None
    kept: list[tuple[socket.socket, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._ends: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def bring(self) -> None:
        """What was kept arrives after all, and everything from now on."""
        self.passes, kept = None, self.kept
        self.kept = []
        for server, said in kept:
            server.sendall(said)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.to)
            self._ends += [client, server]
            threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        while said := _heard(client):
            if self.passes is None:
                server.sendall(said)
            elif self.passes > 0:
                self.passes -= 1
                server.sendall(said)
            else:
                self.kept.append((server, said))

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while said := _heard(server):
            try:
                client.sendall(said)
            except OSError:
                return


def _heard(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except OSError:
        return b""


@pytest.fixture
def network(rig: Rig) -> Iterator[Network]:
    network = Network(rig.directory / "network.sock", rig.address.path)
    yield network
    network.close()


def remote_desk(rig: Rig, network: Network) -> Desk:
    address = Address(path=str(network.path))
    store = RedisStore(address, ring=RING, namespace=rig.namespace, timeout_ms=STORE_TIMEOUT_MS)
    return rig.add_desk(store=store)


@pytest.mark.parametrize("passes", range(5))
def test_wherever_in_a_tick_it_begins_the_lease_is_given_up_and_a_late_order_changes_nothing(
    rig: Rig, network: Network, passes: int
) -> None:
    desk = remote_desk(rig, network)
    window = rig.start(desks=0)
    ask_to_rotate(rig, past_epoch=window.epoch)
    network.passes = passes

    began_s = time.monotonic()
    desk.scheduler.tick()
    took_s = time.monotonic() - began_s
    network.passes = 0
    rig.now_at += POLICY.lease_ttl_ms
    desk.scheduler.tick()

    assert took_s < _WAITS * STORE_TIMEOUT_MS / 1000 + _GENEROUS_S
    assert took_s < POLICY.lease_ttl_ms / 1000
    assert not leads(desk)

    rig.end_lease()
    heir = rig.add_desk()
    desk.away = True
    newer = rig.settle(above=window.epoch)
    rings = [names_in(twin) for twin in rig.twins]
    network.bring()
    rig.pass_time(2_000)

    assert leads(heir)
    assert newer.epoch == window.epoch + 1
    assert rig.window() == newer
    assert [names_in(twin) for twin in rig.twins] == rings
