"""Whoever owns the store may put anything anywhere: nodes keep their keys and say it once, the leader cleans up."""

import os
from dataclasses import replace

import pytest

from keyrotd.core.messages import Beat
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import SigningKey, make_secrets, parse
from keyrotd.seal.messages import read_beat, sign_beat
from keyrotd.seal.window import seal_window
from tests.faults.rig import POLICY, RING, Node, Rig, driver_of, names_in

KEYS = ("window", "beat", "lease", "fence", "reports", "offers", "requests", "history")
HOUR_MS = 3_600_000


def refused(node: Node, reason: str) -> float:
    return node.telemetry.value("windows_refused_total", ring=RING, reason=reason)


def without_leader(rig: Rig) -> tuple[Node, list[str], int]:
    """A ring in order whose schedulers are gone, so that nobody puts right what a test puts there."""
    rig.start()
    rig.desks[0].away = True
    (node,), (twin,) = rig.nodes, rig.twins
    return node, names_in(twin), twin.pushes


def back(rig: Rig) -> None:
    rig.desks[0].away = False
    rig.settle()
    rig.pass_time(2 * POLICY.poll_interval_ms)


def assert_untouched(rig: Rig, ring: list[str], pushes: int) -> None:
    (twin,) = rig.twins
    assert (names_in(twin), twin.pushes) == (ring, pushes)


def beat_now(rig: Rig) -> Beat:
    data = rig.peek.look().beat
    assert data is not None
    return read_beat(data, verifiers=rig.verifiers, ring=RING)


def put_beat(rig: Rig, beat: bytes) -> None:
    with rig.owner() as owner:
        owner.set(rig.key("beat"), beat)


def put_window(rig: Rig, sealed: bytes, window: Window) -> None:
    with rig.owner() as owner:
        fields = {"window": sealed, "digest": window.digest, "epoch": window.epoch, "fence": window.fence}
        owner.hset(rig.key("window"), mapping=fields)


def sealed_now(rig: Rig) -> tuple[bytes, Window]:
    found, window = rig.peek.window(), rig.window()
    assert found is not None
    assert window is not None
    return found[1], window


def test_a_replayed_beat_does_not_turn_time_back(rig: Rig) -> None:
    rig.start()
    old = rig.peek.look().beat
    assert old is not None
    rig.pass_time(5_000)
    rig.desks[0].away = True
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes, fleet_at = names_in(twin), twin.pushes, node.agent._fleet.now()
    put_beat(rig, old)

    rig.pass_time(5_000)

    assert_untouched(rig, ring, pushes)
    assert fleet_at is not None
    assert node.agent._fleet.now() == fleet_at + 5_000
    assert refused(node, "replayed beat") > 2
    assert "older" in node.telemetry.said_once("beat")[0]
    back(rig)
    assert node.telemetry.standing() == []


def test_a_beat_of_another_ring_is_refused(rig: Rig) -> None:
    node, ring, pushes = without_leader(rig)
    put_beat(rig, sign_beat(replace(beat_now(rig), ring="other"), rig.signer))

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert refused(node, "wrong ring") > 2
    assert node.telemetry.said_once("beat")
    back(rig)
    assert node.telemetry.standing() == []


def test_a_beat_by_a_stranger_is_refused(rig: Rig) -> None:
    node, ring, pushes = without_leader(rig)
    stranger = parse(make_secrets(RING, os.urandom)["signing.key"], SigningKey, "signing.key")[0]
    put_beat(rig, sign_beat(replace(beat_now(rig), signed_at=rig.now_at + 1_000), stranger))

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert refused(node, "unknown signer") > 2
    assert node.telemetry.said_once("beat")
    back(rig)
    assert node.telemetry.standing() == []


def test_a_beat_from_the_future_ages_no_key(rig: Rig) -> None:
    node, ring, pushes = without_leader(rig)
    put_beat(rig, sign_beat(replace(beat_now(rig), signed_at=rig.now_at + HOUR_MS), rig.signer))

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert refused(node, "from the future") > 2
    assert node.telemetry.said_once("beat")
    back(rig)  # a scheduler that finds a beat ahead of its own clock starts no new reign over it
    assert node.telemetry.standing() == []


def test_an_old_window_put_back_by_hand_is_refused_and_mended(rig: Rig) -> None:
    window = rig.start()
    old = sealed_now(rig)
    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    newer = rig.settle(above=window.epoch)
    rig.pass_time(2 * POLICY.poll_interval_ms)
    rig.desks[0].away = True
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    put_window(rig, *old)

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert "refused, older epoch" in node.telemetry.said_once("window")[0]
    assert refused(node, "older epoch") == 1  # judged once, not at every poll
    assert [event["digest"] for event in node.telemetry.events("window.offered")] == [newer.digest]

    rig.desks[0].away = False
    mended = rig.settle(above=newer.epoch)
    rig.pass_time(2 * POLICY.poll_interval_ms)
    assert (mended.current, mended.next) == (newer.current, newer.next)
    assert rig.desks[0].telemetry.value("store_regressions_total", ring=RING) == 1
    assert_untouched(rig, ring, pushes)
    assert node.telemetry.standing() == []


@pytest.mark.parametrize("at", [0, 60, 700, -3])
def test_a_window_with_one_bit_flipped_is_refused_and_mended(rig: Rig, at: int) -> None:
    node, ring, pushes = without_leader(rig)
    sealed, window = sealed_now(rig)
    flipped = bytearray(sealed)
    flipped[at] ^= 1
    forged = replace(window, epoch=window.epoch + 1)  # under a digest that nobody knows yet
    put_window(rig, bytes(flipped), forged)

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert node.telemetry.said_once("window")
    total = sum(refused(node, reason) for reason in ("malformed", "bad signature", "bad seal", "unknown signer"))
    assert total == 1 or refused(node, "unknown signer") > 0
    back(rig)
    assert_untouched(rig, ring, pushes)
    assert node.telemetry.standing() == rig.desks[0].telemetry.standing() == []


def test_a_window_of_another_ring_is_refused_and_mended(rig: Rig) -> None:
    node, ring, pushes = without_leader(rig)
    other = Rig(rig.address, rig.directory / "other")
    other.directory.mkdir()
    try:
        strange = other.start()
        sealed = other.peek.window()
    finally:
        other.close()
    assert sealed is not None
    put_window(rig, sealed[1], strange)  # same name, other keys

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert node.telemetry.said_once("window")
    assert refused(node, "unknown signer") > 0
    back(rig)
    assert_untouched(rig, ring, pushes)
    assert node.telemetry.standing() == rig.desks[0].telemetry.standing() == []


def test_a_window_signed_for_another_ring_is_refused(rig: Rig) -> None:
    node, ring, pushes = without_leader(rig)
    _, window = sealed_now(rig)
    foreign = replace(
        window,
        ring="other",
        current=replace(window.current, stek=None),
        next=replace(window.next, stek=None),
        epoch=window.epoch + 1,
    )
    sealed = seal_window(foreign, keks=rig.keks, signer=rig.signer, rand=os.urandom)
    put_window(rig, sealed, foreign)

    rig.pass_time(3_000)

    assert_untouched(rig, ring, pushes)
    assert refused(node, "wrong ring") == 1
    assert node.telemetry.said_once("window")
    back(rig)
    assert node.telemetry.standing() == []


def test_a_stale_window_is_not_for_a_fresh_node(rig: Rig) -> None:
    window = rig.start()
    rig.desks[0].away = True
    rig.now_at = window.seals_until + 1_000
    twin = rig.add_twin()
    fresh = rig.add_node(driver_of(twin))

    rig.start_twin(fresh, twin)
    rig.pass_time(3_000)

    assert window.current.name.hex() not in names_in(twin)
    assert "stale window" in fresh.telemetry.said_once("window")[0]
    assert fresh.telemetry.value("isolated", ring=RING) == 1
    rig.desks[0].away = False
    rig.end_lease()
    rig.settle(above=window.epoch)
    rig.pass_time(2_000)
    assert fresh.telemetry.standing() == []


@pytest.mark.parametrize("kind", ["string", "hash", "list", "binary", "huge"])
def test_garbage_under_every_key_costs_no_key_and_is_cleaned_up(rig: Rig, kind: str) -> None:
    window = rig.start()
    (node,), (twin,), (desk,) = rig.nodes, rig.twins, rig.desks
    ring, pushes = names_in(twin), twin.pushes
    desk.away = True
    with rig.owner() as owner:
        for name in KEYS:
            key = rig.key(name)
            owner.delete(key)
            match kind:
                case "string":
                    owner.set(key, "garbage")
                case "hash":
                    owner.hset(key, mapping={"window": "x", "digest": "y" * 64, "fence": "-1", "holder": "me\n"})
                case "list":
                    owner.rpush(key, "garbage", "more")
                case "binary":
                    owner.hset(key, mapping={b"\xff\x00": b"\x00" * 100, b"window": b"\xfe", b"digest": b"\xff" * 64})
                case "huge":
                    owner.set(key, b"9" * 2_000_000)

    rig.pass_time(3_000)
    assert_untouched(rig, ring, pushes)
    desk.away = False
    mended = rig.settle(above=window.epoch)
    rig.pass_time(2 * POLICY.poll_interval_ms)

    assert (mended.current, mended.next) == (window.current, window.next)
    assert_untouched(rig, ring, pushes)
    assert node.telemetry.standing() == desk.telemetry.standing() == []
    rig.pass_time(10 * POLICY.poll_interval_ms)
    for daemon in (node, desk):
        said = [event["fault"] for event in daemon.telemetry.events("fault.found")]
        assert len(said) == len(set(said))
    with rig.owner() as owner:
        assert [owner.hlen(rig.key(name)) for name in ("reports", "offers", "requests")] == [1, 0, 0]


def test_a_report_copied_under_another_name_counts_for_nobody(rig: Rig) -> None:
    window = rig.start(nodes=2)
    with rig.owner() as owner:
        data = owner.hget(rig.key("reports"), "node-1")
        owner.hset(rig.key("reports"), mapping={"ghost": data, "noise": b"noise"})
    (desk,) = rig.desks

    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    rig.settle(above=window.epoch)

    assert [node.report.node for node in desk.scheduler._reign.nodes] == ["node-1", "node-2"]  # type: ignore[union-attr]
    words, _ = desk.telemetry.said_once("reports")
    assert "ghost" in words
    assert "noise" in words
    with rig.owner() as owner:
        assert owner.hkeys(rig.key("reports")) == [b"node-1", b"node-2"]
    assert desk.telemetry.standing() == []


def test_a_window_that_only_a_stranger_signed_stops_no_new_leader(rig: Rig) -> None:
    window = rig.start()
    rig.desks[0].away = True
    stranger = parse(make_secrets(RING, os.urandom)["signing.key"], SigningKey, "signing.key")[0]
    forged = replace(window, epoch=window.epoch + 1)
    put_window(rig, seal_window(forged, keks=rig.keks, signer=stranger, rand=os.urandom), forged)
    rig.end_lease()
    rig.add_desk()

    def mended() -> bool:
        stored = rig.peek.window()
        if stored is None or stored[0] == forged.digest:
            return False
        found = rig.window()  # nodes offer what they hold once they can read what stands
        return found is not None and {window.current.name, window.next.name} <= {key.name for key in found.all}

    rig.pass_until(mended, "what the node holds is taken in")
    rig.settle(above=window.epoch)
    assert rig.nodes[0].telemetry.standing() == rig.desks[1].telemetry.standing() == []


def test_junk_under_the_digest_that_nodes_hold_leaves_no_ring_without_a_leader(rig: Rig) -> None:
    """A stranger's signature over the very window: no scheduler can read it, and the nodes hold that digest."""
    window = rig.start(nodes=2, desks=2)
    junk = seal_window(window, keks=rig.keks, signer=SigningKey(os.urandom(32)), rand=os.urandom)
    with rig.owner() as owner:
        owner.hset(rig.key("lease"), mapping={"holder": "nobody", "fence": "99"})
        owner.pexpire(rig.key("lease"), 200_000)
        rig.pass_time(500)
        owner.hset(rig.key("window"), "window", junk)
        owner.delete(rig.key("lease"))

    newer = rig.settle(above=window.epoch)

    assert window.digest in newer.ancestors
    assert window.next.name in {key.name for key in newer.all}
