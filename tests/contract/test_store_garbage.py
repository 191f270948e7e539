"""Whoever owns the store may put anything anywhere: it is absent, it is mended, and it wedges nobody."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrotd.store import limits
from keyrotd.store.embedded import Embedded
from keyrotd.store.port import Published
from tests.contract.stores import address, fresh_namespace, owner, running, store_on

KEYS = ("window", "beat", "lease", "fence", "reports", "offers", "requests", "history")
HUGE = b"x" * 200_000


@pytest.fixture(scope="module")
def server(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(store_exe, tmp_path_factory.mktemp("store")) as server:
        yield server


class Scene:
    def __init__(self, server: Embedded, redis: Any) -> None:
        self.namespace = fresh_namespace()
        self.redis = redis
        self.store = store_on(address(server), namespace=self.namespace)

    def key(self, name: str) -> str:
        return f"{self.namespace}:{{edge}}:{name}"

    def lead(self, *, holder: str = "a", fence_above: int = 0) -> int | None:
        return self.store.lead(holder=holder, ttl_ms=60_000, fence_above=fence_above, known_digest="").fence

    def live_a_day(self) -> None:
        """Everything that schedulers, agents and operators do; a report may be lost until a leader came by."""
        store = self.store
        store.poll(known_digest="", node="edge-1", report=b"report")
        fence = self.lead()
        assert fence is not None
        parent = store.look().digest
        assert store.publish(window=b"day", digest="day", epoch=2, fence=fence, parent=parent) == Published()
        assert store.beat(beat=b"beat", fence=fence)
        store.offer(digest="d9", window=b"nine")
        store.request(id="r1", request=b"rotate")
        store.record(event=b"event")
        poll = store.poll(known_digest="", node="edge-1", report=b"report")
        assert (poll.beat, poll.digest, poll.window, poll.report_fault) == (b"beat", "day", b"day", "")
        assert "d9" in poll.offers
        assert store.reports()["edge-1"] == b"report"
        assert store.offers(["d9"]) == {"d9": b"nine"}
        assert store.history(limit=1) == (b"event",)
        desk = store.lead(holder="a", ttl_ms=60_000, fence_above=fence, known_digest="")
        assert (desk.fence, desk.requests["r1"]) == (fence, b"rotate")
        store.settle(ids=["r1"])
        store.withdraw(digests=["d9"])
        store.forget(nodes=["edge-1"])
        store.release(holder="a")


@pytest.fixture
def scene(server: Embedded) -> Iterator[Scene]:
    with owner(server) as redis:
        scene = Scene(server, redis)
        yield scene
        scene.store.close()


GARBAGE = {
    "string": ("SET", b"\xff garbage \x00"),
    "empty": ("SET", b""),
    "huge": ("SET", HUGE),
    "number": ("SET", b"-1"),
    "list": ("RPUSH", b"garbage"),
    "set": ("SADD", b"garbage"),
    "hash": ("HSET", b"window", HUGE, b"digest", b"\xff", b"fence", b"1e9", b"holder", b""),
    "empty hash": ("HSET", b"window", b"", b"digest", b"", b"fence", b"", b"holder", b""),
    "stream": ("XADD", b"*", b"field", b"value"),
}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("name", KEYS)
def test_garbage_in_any_key_is_mended_by_going_on(scene: Scene, name: str, kind: str) -> None:
    verb, *values = GARBAGE[kind]
    scene.redis.execute_command(verb, scene.key(name), *values)

    scene.live_a_day()


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_in_every_key_at_once_is_mended_by_going_on(scene: Scene, kind: str) -> None:
    verb, *values = GARBAGE[kind]
    for name in KEYS:
        scene.redis.execute_command(verb, scene.key(name), *values)

    scene.live_a_day()


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_read_as_nothing(scene: Scene, kind: str) -> None:
    verb, *values = GARBAGE[kind]
    for name in ("window", "lease", "requests", "offers"):
        scene.redis.execute_command(verb, scene.key(name), *values)

    look = scene.store.look()

    assert (look.digest, look.window, look.leader, look.lease_ms) == ("", None, "", 0)
    assert scene.store.window() is None
    assert scene.store.offers(["digest"]).get("digest") in (None, b"\xff")


def test_a_report_that_finds_a_wrong_kind_is_lost_with_words_and_the_reading_is_good(scene: Scene) -> None:
    scene.lead()
    scene.store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    scene.redis.set(scene.key("reports"), "garbage")

    poll = scene.store.poll(known_digest="", node="edge-1", report=b"report")

    assert (poll.digest, poll.window) == ("d1", b"one")
    assert "WRONGTYPE" in poll.report_fault
    scene.lead()
    assert scene.store.poll(known_digest="", node="edge-1", report=b"report").report_fault == ""


def test_a_window_too_large_is_absent_and_the_next_publish_replaces_it(scene: Scene) -> None:
    scene.redis.hset(scene.key("window"), mapping={"window": HUGE, "digest": "d1", "fence": 1})

    assert scene.store.poll(known_digest="", node="edge-1", report=b"report").digest == ""
    assert scene.lead() == 1
    assert scene.store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="") == Published()


def test_a_lease_without_end_holds_nobody_up(scene: Scene) -> None:
    scene.redis.hset(scene.key("lease"), mapping={"holder": "squatter", "fence": 1})

    assert scene.lead() == 1


def test_a_lease_beyond_the_longest_holds_nobody_up(scene: Scene) -> None:
    scene.redis.hset(scene.key("lease"), mapping={"holder": "squatter", "fence": 1})
    scene.redis.pexpire(scene.key("lease"), limits.LEASE_MS * 10)

    assert scene.lead() == 1


@pytest.mark.parametrize("fence", ["9" * 15, "9" * 16, "9" * 40, "-5", "1e3", "0x10", "nan", " 7", str(2**53)])
def test_a_fence_out_of_reason_leads_to_one_that_works(scene: Scene, fence: str) -> None:
    scene.redis.set(scene.key("fence"), fence)
    scene.redis.hset(scene.key("window"), mapping={"window": b"old", "digest": "d0", "fence": fence})

    assert scene.lead(fence_above=41) == 42
    assert scene.lead(fence_above=42) == 42
    assert scene.store.publish(window=b"one", digest="d1", epoch=1, fence=42, parent="d0") == Published()
    assert scene.store.beat(beat=b"beat", fence=42)


def test_a_fence_of_many_digits_stays_exact(scene: Scene) -> None:
    high = 2**52 + 1

    assert scene.lead(fence_above=high) == high + 1
    assert scene.store.publish(window=b"one", digest="d1", epoch=1, fence=high + 1, parent="") == Published()
    assert scene.lead(fence_above=high + 1) == high + 1


def test_one_node_with_a_report_too_large_hides_no_other(scene: Scene) -> None:
    scene.store.report(node="edge-1", report=b"report")
    scene.redis.hset(scene.key("reports"), mapping={"rogue": HUGE, b"\xff\xfe": b"x", b"n" * 300: b"x", "empty": b""})

    assert scene.store.reports() == {"edge-1": b"report"}


@pytest.mark.parametrize("size", [0, limits.PEERS_BYTES + 1, 50 * limits.PEERS_BYTES])
def test_peers_of_an_odd_size_are_absent(scene: Scene, size: int) -> None:
    scene.redis.set(scene.key("peers"), b"x" * size)

    assert scene.store.peers() is None


def test_peers_of_a_wrong_kind_are_absent_until_they_are_named(scene: Scene) -> None:
    scene.redis.hset(scene.key("peers"), "a", "b")
    assert scene.store.peers() is None

    scene.store.name_peers(peers=b"peers")

    assert scene.store.peers() == b"peers"


def test_a_flood_of_reports_hides_no_node_that_is_known(scene: Scene) -> None:
    flood(scene, "reports", 5 * limits.REPORTS, b"x" * 600)
    nodes = [f"edge-{at}" for at in range(300)]
    scene.redis.hset(scene.key("reports"), mapping=dict.fromkeys(nodes, b"y" * 600))

    found = scene.store.reports(nodes)

    assert found.keys() >= {*nodes}
    assert len(nodes) + limits.STRANGERS * 0.9 <= len(found) <= len(nodes) + limits.STRANGERS
    scene.store.prune_reports(keep=nodes)
    assert scene.store.reports() == dict.fromkeys(nodes, b"y" * 600)


def test_a_flood_of_reports_leaves_room_for_nodes_that_nobody_knows_yet(scene: Scene) -> None:
    known = [f"edge-{at}" for at in range(limits.REPORTS)]
    scene.redis.hset(scene.key("reports"), mapping=dict.fromkeys(known, b"x"))
    scene.redis.hset(scene.key("reports"), "new", b"y")

    # Each time by one chance in five.
    assert any("new" in scene.store.reports(known) for _ in range(100))


def test_what_cannot_be_read_is_counted_and_pruned(scene: Scene) -> None:
    scene.store.report(node="edge-1", report=b"report")
    scene.store.offer(digest="d1", window=b"one")
    garbage = {b"\xff": b"x", b"": b"x", b"n" * 100_000: b"x", b"empty": b"", b"large": HUGE}
    for name in ("reports", "offers"):
        scene.redis.hset(scene.key(name), mapping=garbage)

    desk = scene.store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    assert (desk.report_count, desk.offer_count, desk.offers) == (6, 6, ("d1",))
    scene.store.prune_reports(keep=["edge-1", "empty", "large"])
    scene.store.prune_offers(keep=["d1", "empty", "large"])

    assert scene.redis.hgetall(scene.key("reports")) == {b"edge-1": b"report"}
    assert scene.redis.hgetall(scene.key("offers")) == {b"d1": b"one"}


def test_a_flood_of_requests_is_cut_down_by_the_next_leading(scene: Scene) -> None:
    flood(scene, "requests", 10_000, b"x")
    scene.redis.hset(scene.key("requests"), mapping={b"\xff": b"x", b"large": HUGE})

    desk = scene.store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")

    assert limits.REQUESTS - 2 <= len(desk.requests) <= limits.REQUESTS
    assert {name.decode() for name in scene.redis.hkeys(scene.key("requests"))} == desk.requests.keys()


def test_names_that_take_too_long_to_copy_are_neither_read_nor_in_the_way(scene: Scene) -> None:
    scene.store.report(node="edge-1", report=b"report")
    scene.store.offer(digest="d1", window=b"one")
    scene.redis.hset(scene.key("offers"), b"n" * (limits.OFFERS_HELD_BYTES + 1), b"x")
    scene.redis.hset(scene.key("requests"), b"n" * (limits.REQUESTS_HELD_BYTES + 1), b"x")
    scene.redis.hset(scene.key("reports"), b"n" * (limits.REPORTS_HELD_BYTES + 1), b"x")

    scene.redis.config_resetstat()
    desk = scene.store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")
    found = scene.store.reports(["edge-1"])

    assert "cmdstat_hrandfield" not in scene.redis.info("commandstats")
    assert (desk.offers, desk.offer_count, desk.report_count, desk.requests) == ((), 2, 2, {})
    assert (found, scene.redis.exists(scene.key("requests"))) == ({"edge-1": b"report"}, 0)
    assert scene.store.offers(["d1"]) == {"d1": b"one"}
    scene.store.prune_offers(keep=["d1"])
    scene.store.prune_reports(keep=["edge-1"])
    assert scene.lead() == 1
    assert scene.store.reports() == {"edge-1": b"report"}


def test_an_offer_with_a_name_of_megabytes_costs_no_poll(scene: Scene) -> None:
    scene.lead()
    scene.store.publish(window=b"one", digest="d1", epoch=1, fence=1, parent="")
    scene.redis.hset(scene.key("offers"), b"n" * 9_000_000, b"x")

    scene.redis.config_resetstat()
    poll = scene.store.poll(known_digest="", node="edge-1", report=b"report")

    assert (poll.digest, poll.window, poll.offers) == ("d1", b"one", ())
    assert "cmdstat_hkeys" not in scene.redis.info("commandstats")


def test_whoever_only_stands_by_cuts_nothing_down(scene: Scene) -> None:
    scene.lead(holder="b")
    flood(scene, "requests", 1_000, b"x")

    scene.lead(holder="a")

    assert scene.redis.hlen(scene.key("requests")) == 1_000


def flood(scene: Scene, name: str, count: int, value: bytes) -> None:
    for begin in range(0, count, 10_000):
        mapping = {f"rogue-{at}": value for at in range(begin, min(begin + 10_000, count))}
        scene.redis.hset(scene.key(name), mapping=mapping)


def test_twenty_thousand_reports_are_read(scene: Scene) -> None:
    scene.redis.hset(scene.key("reports"), mapping={f"n{at}": b"x" * 600 for at in range(limits.REPORTS)})

    assert len(scene.store.reports()) == limits.REPORTS


def test_a_thousand_rogue_offers_hide_no_honest_one(scene: Scene) -> None:
    flood(scene, "offers", 1_000, b"x")
    scene.store.offer(digest="honest", window=b"window")
    assert scene.store.poll(known_digest="", node="edge-1", report=b"report").offers == ()

    assert scene.store.offers(["honest"]) == {"honest": b"window"}
    scene.store.prune_offers(keep=["honest"])

    assert scene.store.poll(known_digest="", node="edge-1", report=b"report").offers == ("honest",)


def test_large_offers_leave_room_for_small_ones_in_one_reading(scene: Scene) -> None:
    large = {f"d{at:02}": HUGE[: limits.WINDOW_BYTES] for at in range(limits.OFFERS - 1)}
    scene.redis.hset(scene.key("offers"), mapping={**large, "honest": b"window"})

    found = scene.store.offers([*large, "honest"])

    assert found["honest"] == b"window"
    assert sum(map(len, found.values())) <= limits.OFFERS_BYTES < sum(map(len, large.values()))


def test_offers_and_requests_too_large_are_not_read(scene: Scene) -> None:
    scene.redis.hset(scene.key("offers"), mapping={"d1": HUGE, "d2": b"two"})
    scene.redis.hset(scene.key("requests"), mapping={"r1": HUGE, "r2": b"rotate"})

    desk = scene.store.lead(holder="a", ttl_ms=60_000, fence_above=0, known_digest="")

    assert desk.requests == {"r2": b"rotate"}
    assert scene.store.offers(["d1", "d2"]) == {"d2": b"two"}
