"""The listener hears, says when it does not, and survives whatever befalls the server."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from keyrotd.store.embedded import Embedded
from keyrotd.store.memory import MemoryServer, MemoryStore, MemoryWakes
from keyrotd.store.port import Wakes
from keyrotd.store.wakes import RedisWakes
from keyrotd.testing.children import PATIENCE_S, wait_until
from tests.contract.stores import address, answering, owner, running, store_on

LONG_MS = int(PATIENCE_S * 1000)


@pytest.fixture
def server(store_exe: Path, tmp_path: Path) -> Iterator[Embedded]:
    with running(store_exe, tmp_path) as server:
        yield server


def listening(server: Embedded, *, timeout_ms: int = 5_000, quiet_ms: int = 10_000) -> RedisWakes:
    return RedisWakes(
        address(server),
        rings=["edge", "core"],
        namespace="keyrotd",
        timeout_ms=timeout_ms,
        quiet_ms=quiet_ms,
        rand=lambda: 0.0,
    )


def subscribed(server: Embedded) -> bool:
    with owner(server) as redis:
        return bool(redis.pubsub_numsub("keyrotd:{core}:wake")[0][1])


def settle(wakes: Wakes, server: Embedded) -> None:
    """Let it subscribe, and swallow what came of that."""
    wait_until(lambda: not wakes.wait(20) and subscribed(server), "it subscribes")


def test_a_wake_of_any_of_the_rings_ends_the_wait(server: Embedded) -> None:
    wakes = listening(server)
    settle(wakes, server)

    for ring in ("edge", "core"):
        store = store_on(address(server), ring=ring)
        store.wake()
        assert wakes.wait(LONG_MS)
        store.close()
    other = store_on(address(server), ring="other")
    other.wake()
    assert not wakes.wait(50)

    other.close()
    wakes.close()


def test_publishing_and_requesting_wake(server: Embedded) -> None:
    wakes = listening(server)
    settle(wakes, server)
    store = store_on(address(server))
    store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    assert not wakes.wait(20)

    store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    assert wakes.wait(LONG_MS)
    store.publish(window=b"two", digest="d2", epoch=2, fence=1, parent="d0")
    assert not wakes.wait(50)
    store.request(id="r1", request=b"rotate")
    assert wakes.wait(LONG_MS)

    store.close()
    wakes.close()


def test_a_restarted_server_is_heard_again_and_what_was_missed_is_made_up_by_a_hint(
    store_exe: Path, tmp_path: Path
) -> None:
    with running(store_exe, tmp_path) as first:
        wakes = listening(first)
        settle(wakes, first)
    assert not wakes.wait(50)
    assert str(tmp_path) in wakes.fault

    with running(store_exe, tmp_path) as second:
        assert wakes.wait(LONG_MS)
        assert wakes.fault == ""
        settle(wakes, second)
        store = store_on(address(second))
        store.wake()
        assert wakes.wait(LONG_MS)
        store.close()
        wakes.close()


def test_a_connection_half_dead_is_noticed_and_left(server: Embedded) -> None:
    wakes = listening(server, timeout_ms=100, quiet_ms=100)
    settle(wakes, server)

    os.kill(server.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not wakes.wait(50) and wakes.fault != "", "it notices")
        assert "no answer within 100 ms" in wakes.fault
    finally:
        os.kill(server.pid, signal.SIGCONT)

    wait_until(lambda: wakes.wait(50), "it is back, with a hint")
    settle(wakes, server)
    store = store_on(address(server))
    store.wake()
    assert wakes.wait(LONG_MS)
    store.close()
    wakes.close()


def test_a_quiet_connection_that_lives_is_kept(server: Embedded) -> None:
    wakes = listening(server, quiet_ms=20)
    settle(wakes, server)

    def pings() -> int:
        with owner(server) as redis:
            return int(redis.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])

    asked = pings()
    wait_until(lambda: not wakes.wait(20) and pings() > asked + 2, "it asks and is answered")

    with owner(server) as redis:
        assert redis.info("commandstats")["cmdstat_subscribe"]["calls"] == 1
    wakes.close()


def test_a_server_that_is_not_there_is_no_fault_of_the_wait(tmp_path: Path) -> None:
    from keyrotd.store.addresses import Address

    wakes = RedisWakes(Address(path=str(tmp_path / "nobody.sock")), rings=["edge"], namespace="keyrotd", timeout_ms=100)
    began_at = time.monotonic()

    assert not any(wakes.wait(30) for _ in range(5))

    assert 0.12 <= time.monotonic() - began_at < PATIENCE_S
    assert "nobody.sock" in wakes.fault
    wakes.close()


@pytest.mark.parametrize(
    "reply",
    [
        b"-ERR no\r\n",
        b"*1\r\n" * 50_000,
        b"%1\r\n$5\r\nproto\r\n:3\r\n",
        b"%1\r\n$5\r\nproto\r\n:3\r\n+OK\r\n>1\r\n$-1\r\n>0\r\n>1\r\n*0\r\n",
        b"$99999999\r\n" + b"x" * 200_000,
    ],
)
def test_no_answer_makes_the_wait_raise_or_last(reply: bytes) -> None:
    with answering(reply) as where:
        wakes = RedisWakes(where, rings=["edge"], namespace="keyrotd", timeout_ms=50, quiet_ms=50)
        began_at = time.monotonic()

        for _ in range(5):
            wakes.wait(50)

        assert time.monotonic() - began_at < PATIENCE_S
        wakes.close()


def test_a_message_too_large_ends_the_connection_and_not_the_listener(server: Embedded) -> None:
    wakes = listening(server)
    settle(wakes, server)
    with owner(server) as redis:
        redis.publish("keyrotd:{edge}:wake", b"x" * 1_000_000)

    wait_until(lambda: wakes.wait(50), "a hint, if only for the new connection")
    wakes.close()


def memory_wakes(_: Embedded) -> Wakes:
    return MemoryWakes(MemoryServer(lambda: 0), ["edge"])


@pytest.mark.parametrize("make", [listening, memory_wakes])
def test_closing_ends_a_wait(server: Embedded, make: Callable[[Embedded], Wakes]) -> None:
    wakes = make(server)
    heard: list[bool] = []
    waiting = threading.Thread(target=lambda: heard.append(wakes.wait(LONG_MS * 10)))
    waiting.start()
    if isinstance(wakes, RedisWakes):
        wait_until(lambda: subscribed(server), "it waits")

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
