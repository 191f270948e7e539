"""Each role's user, made by the lines of `keyrotd acl`, can do its own work in the store and nobody else's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import acl
from keyrotd.store.addresses import Address
from keyrotd.store.embedded import Embedded
from keyrotd.store.port import Published
from keyrotd.store.redis import RedisStore
from keyrotd.store.wakes import RedisWakes
from tests.contract.stores import owner, running, store_on

PASSWORD = "a password for tests"


@pytest.fixture(scope="module")
def server(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(store_exe, tmp_path_factory.mktemp("store")) as server, owner(server) as redis:
        for line in acl.lines("keyrotd", iter(["edge", "core"])):
            redis.execute_command(*line.split(" "))
        for role in ("scheduler", "agent", "operator"):
            redis.execute_command("ACL", "SETUSER", f"keyrotd-{role}", f">{PASSWORD}")
        yield server


@pytest.fixture(autouse=True)
def empty(server: Embedded) -> None:
    with owner(server) as redis:
        redis.flushall()
        redis.script_flush()


def user(server: Embedded, role: str) -> Address:
    return Address(path=str(server.socket), username=f"keyrotd-{role}", password=PASSWORD)


@pytest.fixture
def scheduler(server: Embedded) -> Iterator[RedisStore]:
    store = store_on(user(server, "scheduler"))
    yield store
    store.close()


@pytest.fixture
def agent(server: Embedded) -> Iterator[RedisStore]:
    store = store_on(user(server, "agent"))
    yield store
    store.close()


@pytest.fixture
def operator(server: Embedded) -> Iterator[RedisStore]:
    store = store_on(user(server, "operator"))
    yield store
    store.close()


def publish(scheduler: RedisStore) -> None:
    desk = scheduler.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    assert desk.fence is not None
    outcome = scheduler.publish(window=b"one", digest="d1", epoch=1, fence=desk.fence, parent="")
    assert outcome == Published()
    assert scheduler.beat(beat=b"beat", fence=desk.fence)


def test_a_scheduler_does_all_that_a_scheduler_does(scheduler: RedisStore) -> None:
    publish(scheduler)
    scheduler.offer(digest="d2", window=b"two")
    scheduler.request(id="r1", request=b"rotate")
    scheduler.report(node="edge-1", report=b"report")

    assert scheduler.reports() == {"edge-1": b"report"}
    assert scheduler.offers(["d2"]) == {"d2": b"two"}
    scheduler.name_peers(peers=b"peers")
    scheduler.record(event=b"event")
    assert scheduler.history(limit=1) == (b"event",)
    scheduler.withdraw(digests=["d2"])
    scheduler.settle(ids=["r1"])
    scheduler.forget(nodes=["edge-1"])
    scheduler.prune_reports(keep=[])
    scheduler.prune_offers(keep=[])
    assert scheduler.look().leader == "a"
    scheduler.release(holder="a")
    scheduler.wake()


def test_a_scheduler_may_wait_for_replicas(server: Embedded) -> None:
    where = user(server, "scheduler")
    store = RedisStore(where, ring="edge", namespace="keyrotd", timeout_ms=200, wait_replicas=1)

    desk = store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")

    assert (desk.fence, desk.replicas) == (1, 0)
    store.close()


def test_an_agent_polls_reports_and_offers(scheduler: RedisStore, agent: RedisStore) -> None:
    publish(scheduler)

    scheduler.name_peers(peers=b"peers")

    poll = agent.poll(known_digest="", node="edge-1", report=b"report")
    for number in range(70):
        agent.offer(digest=f"d{number}", window=b"window")
    agent.report(node="edge-1", report=b"again")

    assert (poll.digest, poll.window, poll.beat, poll.report_fault) == ("d1", b"one", b"beat", "")
    assert scheduler.reports() == {"edge-1": b"again"}
    assert agent.offers(["d69"]) == {"d69": b"window"}
    assert agent.peers() == b"peers"


BEYOND_AGENTS: dict[str, Callable[[RedisStore], object]] = {
    "lead": lambda store: store.lead(holder="rogue", ttl_ms=5_000, fence_above=0, known_digest=""),
    "release": lambda store: store.release(holder="a"),
    "publish": lambda store: store.publish(window=b"w", digest="d", epoch=2, fence=1, parent="d1"),
    "beat": lambda store: store.beat(beat=b"late", fence=1),
    "request": lambda store: store.request(id="r", request=b"rotate"),
    "settle": lambda store: store.settle(ids=["r"]),
    "record": lambda store: store.record(event=b"lie"),
    "history": lambda store: store.history(limit=1),
    "reports": lambda store: store.reports(),
    "look": lambda store: store.look(),
    "wake": lambda store: store.wake(),
    "forget": lambda store: store.forget(nodes=["edge-2"]),
    "name_peers": lambda store: store.name_peers(peers=b"rogue"),
    "withdraw": lambda store: store.withdraw(digests=["d1"]),
    "prune_reports": lambda store: store.prune_reports(keep=[]),
    "prune_offers": lambda store: store.prune_offers(keep=[]),
}


@pytest.mark.parametrize("operation", BEYOND_AGENTS)
def test_an_agent_may_not(scheduler: RedisStore, agent: RedisStore, operation: str) -> None:
    publish(scheduler)
    before = scheduler.look()

    with pytest.raises(StoreUnavailable) as refusal:
        BEYOND_AGENTS[operation](agent)

    assert refusal.value.hint == "`keyrotd acl` prints the rights that each role needs"
    after = scheduler.look()
    assert (after.digest, after.beat, after.leader, after.fence) == (
        before.digest,
        before.beat,
        before.leader,
        before.fence,
    )
    assert scheduler.history(limit=1) == ()


def test_an_agent_may_not_go_around_the_scripts(server: Embedded, scheduler: RedisStore) -> None:
    publish(scheduler)
    from redis import Redis
    from redis.exceptions import NoPermissionError, ResponseError

    key = "keyrotd:{edge}:"
    tries: list[tuple[str | int, ...]] = [
        ("SET", f"{key}beat", "x"),
        ("HSET", f"{key}window", "window", "x"),
        ("HSET", f"{key}lease", "holder", "rogue"),
        ("HDEL", f"{key}window", "window"),
        ("DEL", f"{key}window"),
        ("HGET", f"{key}reports", "edge-2"),
        ("HSET", "keyrotd:{other}:reports", "edge-1", "x"),
        ("PUBLISH", f"{key}wake", ""),
        ("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, f"{key}beat"),
        ("EVAL_RO", "return redis.call('SET', KEYS[1], 'x')", 1, f"{key}beat"),
        ("HGETALL", f"{key}requests"),
        ("HKEYS", f"{key}reports"),
        ("HDEL", f"{key}reports", "edge-2"),
        ("HDEL", f"{key}offers", "d1"),
        ("HSET", f"{key}requests", "r", "revoke"),
        ("SELECT", 1),  # where nobody would ever look for what it puts there
        ("HRANDFIELD", f"{key}offers", -1_000_000_000),  # as long an answer as anybody likes
        ("FLUSHALL",),
        ("CONFIG", "GET", "*"),
        ("SCRIPT", "FLUSH"),
        ("ACL", "LIST"),
        ("KEYS", "*"),
    ]
    with Redis(unix_socket_path=str(server.socket), username="keyrotd-agent", password=PASSWORD) as rogue:
        for command in tries:
            with pytest.raises((NoPermissionError, ResponseError)):
                rogue.execute_command(*command)

    assert scheduler.look().window == b"one"


def test_an_agent_may_run_no_script_at_all(server: Embedded, scheduler: RedisStore) -> None:
    publish(scheduler)
    from redis import Redis
    from redis.exceptions import NoPermissionError

    endless = "while true do end"
    with owner(server) as redis:
        loaded = redis.script_load(endless)
    tries: list[tuple[str | int, ...]] = [
        *((verb, endless, 0) for verb in ("EVAL", "EVAL_RO")),
        *((verb, loaded, 0) for verb in ("EVALSHA", "EVALSHA_RO")),
        *((verb, "endless", 0) for verb in ("FCALL", "FCALL_RO")),
        ("SCRIPT", "LOAD", endless),
        ("FUNCTION", "LIST"),
    ]
    with Redis(unix_socket_path=str(server.socket), username="keyrotd-agent", password=PASSWORD) as rogue:
        for command in tries:
            with pytest.raises(NoPermissionError):
                rogue.execute_command(*command)


def test_an_agent_needs_nobody_to_bring_scripts(server: Embedded, agent: RedisStore) -> None:
    with owner(server) as redis:
        redis.script_flush()

    assert agent.poll(known_digest="", node="edge-1", report=b"report").report_fault == ""
    assert agent.offers(["d1"]) == {}


def test_a_user_may_turn_to_the_database_of_its_store_and_to_no_other(server: Embedded) -> None:
    with owner(server) as redis:
        (line,) = (line for line in acl.lines("keyrotd", ["edge"], db=3) if "keyrotd-agent" in line)
        redis.execute_command(*line.replace("keyrotd-agent", "third").split(" "))
        redis.execute_command("ACL", "SETUSER", "third", f">{PASSWORD}")
    third = Address(path=str(server.socket), db=3, username="third", password=PASSWORD)

    store, elsewhere = store_on(third), store_on(replace(third, db=4))

    assert store.poll(known_digest="", node="edge-1", report=b"report").report_fault == ""
    with pytest.raises(StoreUnavailable):
        elsewhere.poll(known_digest="", node="edge-1", report=b"report")
    store.close()


def test_an_operator_looks_asks_and_wakes(scheduler: RedisStore, operator: RedisStore) -> None:
    publish(scheduler)
    scheduler.report(node="edge-1", report=b"report")
    scheduler.record(event=b"event")

    operator.request(id="r1", request=b"rotate")
    operator.wake()

    assert (operator.look().window, operator.window()) == (b"one", ("d1", b"one"))
    assert (operator.reports(), operator.history(limit=1)) == ({"edge-1": b"report"}, (b"event",))
    desk = scheduler.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    assert desk.requests == {"r1": b"rotate"}


@pytest.mark.parametrize("operation", ["lead", "release", "publish", "beat", "record"])
def test_an_operator_may_not(scheduler: RedisStore, operator: RedisStore, operation: str) -> None:
    publish(scheduler)

    with pytest.raises(StoreUnavailable):
        BEYOND_AGENTS[operation](operator)

    assert scheduler.look().leader == "a"


@pytest.mark.parametrize("role", ["scheduler", "agent"])
def test_every_daemon_may_listen(server: Embedded, scheduler: RedisStore, role: str) -> None:
    stores = [store_on(user(server, role), ring=ring) for ring in ("edge", "core")]
    wakes = RedisWakes(stores, schedules=role == "scheduler")
    for store in stores:
        store.report(node="edge-1", report=b"report")
    assert wakes.fault == ""

    if role == "scheduler":
        scheduler.request(id="r1", request=b"rotate")
    else:
        scheduler.wake()

    assert wakes.wait(5_000)
    wakes.close()
    for store in stores:
        store.close()


def test_nobody_listens_to_a_ring_of_others(server: Embedded) -> None:
    store = store_on(user(server, "agent"), ring="other")
    wakes = RedisWakes([store], schedules=False)

    with pytest.raises(StoreUnavailable):
        store.report(node="edge-1", report=b"report")

    assert "wait: " in wakes.fault
    wakes.close()
    store.close()


def test_lines_may_be_loaded_again_and_keep_the_passwords(server: Embedded) -> None:
    with owner(server) as redis:
        for line in acl.lines("keyrotd", ["edge", "core"]):
            redis.execute_command(*line.split(" "))

    store = store_on(user(server, "agent"))
    assert store.poll(known_digest="", node="edge-1", report=b"report").report_fault == ""
    store.close()


def test_lines_carry_no_password_and_take_names_literally() -> None:
    lines = acl.lines("key*rotd", ["ed?ge"])

    assert len(lines) == 3
    for line in lines:
        assert line.startswith("ACL SETUSER keyrotd-")
        assert not any(word.startswith((">", "#", "nopass", "allkeys", "allchannels")) for word in line.split(" "))
        assert "key\\*rotd:{ed\\?ge}" in line
