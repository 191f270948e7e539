"""One bound on each question, whatever the server does; and the same Store value goes on when it is over."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store.addresses import Address
from keyrotd.store.embedded import Embedded
from keyrotd.store.port import Desk, Published
from keyrotd.store.redis import RedisStore
from keyrotd.store.wakes import RedisWakes
from keyrotd.testing.children import wait_until
from keyrotd.testing.live import free_port
from tests.contract.stores import (
    address,
    answering,
    dripping,
    fresh_namespace,
    owner,
    relayed,
    running,
    store_on,
)

TIMEOUT_MS = 400
#: The machine that runs the tests may be busy; the point is seconds, not minutes.
GENEROUS_S = 3.0

QUESTIONS: dict[str, Callable[[RedisStore], object]] = {
    "lead": lambda store: store.lead(holder="a", ttl_ms=5_000, fence_above=0, known_digest=""),
    "publish": lambda store: store.publish(window=b"w", digest="d", epoch=1, fence=1, parent=""),
    "beat": lambda store: store.beat(beat=b"b", fence=1),
    "release": lambda store: store.release(holder="a"),
    "poll": lambda store: store.poll(known_digest="", node="n", report=b"r"),
    "report": lambda store: store.report(node="n", report=b"r"),
    "reports": lambda store: store.reports(),
    "forget": lambda store: store.forget(nodes=["n"]),
    "prune_reports": lambda store: store.prune_reports(keep=[]),
    "prune_offers": lambda store: store.prune_offers(keep=[]),
    "offer": lambda store: store.offer(digest="d", window=b"w"),
    "withdraw": lambda store: store.withdraw(digests=["d"]),
    "offers": lambda store: store.offers(["d"]),
    "name_peers": lambda store: store.name_peers(peers=b"p"),
    "peers": lambda store: store.peers(),
    "request": lambda store: store.request(id="r", request=b"r"),
    "settle": lambda store: store.settle(ids=["r"]),
    "record": lambda store: store.record(event=b"e"),
    "history": lambda store: store.history(limit=1),
    "window": lambda store: store.window(),
    "look": lambda store: store.look(),
    "wake": lambda store: store.wake(),
}


@pytest.fixture(scope="module")
def server(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(store_exe, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture
def store(server: Embedded) -> Iterator[RedisStore]:
    store = store_on(address(server), namespace=fresh_namespace(), timeout_ms=TIMEOUT_MS)
    yield store
    store.close()


def refusal(store: RedisStore, operation: str) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as raised:
        QUESTIONS[operation](store)
    assert raised.value.operation == operation
    return raised.value


def test_a_stopped_server_is_given_up_in_time_and_used_again_when_it_goes_on(
    server: Embedded, store: RedisStore
) -> None:
    store.wake()

    os.kill(server.pid, signal.SIGSTOP)
    try:
        for known in (True, False):
            began_at = time.monotonic()
            error = refusal(store, "poll")
            assert TIMEOUT_MS / 1000 * 0.4 <= time.monotonic() - began_at < GENEROUS_S, known
            assert f"no answer within {TIMEOUT_MS} ms" in str(error)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    assert store.poll(known_digest="", node="n", report=b"r").digest == ""


@pytest.mark.parametrize("operation", QUESTIONS)
def test_every_question_names_itself_when_nobody_answers(operation: str, tmp_path: Path) -> None:
    store = store_on(Address(path=str(tmp_path / "nobody.sock")), timeout_ms=TIMEOUT_MS)

    error = refusal(store, operation)

    assert str(tmp_path) in str(error)


def test_a_refused_port_is_given_up_at_once() -> None:
    store = store_on(Address(host="127.0.0.1", port=free_port()), timeout_ms=60_000)
    began_at = time.monotonic()

    refusal(store, "lead")

    assert time.monotonic() - began_at < GENEROUS_S


def test_a_server_that_restarts_costs_no_more_than_the_time_it_is_away(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as first:
        store = store_on(address(first), timeout_ms=TIMEOUT_MS)
        store.report(node="n", report=b"r")
    refusal(store, "reports")

    with running(store_exe, tmp_path):
        assert store.reports() == {}
        store.report(node="n", report=b"r")
        assert store.reports() == {"n": b"r"}
        store.close()


def test_a_server_that_restarted_unseen_costs_nothing(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as first:
        store = store_on(address(first))
        store.poll(known_digest="", node="n", report=b"r")

    with running(store_exe, tmp_path):
        assert store.poll(known_digest="", node="n", report=b"r").digest == ""
        store.close()


def test_scripts_that_the_server_forgot_are_brought_again(server: Embedded, store: RedisStore) -> None:
    for question in QUESTIONS.values():
        with owner(server) as redis:
            redis.script_flush()
        question(store)


def test_an_unchanged_poll_is_one_round_trip_and_at_most_400_bytes(server: Embedded) -> None:
    with relayed(server) as relay:
        store = store_on(relay.address, ring="r" * 20, namespace=fresh_namespace())
        digest = "d" * 64
        desk = store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
        assert desk.fence is not None
        store.publish(window=b"w" * 8_000, digest=digest, epoch=1, fence=desk.fence, parent="")
        store.beat(beat=b"b" * 300, fence=desk.fence)
        assert store.poll(known_digest="", node="edge-1", report=b"r" * 600).window == b"w" * 8_000
        received, turns = relay.received, relay.turns

        assert store.poll(known_digest=digest, node="edge-1", report=b"r" * 600).window is None

        assert relay.turns - turns == 1
        assert relay.received - received <= 400
        store.close()


def test_a_poll_after_a_hint_reads_the_window_in_its_one_round_trip(server: Embedded) -> None:
    with relayed(server) as relay:
        store = store_on(relay.address, namespace=fresh_namespace())
        wakes = RedisWakes([store], schedules=False)
        desk = store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
        assert desk.fence is not None
        store.publish(window=b"w", digest="d1", epoch=1, fence=desk.fence, parent="")
        assert wakes.wait(5_000)
        turns = relay.turns

        polls = [store.poll(known_digest=known, node="edge-1", report=b"r") for known in ("d0", "d1")]

        assert [(poll.digest, poll.window) for poll in polls] == [("d1", b"w"), ("d1", None)]
        assert relay.turns - turns == len(polls)
        wakes.close()
        store.close()


def test_a_long_name_that_comes_between_two_questions_of_a_poll_costs_only_the_offers(server: Embedded) -> None:
    with relayed(server) as relay, owner(server) as rogue:
        namespace = fresh_namespace()
        store = store_on(relay.address, namespace=namespace)
        lead(store)
        store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
        store.beat(beat=b"beat", fence=1)
        store.offer(digest="d0", window=b"zero")
        last = relay.turns + 2

        def plant(turn: int) -> None:
            if turn == last:
                rogue.hset(f"{namespace}:{{edge}}:offers", b"n" * 9_000_000, b"x")

        relay.before = plant
        poll = store.poll(known_digest="", node="n", report=b"r")

        assert (poll.beat, poll.digest, poll.window) == (b"beat", "d1", b"one")
        assert (poll.offers, poll.offers_unread, relay.turns) == ((), True, last + 1)
        again = store.poll(known_digest="d1", node="n", report=b"r")
        assert (again.digest, again.offers, again.offers_unread) == ("d1", (), False)
        store.close()


@pytest.mark.parametrize("operation", ["lead", "publish", "beat", "poll", "look", "reports", "record", "request"])
def test_what_promises_one_round_trip_takes_one(server: Embedded, operation: str) -> None:
    with relayed(server) as relay:
        store = store_on(relay.address, namespace=fresh_namespace())
        QUESTIONS[operation](store)
        turns = relay.turns

        QUESTIONS[operation](store)

        assert relay.turns - turns == 1
        store.close()


def test_replicas_are_waited_for_on_the_connection_of_the_lease(store_exe: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    with running(store_exe, first) as primary, running(store_exe, second) as replica, owner(primary) as redis:
        asking = RedisStore(address(primary), ring="edge", namespace="keyrotd", timeout_ms=2_000, wait_replicas=1)
        indifferent, follower = store_on(address(primary)), store_on(address(replica))
        assert lead(asking).replicas == 0
        # A port for the two servers only; the clients stay on sockets.
        redis.config_set("port", port := free_port())
        redis.config_set("repl-diskless-sync-delay", 0)
        with owner(replica) as other:
            other.replicaof("127.0.0.1", port)
        # While a first copy is under way WAIT counts the replica already, for writes from before it came.
        wait_until(lambda: follower.look().leader == "a", "the replica shows the lease")

        wait_until(lambda: lead(asking).replicas == 1, "the replica acknowledges the lease")

        assert (lead(indifferent).replicas, lead(indifferent).fence) == (0, 1)
        assert refusal(follower, "lead").hint == "store.url names a replica; name the primary"
        for store in (asking, indifferent, follower):
            store.close()


def lead(store: RedisStore) -> Desk:
    return store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")


HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"
ILL_WILL = {
    "silence": b"\r\n",
    "junk": b"\x00\xff" * 1_000 + b"\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "deep": b"*1\r\n" * 100_000,
    "long": b"$99999999999\r\n" + b"x" * 100_000,
    "negative": b"$-7\r\n*-3\r\n",
    "empty push": HELLO + b"+OK\r\n>0\r\n",
    "beyond counting": HELLO + b"+OK\r\n$" + b"9" * 40 + b"\r\n",
    "many": b"*999999999\r\n",
    "words": b":many\r\n",
    "unhashable": b"%1\r\n*1\r\n:1\r\n:2\r\n",
    "ok for all": b"+OK\r\n",
    "hello for all": HELLO,
    "error": b"-ERR \x1b[31mpassword\x00\n\r\n",
    "numbers": HELLO + b"+OK\r\n" + b":1\r\n" * 10,
    "lists": HELLO + b"+OK\r\n" + b"*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n" * 3,
    "pushes": b">1\r\n+x\r\n" * 1_000,
    "torrent": HELLO + b"+OK\r\n$90000000\r\n" + b"x" * 9_000_000,
}


@pytest.mark.parametrize("reply", ILL_WILL)
def test_no_answer_of_any_server_is_worse_than_no_answer(reply: str) -> None:
    with answering(ILL_WILL[reply]) as where:
        store = store_on(where, timeout_ms=100)
        for operation in ("poll", "lead", "reports"):
            began_at = time.monotonic()
            assert str(refusal(store, operation)).isprintable()
            assert time.monotonic() - began_at < GENEROUS_S
        store.close()


def test_a_server_that_drips_its_answer_is_late() -> None:
    with dripping() as where:
        store = store_on(where, timeout_ms=TIMEOUT_MS)
        began_at = time.monotonic()

        refusal(store, "poll")

        assert time.monotonic() - began_at < GENEROUS_S


def test_a_full_store_can_still_be_read(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as server, owner(server) as redis:
        store = store_on(address(server))
        lead(store)
        store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
        redis.config_set("maxmemory", 1)

        poll = store.poll(known_digest="", node="n", report=b"r")

        assert (poll.digest, poll.window) == ("d1", b"one")
        assert "memory" in poll.report_fault
        assert "maxmemory" in str(refusal(store, "report").hint)
        store.close()


def test_a_full_store_can_still_be_led(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as server, owner(server) as redis:
        store = store_on(address(server))
        redis.config_set("maxmemory", 1)

        for holder, fence, parent in (("a", 1, ""), ("b", 2, "d1")):
            assert store.lead(holder=holder, ttl_ms=60_000, fence_above=0, known_digest="").fence == fence
            outcome = store.publish(window=b"w", digest=f"d{fence}", epoch=fence, fence=fence, parent=parent)
            assert outcome == Published()
            assert store.beat(beat=b"beat", fence=fence)
            store.record(event=b"event %d" % fence)
            store.release(holder=holder)

        assert store.history(limit=2) == (b"event 2", b"event 1")
        store.close()


def test_a_connection_that_ends_while_waiting_for_replicas_leaves_the_lease(server: Embedded) -> None:
    with relayed(server) as relay, owner(server) as redis:
        namespace = fresh_namespace()
        store = RedisStore(relay.address, ring="edge", namespace=namespace, timeout_ms=2_000, wait_replicas=1)
        results: list[Desk] = []
        leading = threading.Thread(target=lambda: results.append(lead(store)))
        leading.start()
        wait_until(lambda: "wait" in busy(redis), "it waits")

        redis.client_kill_filter(_type="normal", skipme=True)
        leading.join()

        assert [(desk.fence, desk.replicas) for desk in results] == [(1, 0)]
        assert lead(store).fence == 1
        store.close()


def busy(redis: Any) -> list[str]:
    return [client["cmd"] for client in redis.client_list()]


def test_a_wrong_password_names_the_remedy_and_not_the_password(server: Embedded) -> None:
    where = Address(path=str(server.socket), username="keyrotd-nobody", password="correct horse")
    error = refusal(store_on(where), "poll")

    assert error.hint is not None
    assert "password" in error.hint
    assert "horse" not in f"{error} {error.hint} {error!r} {error.__cause__!r} {where!r} {where}"


def test_a_missing_password_names_the_remedy(store_exe: Path, tmp_path: Path) -> None:
    with running(store_exe, tmp_path) as server, owner(server) as redis:
        redis.config_set("requirepass", "correct horse")
        password = tmp_path / "password"
        password.write_text("wrong\n")

        assert "password_file" in str(refusal(store_on(address(server)), "lead").hint)
        where = Address(path=str(server.socket), password_file=str(password))
        store = store_on(where)
        refusal(store, "lead")
        password.write_text("correct horse\n")

        assert store.lead(holder="a", ttl_ms=1_000, fence_above=0, known_digest="").fence == 1
        store.close()
