"""In a cluster one node serves a ring, and the same Store value follows its slot wherever it goes."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import acl
from keyrotd.store.addresses import Address, Cluster
from keyrotd.store.port import Desk, Poll, Published
from keyrotd.store.redis import RedisStore
from keyrotd.store.wakes import RedisWakes
from keyrotd.testing.children import PATIENCE_S, wait_until
from keyrotd.testing.live import free_port
from tests import servers_found
from tests.contract.stores import answering, fresh_namespace, store_on
from tests.contract.topologies import Clustered, Server, clustered

TIMEOUT_MS = 1_000
#: The machine that runs the tests may be busy; the point is seconds, not minutes.
GENEROUS_S = 4.0
#: A ring of which no other test leaves keys in the same slot.
MOVING = "moving"


@pytest.fixture
def namespace() -> str:
    return fresh_namespace()


@pytest.fixture
def store(cluster: Clustered, namespace: str) -> Iterator[RedisStore]:
    store = store_on(cluster.address, namespace=namespace, timeout_ms=TIMEOUT_MS)
    yield store
    store.close()


def lead(store: RedisStore) -> Desk:
    return store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")


def publish(store: RedisStore, digest: str, parent: str) -> object:
    window = f"window {digest}".encode()
    return store.publish(window=window, digest=digest, epoch=1, fence=1, parent=parent)


def poll(store: RedisStore) -> Poll:
    return store.poll(known_digest="", node="edge-1", report=b"report")


def calls(servers: list[Server], command: str) -> int:
    found = (server.redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0}) for server in servers)
    return sum(int(each["calls"]) for each in found)


@pytest.mark.parametrize("ring", ["edge", "core", "a"])  # each lives on another node
def test_the_owner_is_found_by_asking_anybody_and_then_asked_at_once(
    cluster: Clustered, namespace: str, ring: str
) -> None:
    store = store_on(cluster.address, ring=ring, namespace=namespace)
    lead(store)
    before = calls(cluster.nodes, "hello"), calls([cluster.owner(ring)], "evalsha"), calls(cluster.nodes, "asking")

    lead(store)

    after = calls(cluster.nodes, "hello"), calls([cluster.owner(ring)], "evalsha"), calls(cluster.nodes, "asking")
    assert after == (before[0], before[1] + 1, before[2])
    assert cluster.owner(ring).redis.exists(f"{namespace}:{{{ring}}}:lease")
    store.close()


def test_a_slot_that_moves_under_load_costs_time_and_never_a_wrong_answer(cluster: Clustered, namespace: str) -> None:
    stop, load = threading.Event(), Load(cluster.address, namespace)
    threads = [threading.Thread(target=load.keep_on, args=(stop, deed)) for deed in (load.publish, load.poll)]
    load.publish()
    for thread in threads:
        thread.start()

    try:
        for _ in range(2):
            for _ in cluster.move(MOVING):
                load.goes_on()
        # Nothing is left open, so that everything must succeed again.
        load.succeeds()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        load.close()

    assert load.wrong == []
    assert load.store.window() == (f"d{load.epoch}", b"window")
    assert load.slowest_s < GENEROUS_S


class Load:
    """A leader that publishes windows one after the other, and a node that polls."""

    def __init__(self, address: Address, namespace: str) -> None:
        self.store = store_on(address, ring=MOVING, namespace=namespace, timeout_ms=100)
        self.node = store_on(address, ring=MOVING, namespace=namespace, timeout_ms=100)
        self.epoch, self.seen = 0, 0
        self.asked: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.slowest_s = 0.0
        self.wrong: list[object] = []

    def publish(self) -> None:
        desk = lead(self.store)
        # A publish of which nobody knew whether it came through is asked for again.
        if desk.fence != 1 or desk.digest not in {f"d{self.epoch}" if self.epoch else "", f"d{self.epoch + 1}"}:
            self.wrong.append(desk)
        parent, digest = (f"d{self.epoch}" if self.epoch else ""), f"d{self.epoch + 1}"
        # Offers are there too: with every key of a script present, a node serves it while the slot is leaving it.
        self.store.offer(digest="d0", window=b"other")
        outcome = self.store.publish(window=b"window", digest=digest, epoch=1, fence=1, parent=parent)
        if outcome != Published():
            self.wrong.append(outcome)
        self.epoch += 1

    def poll(self) -> None:
        digest = poll(self.node).digest
        if not digest or int(digest[1:]) < self.seen:
            self.wrong.append(digest)
        self.seen = int(digest[1:] or 0)

    def keep_on(self, stop: threading.Event, deed: Callable[[], None]) -> None:
        name = deed.__name__
        while not stop.is_set():
            began_at = time.monotonic()
            try:
                deed()
                self.done[name] = self.done.get(name, 0) + 1
            except StoreUnavailable:
                pass
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_at)
            self.asked[name] = self.asked.get(name, 0) + 1

    def goes_on(self) -> None:
        """Wait until both have asked something that began after this call."""
        self._both(self.asked)

    def succeeds(self) -> None:
        self._both(self.done)

    def _both(self, counts: dict[str, int]) -> None:
        seen = {name: counts.get(name, 0) for name in ("publish", "poll")}
        wait_until(lambda: all(counts.get(name, 0) >= seen[name] + 2 for name in seen), f"both go on after {seen}")

    def close(self) -> None:
        self.node.close()


def test_a_window_published_while_its_slot_is_leaving_is_there(cluster: Clustered, store: RedisStore) -> None:
    lead(store)
    publish(store, "d1", "")
    store.offer(digest="d0", window=b"other")

    with cluster.leaving("edge"):
        assert publish(store, "d2", "d1") == Published()

    assert store.window() == ("d2", b"window d2")


def test_what_is_written_aside_arrives_once(cluster: Clustered, store: RedisStore) -> None:
    store.record(event=b"before")
    asked = calls(cluster.nodes, "asking")

    with cluster.leaving("edge"):
        store.report(node="edge-1", report=b"report")  # there are no reports yet: the next owner takes the first
        store.record(event=b"after")

    assert calls(cluster.nodes, "asking") == asked + 1
    assert (store.reports(), store.history(limit=9)) == ({"edge-1": b"report"}, (b"after", b"before"))


def test_a_slot_that_stays_open_is_given_up_in_time_with_a_hint(cluster: Clustered, store: RedisStore) -> None:
    lead(store)

    with cluster.leaving("edge"):
        began_at = time.monotonic()
        with pytest.raises(StoreUnavailable) as refusal:
            store.look()
        assert time.monotonic() - began_at < GENEROUS_S
        assert poll(store).report_fault == ""

    assert "moving slots" in str(refusal.value.hint)
    assert store.look().leader == "a"


@pytest.mark.debian  # eight seconds, so of one server only
def test_an_owner_that_dies_is_succeeded_by_its_replica(tmp_path: Path) -> None:
    with clustered(servers_found.debian_redis(), tmp_path, replica_of="edge") as cluster:
        owner = cluster.owner("edge")
        store = RedisStore(cluster.address, ring="edge", namespace="keyrotd", timeout_ms=TIMEOUT_MS, wait_replicas=1)
        lead(store)
        publish(store, "d1", "")
        wait_until(lambda: lead(store).replicas == 1, "its replica has the window")

        os.kill(owner.pid, signal.SIGKILL)

        def found() -> bool:
            began_at = time.monotonic()
            try:
                return lead(store).digest == "d1"
            except StoreUnavailable:
                return False
            finally:
                assert time.monotonic() - began_at < GENEROUS_S

        wait_until(found, "the replica is found")
        assert publish(store, "d2", "d1") == Published()
        store.close()


def test_a_listener_hears_what_is_published_on_any_node(cluster: Clustered, namespace: str) -> None:
    rings = ["edge", "core", "a"]
    stores = [store_on(cluster.address, ring=ring, namespace=namespace, timeout_ms=TIMEOUT_MS) for ring in rings]
    wakes = RedisWakes(stores, schedules=False)
    for listener in stores:
        listener.look()
    assert not wakes.wait(20)

    for ring in rings:
        store = store_on(cluster.address, ring=ring, namespace=namespace)
        lead(store)
        publish(store, "d1", "")
        assert wakes.wait(int(PATIENCE_S * 1000))
        store.wake()
        assert wakes.wait(int(PATIENCE_S * 1000))
        store.close()
    wakes.close()


def test_every_role_has_the_rights_to_follow(cluster: Clustered, store: RedisStore, namespace: str) -> None:
    for node in cluster.nodes:
        for line in acl.lines(namespace, ["edge"]):
            node.redis.execute_command(*line.split(" "))
        node.redis.execute_command("ACL", "SETUSER", "keyrotd-agent", ">agents")
    where = Address(through=cluster.address.through, username="keyrotd-agent", password="agents")
    agent = store_on(where, namespace=namespace, timeout_ms=TIMEOUT_MS)
    lead(store)
    publish(store, "d1", "")
    assert (poll(agent).digest, poll(agent).report_fault) == ("d1", "")
    store.forget(nodes=["edge-1"])

    with cluster.leaving("edge"):
        agent.report(node="edge-1", report=b"aside")

    assert poll(agent).digest == "d1"
    agent.close()


def test_seeds_that_are_away_are_passed_over(cluster: Clustered) -> None:
    assert isinstance(cluster.address.through, Cluster)
    dead, hanging = ("127.0.0.1", free_port()), cluster.nodes[1]
    seeds = (dead, ("127.0.0.1", hanging.port), ("127.0.0.1", cluster.nodes[0].port))
    ring = next(ring for ring in ("edge", "core", "a") if cluster.owner(ring) is not hanging)

    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        store = store_on(Address(through=Cluster(seeds)), ring=ring, timeout_ms=TIMEOUT_MS)
        assert store.look().leader == ""
        store.close()
    finally:
        os.kill(hanging.pid, signal.SIGCONT)


HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n"


@pytest.mark.parametrize(
    "refusal",
    [
        b"-MOVED 1 127.0.0.1:{port}\r\n",
        b"-MOVED 1 :{port}\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-MOVED 1 ?:1\r\n",
        b"-MOVED x\r\n",
        b"-ASK 1 127.0.0.1:{port}\r\n",
        b"-ASK 1 127.0.0.1:99999\r\n",
        b"-TRYAGAIN later\r\n",
        b"-CLUSTERDOWN The cluster is down\r\n",
        b"-CROSSSLOT no\r\n",
    ],
)
def test_nodes_that_send_us_round_in_circles_are_given_up_in_time(refusal: bytes) -> None:
    with answering(HELLO + refusal * 4) as where:
        store = store_on(Address(through=Cluster(((where.host, where.port),))), timeout_ms=300)
        for _ in range(2):
            began_at = time.monotonic()
            with pytest.raises(StoreUnavailable):
                poll(store)
            assert time.monotonic() - began_at < GENEROUS_S
        store.close()


def test_a_node_of_a_cluster_named_alone_is_refused_with_the_right_scheme(cluster: Clustered) -> None:
    stranger = next(node for node in cluster.nodes if node is not cluster.owner("edge"))

    with pytest.raises(StoreUnavailable) as refusal:
        store_on(Address(host="127.0.0.1", port=stranger.port)).look()

    assert "redis+cluster://" in str(refusal.value.hint)
