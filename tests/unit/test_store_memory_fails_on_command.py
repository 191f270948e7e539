import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.memory import Fault, MemoryServer, MemoryStore
from keyrotd.store.port import Look, Published


def test_an_operation_that_is_away_did_nothing() -> None:
    store = MemoryStore("edge", MemoryServer(lambda: 0))
    store.fault = lambda operation: Fault.AWAY if operation == "report" else None

    with pytest.raises(StoreUnavailable) as refusal:
        store.report(node="edge-1", report=b"report")

    assert refusal.value.operation == "report"
    assert store.reports() == {}


def test_an_operation_that_is_unanswered_was_done() -> None:
    store = MemoryStore("edge", MemoryServer(lambda: 0), fault=lambda _: Fault.UNANSWERED)

    with pytest.raises(StoreUnavailable):
        store.report(node="edge-1", report=b"report")
    store.fault = lambda _: None

    assert store.reports() == {"edge-1": b"report"}


def test_a_lease_lives_by_the_clock_of_the_server() -> None:
    now = [1_000]
    server = MemoryServer(lambda: now[0])
    first, second = MemoryStore("edge", server), MemoryStore("edge", server)
    desk = first.lead(holder="a", ttl_ms=100, fence_above=0, known_digest="")
    assert (desk.lease_ms, desk.store_at) == (100, 1_000)

    now[0] = 1_099
    assert second.lead(holder="b", ttl_ms=100, fence_above=0, known_digest="").fence is None
    now[0] = 1_100
    assert second.lead(holder="b", ttl_ms=100, fence_above=0, known_digest="").fence == 2


def test_a_failover_goes_back_to_what_the_replica_had() -> None:
    server = MemoryServer(lambda: 0)
    store = MemoryStore("edge", server)
    store.lead(holder="a", ttl_ms=100, fence_above=0, known_digest="")
    store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    replica = server.snapshot()
    assert store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d1") == Published()

    server.restore(replica)

    assert store.window() == ("d1", b"one")
    assert store.publish(window=b"three", digest="d3", epoch=2, fence=1, parent="d1") == Published()
    server.restore(replica)
    assert store.window() == ("d1", b"one")


def test_a_flush_loses_everything() -> None:
    server = MemoryServer(lambda: 0)
    store = MemoryStore("edge", server)
    store.lead(holder="a", ttl_ms=100, fence_above=0, known_digest="")
    store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")

    server.flush()

    assert store.look() == Look(digest="", window=None, beat=None, leader="", lease_ms=0, fence=0)


def test_two_partitions_publish_apart() -> None:
    here, there = MemoryServer(lambda: 0), MemoryServer(lambda: 0)
    store, other = MemoryStore("edge", here), MemoryStore("edge", here)
    other.server = there

    for each, window in ((store, b"here"), (other, b"there")):
        each.lead(holder="a", ttl_ms=100, fence_above=0, known_digest="")
        each.publish(window=window, digest="d1", epoch=1, fence=1, parent="")

    assert (store.window(), other.window()) == (("d1", b"here"), ("d1", b"there"))
