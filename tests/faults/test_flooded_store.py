"""Whoever has the user of one agent may write reports and offers without end: it hides no node, and it goes away."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from keyrotd.core.errors import StoreUnavailable
from keyrotd.core.messages import Goal, Request
from keyrotd.seal.keyfiles import SigningKey
from keyrotd.seal.messages import sign_request
from keyrotd.seal.window import seal_window
from keyrotd.store import limits
from keyrotd.store.redis import RedisStore
from tests.faults.rig import POLICY, RING, Rig

JUNK = b"x" * 200
#: More than any fleet has, and that at every tick.
FLOOD = limits.REPORTS + 2_000


@contextmanager
def flooding(rig: Rig, flood: Callable[[Any], None]) -> Iterator[None]:
    """Let the rogue write just before each tick."""
    ticked = rig.tick
    with rig.owner() as rogue:

        def tick() -> None:
            flood(rogue)
            ticked()

        rig.tick = tick  # type: ignore[method-assign] # whoever floods is no part of the rig
        yield
        rig.tick = ticked  # type: ignore[method-assign] # likewise


def many_reports(rig: Rig) -> Callable[[Any], None]:
    pairs = [word for at in range(FLOOD) for word in (f"rogue-{at}", JUNK)]
    packed: list[Any] = []

    def flood(rogue: Any) -> None:
        line = rogue.connection_pool.get_connection()
        packed.extend([] if packed else line.pack_command("HSET", rig.key("reports"), *pairs))
        line.send_packed_command(packed)
        line.read_response()
        rogue.connection_pool.release(line)

    return flood


def large_reports(rig: Rig) -> Callable[[Any], None]:
    mapping = {
        f"rogue-{at}": b"x" * limits.REPORT_BYTES for at in range(2 * limits.REPORTS_BYTES // limits.REPORT_BYTES)
    }
    return lambda rogue: rogue.hset(rig.key("reports"), mapping=mapping)


def garbage(rig: Rig) -> Callable[[Any], None]:
    mapping = {b"\xff%d" % at: b"x" * 10_000 for at in range(500)} | {f"rogue-{at}": b"" for at in range(500)}
    return lambda rogue: rogue.hset(rig.key("reports"), mapping=mapping)


@pytest.mark.parametrize("flood", [many_reports, large_reports, garbage])
def test_a_flood_of_reports_holds_no_rotation(rig: Rig, flood: Callable[[Rig], Callable[[Any], None]]) -> None:
    window = rig.start(nodes=2)
    (desk,) = rig.desks

    with flooding(rig, flood(rig)):
        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        rotated = rig.settle(above=window.epoch)
        rig.pass_time(2 * POLICY.poll_interval_ms)

    events = [event["reason"] for event in desk.telemetry.events("window.published")]
    assert (rotated.current.name, len(events)) == (window.next.name, 1)
    assert "not waited for" not in events[0]
    rig.pass_time(POLICY.node_ttl_ms)
    assert desk.telemetry.standing() == []
    with rig.owner() as owner:
        assert set(owner.hkeys(rig.key("reports"))) == {b"node-1", b"node-2"}


def test_a_new_leader_finds_the_nodes_in_a_flood(rig: Rig) -> None:
    window = rig.start(nodes=2)
    rig.desks[0].away = True
    rig.end_lease()
    second = rig.add_desk()

    with flooding(rig, many_reports(rig)):
        rig.pass_until(
            lambda: second.scheduler._reign is not None and len(second.scheduler._reign.nodes) == 2,
            "the new leader knows both nodes",
        )
    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    rotated = rig.settle(above=window.epoch)

    assert rotated.current.name == window.next.name


class Narrow(RedisStore):
    """A way to the store that carries few bytes in time."""

    carries = limits.REPORTS_BYTES

    def reports(self, known: Iterable[str] = (), *, most_bytes: int = limits.REPORTS_BYTES) -> dict[str, bytes]:
        found = super().reports(known, most_bytes=most_bytes)
        if sum(map(len, found.values())) > self.carries:
            raise StoreUnavailable("store: reports: no answer in time", operation="reports")
        return found


@pytest.mark.parametrize("carries", [limits.REPORTS_BYTES // 3, 0])
def test_reports_that_cannot_be_read_in_time_end_with_the_known_nodes_alone(rig: Rig, carries: int) -> None:
    store = Narrow(rig.address, ring=RING, namespace=rig.namespace, timeout_ms=5_000)
    rig.add_desk(store=store)
    rig.add_node()
    rig.begin()
    rig.pass_time(2 * POLICY.poll_interval_ms)
    with rig.owner() as rogue:
        rogue.hset(rig.key("reports"), mapping={f"rogue-{at}": b"x" * 830 for at in range(limits.REPORTS - 10)})
    store.carries = carries
    with rig.owner() as owner:
        rig.pass_until(lambda: owner.hkeys(rig.key("reports")) == [b"node-1"], "the junk is gone")
    store.carries = limits.REPORTS_BYTES
    store.close()


@pytest.mark.parametrize("where", ["offers", "reports", "requests"])
def test_names_of_many_megabytes_stop_no_leader(rig: Rig, where: str) -> None:
    rig.start(nodes=1)
    (desk,) = rig.desks
    with rig.owner() as rogue:
        for at in range(20):
            rogue.hset(rig.key(where), b"%d" % at + b"n" * 10_000_000, b"x")

    rig.pass_time(POLICY.node_ttl_ms)

    assert desk.telemetry.value("store_errors_total", operation="lead") == 0
    assert desk.telemetry.value("store_errors_total", operation="reports") == 0
    assert desk.telemetry.standing() == []
    with rig.owner() as owner:
        assert owner.hlen(rig.key(where)) == (where == "reports")


def offers_of(rig: Rig, value: bytes) -> Callable[[Any], None]:
    mapping = {f"{at:064x}": value for at in range(5_000)}
    return lambda rogue: rogue.hset(rig.key("offers"), mapping=mapping)


def lose_last_window(rig: Rig) -> tuple[Any, Any]:
    """Make the store forget the newest window, which only nodes still have; the leader is another one."""
    older = rig.start()
    old = rig.peek.window()
    assert old is not None
    rig.now_at = rig.policy.schedule.next_due(older.published_at)
    newer = rig.settle(above=older.epoch)
    rig.pass_time(2 * POLICY.poll_interval_ms)
    rig.desks[0].away = True
    with rig.owner() as owner:
        fields = {"window": old[1], "digest": older.digest, "epoch": older.epoch, "fence": older.fence}
        owner.hset(rig.key("window"), mapping=fields)
    rig.end_lease()
    rig.add_desk()
    return older, newer


def test_a_flood_of_offers_hides_no_window_that_a_node_holds(rig: Rig) -> None:
    _, newer = lose_last_window(rig)

    with flooding(rig, offers_of(rig, JUNK)):
        mended = rig.settle(above=newer.epoch)

    assert (mended.current, mended.next) == (newer.current, newer.next)
    rig.pass_time(2 * POLICY.poll_interval_ms)
    with rig.owner() as owner:
        assert owner.hlen(rig.key("offers")) == 0


@pytest.mark.parametrize("what", ["junk", "an older window", "an unknown signer"])
def test_whatever_stands_in_the_place_of_an_offer_makes_way_for_it(rig: Rig, what: str) -> None:
    older, newer = lose_last_window(rig)
    stranger = SigningKey(os.urandom(32))
    planted = {
        "junk": JUNK,
        "an older window": seal_window(older, keks=rig.keks, signer=rig.signer, rand=os.urandom),
        "an unknown signer": seal_window(newer, keks=rig.keks, signer=stranger, rand=os.urandom),
    }[what]
    turns = iter(range(3))

    def plant(rogue: Any) -> None:
        if next(turns, None) is not None:
            rogue.hset(rig.key("offers"), newer.digest, planted)

    with flooding(rig, plant):
        mended = rig.settle(above=newer.epoch)

    assert (mended.current, mended.next) == (newer.current, newer.next)
    assert older.digest in mended.ancestors


def test_a_flood_of_requests_stops_no_rotation_and_the_next_one_is_heard(rig: Rig) -> None:
    window = rig.start()

    def flood(rogue: Any) -> None:
        rogue.hset(rig.key("requests"), mapping={f"rogue-{at}": JUNK for at in range(5_000)})

    with flooding(rig, flood):
        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        rotated = rig.settle(above=window.epoch)
    request = Request(
        ring=RING,
        goal=Goal.REVOKE,
        past_epoch=rotated.epoch,
        drop_live_keys=False,
        who="sre",
        reason="after the flood",
        made_at=rig.now_at,
    )
    rig.pass_time(2 * POLICY.tick_interval_ms)
    rig.peek.request(id="r1", request=sign_request(request, rig.operator))

    assert rig.settle(above=rotated.epoch).barrier == rotated.epoch + 1
