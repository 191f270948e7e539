"""Behind sentinels the same Store value follows the primary, and takes nobody else's word for it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import acl
from keyrotd.store.addresses import Address, Sentinels, parse
from keyrotd.store.port import Desk, Moved, Published
from keyrotd.store.redis import RedisStore
from keyrotd.store.wakes import RedisWakes
from keyrotd.testing.children import PATIENCE_S, wait_until
from keyrotd.testing.live import free_port
from tests.contract.stores import answering, fresh_namespace, store_on
from tests.contract.topologies import NAME, Watched, watched

TIMEOUT_MS = 1_000
#: The machine that runs the tests may be busy; the point is seconds, not minutes.
GENEROUS_S = 4.0

_Value = TypeVar("_Value")


@pytest.fixture
def namespace() -> str:
    return fresh_namespace()


@pytest.fixture
def store(fleet: Watched, namespace: str) -> Iterator[RedisStore]:
    store = store_on(fleet.address, namespace=namespace, timeout_ms=TIMEOUT_MS)
    yield store
    store.close()


def lead(store: RedisStore, *, fence_above: int = 0) -> Desk:
    return store.lead(holder="a", ttl_ms=60_000, fence_above=fence_above, known_digest="")


def publish(store: RedisStore, digest: str, parent: str, fence: int = 1) -> object:
    window = f"window {digest}".encode()
    return store.publish(window=window, digest=digest, epoch=1, fence=fence, parent=parent)


def once_back(question: Callable[[], _Value]) -> _Value:
    """Ask until there is an answer; each attempt ends in time, and a store that is away is the only fault."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        began_at = time.monotonic()
        try:
            return question()
        except StoreUnavailable:
            assert time.monotonic() - began_at < GENEROUS_S
            assert time.monotonic() < deadline
            time.sleep(0.02)


def behind(*nodes: Address, name: str = NAME) -> RedisStore:
    return store_on(Address(through=Sentinels(nodes, name)), timeout_ms=TIMEOUT_MS)


def test_a_failover_by_order_is_followed_by_store_and_listener(
    fleet: Watched, store: RedisStore, namespace: str
) -> None:
    node = store_on(fleet.address, namespace=namespace, timeout_ms=TIMEOUT_MS)
    wakes = RedisWakes([node], schedules=False)
    asking = RedisStore(fleet.address, ring="edge", namespace=namespace, timeout_ms=TIMEOUT_MS, wait_replicas=2)
    lead(store)
    publish(store, "d1", "")
    wait_until(lambda: lead(asking).replicas == 2, "both replicas have the window")
    node.look()
    assert subscribers(fleet.primary.redis, namespace) == 1
    old = fleet.primary

    fleet.sentinels[0].redis.execute_command("SENTINEL", "FAILOVER", NAME)
    wait_until(lambda: old.redis.role()[0] == b"slave", "the old primary gave up")

    assert (once_back(lambda: lead(store)).digest, fleet.primary is old) == ("d1", False)
    assert publish(store, "d2", "d1") == Published()
    assert fleet.primary.redis.hget(f"{namespace}:{{edge}}:window", "digest") == b"d2"
    wait_until(lambda: wakes.wait(50), "the loss of its connection hints at another one")
    once_back(node.look)
    wait_until(lambda: not wakes.wait(20) or not node.look(), "and nobody says more")
    assert subscribers(fleet.primary.redis, namespace) == 1
    store.wake()
    assert wakes.wait(int(PATIENCE_S * 1000))
    wakes.close()
    node.close()
    asking.close()


def subscribers(redis: Any, namespace: str) -> int:
    return int(redis.pubsub_numsub(f"{namespace}:{{edge}}:wake")[0][1])


def test_a_primary_that_dies_with_the_last_write_leaves_a_store_that_went_back(store_exe: Path, tmp_path: Path) -> None:
    with watched(store_exe, tmp_path / "fleet") as fleet:
        store = RedisStore(fleet.address, ring="edge", namespace="keyrotd", timeout_ms=TIMEOUT_MS, wait_replicas=1)
        lead(store)
        publish(store, "d1", "")
        wait_until(lambda: lead(store).replicas == 1, "the replica has the first window")
        old = fleet.primary
        old.redis.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
        old.redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
        lead(store, fence_above=4)

        assert publish(store, "d2", "d1", fence=5) == Published()
        assert lead(store, fence_above=4).replicas == 0
        os.kill(old.pid, signal.SIGKILL)

        desk = once_back(lambda: lead(store, fence_above=5))
        assert fleet.primary is not old
        assert (desk.fence, desk.digest, desk.window) == (6, "d1", b"window d1")
        assert publish(store, "d3", "d2", fence=6) == Moved("d1")
        assert publish(store, "d3", "d1", fence=6) == Published()
        store.close()


def test_a_replica_that_hangs_does_not_count(fleet: Watched, namespace: str) -> None:
    store = RedisStore(fleet.address, ring="edge", namespace=namespace, timeout_ms=TIMEOUT_MS, wait_replicas=2)
    wait_until(lambda: lead(store).replicas == 2, "both replicas have the lease")
    hanging = fleet.replicas[0]

    os.kill(hanging.pid, signal.SIGSTOP)
    try:
        began_at = time.monotonic()
        assert lead(store).replicas == 1
        assert time.monotonic() - began_at < GENEROUS_S
    finally:
        os.kill(hanging.pid, signal.SIGCONT)

    wait_until(lambda: lead(store).replicas == 2, "it is back")
    store.close()


def test_whoever_is_no_primary_is_not_asked(fleet: Watched) -> None:
    port = str(fleet.replicas[0].port).encode()
    lie = b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n*2\r\n$9\r\n127.0.0.1\r\n$" + b"%d\r\n%b\r\n" % (len(port), port)

    with answering(lie) as liar:
        with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{port.decode()}, .* is none") as refusal:
            behind(liar).look()
        store = behind(liar, fleet.sentinel(fleet.sentinels[0].port))
        assert store.look().digest == ""
        store.close()

    assert refusal.value.hint is not None


def test_one_sentinel_that_answers_is_enough(fleet: Watched) -> None:
    dead = Address(host="127.0.0.1", port=free_port())
    hanging, sound = (fleet.sentinel(sentinel.port) for sentinel in fleet.sentinels[:2])

    os.kill(fleet.sentinels[0].pid, signal.SIGSTOP)
    try:
        for nodes in ((dead, hanging, sound), (hanging, dead, sound)):
            store = behind(*nodes)
            assert store.look().leader == ""
            store.close()
    finally:
        os.kill(fleet.sentinels[0].pid, signal.SIGCONT)


@pytest.mark.parametrize("count", [1, 16])
def test_sentinels_that_all_hang_are_given_up_in_time(count: int) -> None:
    with answering(b"") as silent:
        store = store_on(Address(through=Sentinels((silent,) * count, NAME)), timeout_ms=300)
        began_at = time.monotonic()

        with pytest.raises(StoreUnavailable, match="sentinel 127"):
            store.look()

        assert time.monotonic() - began_at < GENEROUS_S


def test_what_is_wrong_with_a_sentinel_is_said_with_a_hint(fleet: Watched) -> None:
    sentinel = fleet.sentinel(fleet.sentinels[0].port)
    faults = {
        "sentinel_password_file": behind(Address(host=sentinel.host, port=sentinel.port)),
        "sentinel monitor": behind(sentinel, name="other"),
        "no sentinel": behind(Address(host="127.0.0.1", port=fleet.primary.port)),
    }

    for words, store in faults.items():
        with pytest.raises(StoreUnavailable) as refusal:
            store.look()
        assert "sentinel 127.0.0.1:" in str(refusal.value)
        assert words in str(refusal.value.hint)


@pytest.mark.parametrize(
    "reply", [b"*2\r\n$1\r\nx\r\n$1\r\nx\r\n", b"*2\r\n$0\r\n\r\n$2\r\n80\r\n", b"*1\r\n:1\r\n", b":1\r\n"]
)
def test_no_answer_of_a_sentinel_is_worse_than_no_answer(reply: bytes) -> None:
    with answering(b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n" + reply) as where, pytest.raises(StoreUnavailable):
        behind(where).look()


def test_an_agent_with_the_rights_of_an_agent_finds_the_primary(fleet: Watched, namespace: str) -> None:
    for line in acl.lines(namespace, ["edge"]):
        fleet.primary.redis.execute_command(*line.split(" "))
    fleet.primary.redis.execute_command("ACL", "SETUSER", "keyrotd-agent", ">agents")
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in fleet.sentinels)
    url = f"redis+sentinel://keyrotd-agent:agents@{hosts}/{NAME}?sentinel_password_file={fleet.password_file}"

    store = store_on(parse(url, runtime_dir=Path("/run")), namespace=namespace)

    assert store.poll(known_digest="", node="edge-1", report=b"report").report_fault == ""
    store.close()
