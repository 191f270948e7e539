"""The listener hears, says when it does not, and survives whatever befalls the server."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import Address
from keyrotd.store.embedded import Embedded
from keyrotd.store.memory import MemoryServer, MemoryStore, MemoryWakes
from keyrotd.store.port import Wakes
from keyrotd.store.wakes import RedisWakes
from keyrotd.testing.children import PATIENCE_S, wait_until
from tests.contract.stores import address, answering, owner, relayed, running, store_on

LONG_MS = int(PATIENCE_S * 1000)


@pytest.fixture
def server(store_exe: Path, tmp_path: Path) -> Iterator[Embedded]:
    with running(store_exe, tmp_path) as server:
        yield server


@dataclass
class Node:
    """A daemon of some rings: it polls when it is time to, and whenever it is hinted at."""

    where: Address
    rings: tuple[str, ...] = ("edge", "core")
    timeout_ms: int = 5_000
    schedules: bool = False
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.stores = [store_on(self.where, ring=ring, timeout_ms=self.timeout_ms) for ring in self.rings]
        self.wakes = RedisWakes(self.stores, schedules=self.schedules)

    def poll(self) -> None:
        for store in self.stores:
            try:
                store.poll(known_digest="", node="n", report=b"r")
            except StoreUnavailable as away:
                self.faults.append(str(away))

    def wait(self, timeout_ms: int = LONG_MS) -> bool:
        return self.wakes.wait(timeout_ms)

    def settle(self) -> None:
        """Let it listen to all of its rings, and swallow what came of that."""

        def quiet() -> bool:
            self.poll()
            return not self.wait(20) and self.wakes.fault == ""

        wait_until(quiet, "it listens and nobody says anything")

    def close(self) -> None:
        self.wakes.close()
        for store in self.stores:
            store.close()


@pytest.fixture
def node(server: Embedded) -> Iterator[Node]:
    node = Node(address(server))
    node.settle()
    yield node
    node.close()


def wake(server: Embedded, ring: str = "edge") -> None:
    store = store_on(address(server), ring=ring)
    store.wake()
    store.close()


def test_a_node_takes_one_connection_for_a_ring(server: Embedded, node: Node) -> None:
    with owner(server) as redis:
        names = [client["name"] for client in redis.client_list()]

    assert names.count("keyrotd") == len(node.rings)


def test_a_wake_of_any_of_the_rings_ends_the_wait(server: Embedded, node: Node) -> None:
    for ring in ("edge", "core"):
        wake(server, ring)
        assert node.wait()
    wake(server, "other")
    assert not node.wait(50)


def test_a_publish_wakes_nodes_and_a_request_schedulers(server: Embedded, node: Node) -> None:
    leader = Node(address(server), schedules=True)
    leader.settle()
    (store, _) = leader.stores
    store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    assert not node.wait(20)

    store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    assert node.wait()
    assert not leader.wait(50)
    store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d0")
    assert not node.wait(50)
    store.request(id="r1", request=b"rotate")
    assert leader.wait()
    assert not node.wait(50)

    leader.close()


def test_what_is_said_before_an_answer_is_heard(server: Embedded) -> None:
    with relayed(server) as relay, owner(server) as redis:
        node = Node(relay.address, rings=("edge",))
        node.settle()
        relay.before = lambda _: redis.publish("keyrotd:{edge}:wake", b"")
        node.poll()

        assert (node.wait(0), node.faults) == (True, [])
        node.close()


def test_a_large_fleet_is_asked_to_spread_its_polls(server: Embedded, node: Node) -> None:
    leader = store_on(address(server))
    leader.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    with owner(server) as redis:
        said = redis.pubsub()
        said.subscribe("keyrotd:{edge}:wake")

        leader.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="", spread_ms=200)

        wait_until(lambda: (message := said.get_message()) is not None and message["data"] == b"200", "it says so")
    assert node.wait()
    leader.close()


def test_a_restarted_server_is_heard_again_and_its_loss_is_a_hint(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as first:
        node = Node(address(first))
        node.settle()
    assert node.wait()
    assert str(tmp_path) in node.wakes.fault
    node.poll()
    assert node.faults

    with running(store_exe, tmp_path) as second:
        wait_until(lambda: node.wait(50), "it is time to look again")
        node.settle()
        wake(second)
        assert node.wait()
        node.close()


def test_a_connection_half_dead_is_noticed_by_the_next_poll_and_left(server: Embedded) -> None:
    node = Node(address(server), timeout_ms=100)
    node.settle()

    os.kill(server.pid, signal.SIGSTOP)
    try:
        node.poll()
        assert "no answer within 100 ms" in node.wakes.fault
    finally:
        os.kill(server.pid, signal.SIGCONT)

    wait_until(lambda: node.wait(50), "it is time to look again")
    node.settle()
    wake(server)
    assert node.wait()
    node.close()


def test_a_user_who_may_not_listen_polls_all_the_same(server: Embedded) -> None:
    with owner(server) as redis:
        redis.execute_command("ACL", "SETUSER", "deaf", "on", ">deaf", "~*", "+@all", "resetchannels")
    node = Node(replace(address(server), username="deaf", password="deaf"))

    node.poll()

    assert (node.faults, "wait: " in node.wakes.fault) == ([], True)
    assert not node.wait(50)
    node.close()


def test_nobody_hears_before_the_first_poll(tmp_path: Path) -> None:
    node = Node(Address(path=str(tmp_path / "nobody.sock")), timeout_ms=100)
    began_at = time.monotonic()

    assert not any(node.wait(30) for _ in range(5))

    assert 0.12 <= time.monotonic() - began_at < PATIENCE_S
    node.poll()
    assert "nobody.sock" in node.wakes.fault
    node.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"-ERR no\r\n",
        b"*1\r\n" * 50_000,
        b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n>1\r\n$-1\r\n>0\r\n>1\r\n*0\r\n",
        b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n" + b">3\r\n+message\r\n+c\r\n+x\r\n" * 2_000,
        b"$99999999\r\n" + b"x" * 200_000,
    ],
)
def test_no_answer_makes_the_wait_raise_or_last(reply: bytes) -> None:
    with answering(reply) as where:
        node = Node(where, rings=("edge",), timeout_ms=50)
        began_at = time.monotonic()

        for _ in range(5):
            node.poll()
            node.wait(50)

        assert time.monotonic() - began_at < PATIENCE_S
        node.close()


@pytest.mark.parametrize("many", [1, 5_000])
def test_whatever_is_said_costs_the_connection_at_most_and_no_poll(server: Embedded, node: Node, many: int) -> None:
    with owner(server) as redis:
        pipe = redis.pipeline(transaction=False)
        for _ in range(many):
            pipe.publish("keyrotd:{edge}:wake", b"x" * (1_000_000 // many))
        pipe.execute()

    assert node.wait()
    node.poll()
    assert node.faults == []
    node.settle()
    wake(server)
    assert node.wait()


def redis_wakes(server: Embedded) -> Wakes:
    node = Node(address(server))
    node.settle()
    return node.wakes


def memory_wakes(_: Embedded) -> Wakes:
    return MemoryWakes(MemoryServer(lambda: 0), ["edge"])


@pytest.mark.parametrize("make", [redis_wakes, memory_wakes])
def test_closing_ends_a_wait(server: Embedded, make: Callable[[Embedded], Wakes]) -> None:
    wakes = make(server)
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(wakes.wait(LONG_MS * 10)))
    waiting.start()

    wakes.close()
    waiting.join(PATIENCE_S)

    assert heard == [False]
    assert not wakes.wait(LONG_MS)


def test_the_twin_wakes_too() -> None:
    memory = MemoryServer(lambda: 0)
    wakes = MemoryWakes(memory, ["edge", "core"])
    store, other = MemoryStore("core", memory), MemoryStore("other", memory)
    assert not wakes.wait(0)

    store.request(id="r1", request=b"rotate")
    assert wakes.wait(0)
    other.wake()
    assert not wakes.wait(1)
    waker = threading.Thread(target=store.wake)
    waker.start()
    assert wakes.wait(LONG_MS)

    waker.join()
    assert wakes.fault == ""
