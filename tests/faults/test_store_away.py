"""A store that is absent, gone, slow, empty or locked: keys stay, it is said once, and all comes back by itself."""

import os
import signal
import time

import pytest

from keyrotd.core.window import Window
from keyrotd.store.embedded import Embedded, start
from tests.faults.rig import POLICY, STORE_TIMEOUT_MS, Rig, driver_of, names_in, sealing
from tests.servers_found import wheel_valkey


def again(store: Embedded) -> Embedded:
    """The store comes back, empty, where it was."""
    return start(runtime_dir=store.socket.parent, data_dir=None, server=wheel_valkey())


@pytest.fixture
def absent(own_store: Embedded) -> Embedded:
    own_store.stop()
    return own_store


def test_a_node_starts_alone_without_a_store_and_joins_by_itself(absent: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    desk, twin = rig.add_desk(), rig.add_twin()
    node = rig.add_node(driver_of(twin))

    rig.start_twin(node, twin)
    rig.pass_time(5_000)

    assert node.is_ready()  # a TLS server never waits for keyrotd
    alone = names_in(twin)
    assert len(alone) == 3
    assert "the store does not answer" in node.telemetry.said_once("store")[1]
    assert "seals with keys of its own" in node.telemetry.said_once("isolated")[0]
    assert desk.telemetry.said_once("store")
    assert node.telemetry.value("store_errors_total", operation="poll") > 2
    assert node.telemetry.value("isolated", ring="edge") == 1

    store = again(absent)
    try:
        window = rig.settle()

        assert sealing(twin) == window.current.name.hex()
        assert not set(alone) & set(names_in(twin))
        assert node.telemetry.standing() == desk.telemetry.standing() == []
        assert node.telemetry.value("isolated", ring="edge") == 0
    finally:
        store.stop()


@pytest.mark.usefixtures("absent")
def test_a_store_that_keeps_failing_is_asked_less_often(own_rig: Rig) -> None:
    node = own_rig.add_node(driver_of(own_rig.add_twin()))

    own_rig.pass_time(5_000)

    assert node.wait_ms == 4 * POLICY.poll_interval_ms


def test_a_store_away_for_long_costs_keys_only_when_they_are_due(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    window = rig.start()
    (node,), (desk,), (twin,) = rig.nodes, rig.desks, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    own_store.stop()

    rig.now_at = window.stands_in_at - 2_000
    rig.pass_time(1_000)

    assert names_in(twin) == ring
    assert twin.pushes == pushes
    assert node.telemetry.standing() == ["store"]
    assert desk.telemetry.value("leader", ring="edge") == 0

    rig.pass_time(4_000)

    assert sealing(twin) == window.next.name.hex()  # as if a leader had rotated
    assert window.current.name.hex() in names_in(twin)  # and what it sealed still opens
    assert twin.pushes == pushes + 1
    assert node.telemetry.said_once("stranded")
    assert node.is_ready()

    rig.now_at = window.seals_until - 2_000
    rig.pass_time(4_000)

    assert sealing(twin) not in ring  # a follower
    assert window.next.name.hex() in names_in(twin)
    assert twin.pushes == pushes + 2
    assert node.telemetry.value("succession_steps", ring="edge") == 1

    store = again(own_store)
    try:
        renewed = rig.settle(above=window.epoch + 1)  # the mend, and the renewal

        assert renewed.current.born == window.next.born  # a follower too
        assert sealing(twin) == renewed.current.name.hex()
        assert node.telemetry.standing() == desk.telemetry.standing() == []
        assert node.telemetry.said_once("store")
    finally:
        store.stop()


def test_a_store_that_stands_still_holds_nobody_up(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    window = rig.start()
    (node,), (desk,), (twin,) = rig.nodes, rig.desks, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    os.kill(own_store.pid, signal.SIGSTOP)

    began_s = time.monotonic()
    node.agent.tick()
    desk.scheduler.tick()
    took_s = time.monotonic() - began_s

    assert took_s < 2 * STORE_TIMEOUT_MS / 1000 + 0.5
    assert f"no answer within {STORE_TIMEOUT_MS} ms" in node.telemetry.said_once("store")[0]
    assert desk.telemetry.value("leader", ring="edge") == 1
    rig.now_at += POLICY.lease_ttl_ms
    desk.scheduler.tick()
    assert desk.telemetry.value("leader", ring="edge") == 0  # it does not count on a lease that may be gone

    os.kill(own_store.pid, signal.SIGCONT)
    rig.pass_time(3_000)

    assert desk.telemetry.value("leader", ring="edge") == 1
    assert rig.window() == window
    assert (names_in(twin), twin.pushes) == (ring, pushes)
    assert node.telemetry.standing() == desk.telemetry.standing() == []


def test_a_store_emptied_is_mended_from_the_leaders_memory(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    window = rig.start(nodes=2)
    (desk,) = rig.desks
    own_store.stop()
    store = again(own_store)
    try:
        desk.scheduler.tick()  # at once: whoever published it need not ask around
        assert_mended(rig, window)
        assert desk.telemetry.value("store_regressions_total", ring="edge") == 1
    finally:
        store.stop()


def test_a_store_emptied_while_its_leader_dies_is_mended_from_what_the_nodes_hold(
    own_store: Embedded, own_rig: Rig
) -> None:
    rig = own_rig
    window = rig.start(nodes=2)
    rig.desks.clear()
    own_store.stop()
    store = again(own_store)
    try:
        heir = rig.add_desk()  # on another machine, and without any memory
        rig.tick()
        assert rig.window() is None

        took_ms = rig.pass_until(lambda: rig.window() is not None, "somebody publishes")

        assert took_ms >= POLICY.speak_ms  # nobody was cut short
        assert_mended(rig, window)
        assert heir.telemetry.value("publishes_total", ring="edge", kind="bootstrap") == 0
        assert [event["kind"] for event in heir.telemetry.events("window.published")] == ["mend"]
        assert all(node.telemetry.events("window.offered") for node in rig.nodes[:1])
    finally:
        store.stop()


def assert_mended(rig: Rig, window: Window) -> None:
    rings = [names_in(twin) for twin in rig.twins]
    mended = rig.settle()
    assert mended.epoch > window.epoch
    assert (mended.current, mended.next) == (window.current, window.next)
    assert [names_in(twin) for twin in rig.twins] == rings
    for node in rig.nodes:
        assert node.telemetry.standing() == []
        assert node.telemetry.value("forks_total", ring="edge") == 0


def test_a_store_that_wants_a_password_is_told_apart(own_rig: Rig) -> None:
    rig = own_rig
    rig.start()
    (node,), (desk,), (twin,) = rig.nodes, rig.desks, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    with rig.owner() as owner:
        owner.config_set("requirepass", "open sesame")
        rig.hang_up()  # whoever is in stays in

        rig.pass_time(5_000)

        assert (names_in(twin), twin.pushes) == (ring, pushes)
        for telemetry in (node.telemetry, desk.telemetry):
            words, hint = telemetry.said_once("store")
            assert "password" in hint
            assert "open sesame" not in words + hint

        owner.config_set("requirepass", "")
        rig.pass_time(3_000)

    assert node.telemetry.standing() == desk.telemetry.standing() == []
    assert (names_in(twin), twin.pushes) == (ring, pushes)
