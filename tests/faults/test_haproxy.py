"""A real HAProxy that is absent, stuck, misread or meddled with: what it holds stays, until it can be put right."""

import base64
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrotd.core.window import Window
from keyrotd.daemon.tending import Threads
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.haproxy_twin import Mood, write_strange_keys
from tests.faults.rig import POLICY, RING, Node, Rig, driver_of, names_in, sealing

#: A HAProxy that hangs is given up after this.
PATIENCE_MS = 150


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_authority(datetime.now(UTC)).write(tmp_path_factory.mktemp("ca"))[1]


@pytest.fixture
def haproxy(rig: Rig, haproxy_exe: Path, certificate: Path) -> Iterator[HAProxy]:
    """Not started; `in_order` starts it."""
    haproxy = HAProxy("node-1", haproxy_exe, rig.directory / "h", certificate, threads=1)
    yield haproxy
    haproxy.stop()


def in_order(rig: Rig, haproxy: HAProxy) -> Window:
    """One node with this HAProxy, and a window confirmed."""
    rig.add_desk()
    rig.add_node(driver_of(haproxy, timeout_ms=PATIENCE_MS))
    rig.pass_until(haproxy.key_file.exists, "the key file is written")
    haproxy.start()
    return rig.begin()


def installs(node: Node, outcome: str) -> float:
    return node.telemetry.value("installs_total", ring=RING, server="haproxy", outcome=outcome)


def drifts(node: Node) -> float:
    return node.telemetry.value("drift_total", ring=RING, server="haproxy")


def test_a_haproxy_that_is_not_there_is_waited_for(rig: Rig, haproxy: HAProxy) -> None:
    rig.add_desk()
    node = rig.add_node(driver_of(haproxy))

    rig.pass_time(POLICY.speak_ms + 2_000)

    assert "does not exist" in node.telemetry.said_once("server haproxy")[0]
    assert installs(node, "unreachable") > 2
    assert not node.is_ready()

    haproxy.start()  # from the file that the agent keeps for it
    window = rig.settle()

    assert node.telemetry.standing() == []
    assert node.is_ready()
    assert haproxy.ring()[-2] == key_line(window)


def key_line(window: Window) -> str:
    stek = window.current.stek
    assert stek is not None
    secrets = stek.secrets(HAProxyDriver(name="x", socket=(Path("/x"),), key_file=(Path("/x"),)).facts.scheme)
    return base64.b64encode(secrets.name + secrets.aes + secrets.hmac).decode()


def test_a_haproxy_that_hangs_keeps_its_keys_and_delays_no_other(rig: Rig, haproxy: HAProxy) -> None:
    twin = rig.add_twin()
    rig.add_desk()
    workers = Threads(2)
    node = rig.add_node(driver_of(haproxy, timeout_ms=PATIENCE_MS), driver_of(twin, name="other"), workers=workers)
    rig.pass_until(lambda: haproxy.key_file.exists() and twin.key_file.exists(), "the key files are written")
    haproxy.start()
    twin.start()
    window = rig.begin()
    ring, pid = haproxy.ring(), haproxy.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        began_s = time.monotonic()
        node.agent.tick()
        assert time.monotonic() - began_s < 2 * PATIENCE_MS / 1000 + 1
        rig.pass_time(POLICY.overdue_after_ms + 2_000)  # the fleet waits for it, and then goes on

        newer = rig.window()
        assert newer is not None
        assert newer.epoch == window.epoch + 1
        assert sealing(twin) == newer.current.name.hex()
        assert f"gave no answer within {PATIENCE_MS} ms" in node.telemetry.said_once("server haproxy")[0]
        assert installs(node, "unreachable") > 2
        assert node.agent.unready() == ["haproxy"]
    finally:
        os.kill(pid, signal.SIGCONT)
    rig.settle(above=window.epoch)
    workers.close()

    assert haproxy.ring()[:2] == ring[1:]
    assert haproxy.pid == pid
    assert node.telemetry.standing() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_a_socket_that_lets_us_not_in_is_said_with_the_line_to_mend(rig: Rig, haproxy: HAProxy) -> None:
    in_order(rig, haproxy)
    (node,) = rig.nodes
    ring = haproxy.ring()
    rig.directory.chmod(0o755)
    for ours in (haproxy.directory, *haproxy.directory.glob("*tickets.keys*")):
        os.chown(ours, 65534, 65534)  # all but the socket
    os.seteuid(65534)
    try:
        rig.pass_time(2_000)
    finally:
        os.seteuid(0)

    words, hint = node.telemetry.said_once("server haproxy")
    assert "permission denied" in words
    assert "level admin mode 660 group" in hint
    assert installs(node, "unreachable") > 2
    rig.pass_time(1_000)
    assert node.telemetry.standing() == []
    assert haproxy.ring() == ring


@pytest.mark.parametrize("mood", [Mood.BABBLES, Mood.DENIES, Mood.CLOSES, Mood.MASTER])
def test_a_server_that_answers_errors_keeps_its_keys(rig: Rig, mood: Mood) -> None:
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    twin.mood = mood

    rig.pass_time(5_000)

    assert (names_in(twin), twin.pushes) == (ring, pushes)
    assert node.telemetry.said_once("server haproxy")
    assert installs(node, "failed") + installs(node, "unreachable") > 2
    assert not node.is_ready()
    assert rig.window() == window

    twin.mood = Mood.HONEST
    rig.pass_time(1_000)
    assert node.telemetry.standing() == []
    assert node.is_ready()
    assert (names_in(twin), twin.pushes) == (ring, pushes)


def test_a_server_that_lies_holds_the_rotation_until_overdue(rig: Rig) -> None:
    window = rig.start(nodes=2)
    honest, liar = rig.twins
    liar.mood = Mood.LIES
    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    rig.pass_time(2_000)
    newer = rig.window()
    assert newer is not None
    assert newer.epoch == window.epoch + 1

    rig.pass_time(5_000)

    assert sealing(honest) == newer.current.name.hex()
    assert sealing(liar) == window.current.name.hex()
    assert "shows others" in rig.nodes[1].telemetry.said_once("server haproxy")[0]
    assert installs(rig.nodes[1], "failed") > 2

    liar.mood = Mood.HONEST
    rig.settle(above=window.epoch)
    assert rig.nodes[1].telemetry.standing() == []


def test_a_key_file_that_haproxy_does_not_use_is_named(rig: Rig, haproxy: HAProxy) -> None:
    write_strange_keys(haproxy.key_file)
    haproxy.start()
    ring = haproxy.ring()
    rig.add_desk()
    misspelt = HAProxyDriver(
        name="haproxy", socket=(haproxy.socket,), key_file=(haproxy.key_file.with_name("misspelt.keys"),)
    )
    node = rig.add_node(misspelt)

    rig.pass_time(POLICY.speak_ms + 2_000)

    words, hint = node.telemetry.said_once("server haproxy")
    assert "knows no such key file" in words
    assert "letter by letter" in hint
    assert installs(node, "failed") > 2
    assert haproxy.ring() == ring
    assert not node.is_ready()


def test_a_ring_of_48_byte_keys_is_left_alone_until_a_reload(rig: Rig, haproxy: HAProxy) -> None:
    write_strange_keys(haproxy.key_file, size=48)
    haproxy.start()
    ring = haproxy.ring()
    rig.add_desk()
    node = rig.add_node(driver_of(haproxy))

    rig.pass_time(POLICY.speak_ms + 2_000)

    assert haproxy.ring() == ring
    words, hint = node.telemetry.said_once("server haproxy")
    assert "holds 48-byte keys" in words
    assert "restart HAProxy once" in hint

    haproxy.reload()
    window = rig.settle()

    assert haproxy.ring()[-2] == key_line(window)
    assert node.telemetry.standing() == []


def test_keys_that_somebody_else_pushes_are_overruled_within_one_tick(rig: Rig, haproxy: HAProxy) -> None:
    in_order(rig, haproxy)
    (node,) = rig.nodes
    ring = haproxy.ring()
    strange = base64.b64encode(os.urandom(80)).decode()
    haproxy.ask(f"set ssl tls-key {haproxy.key_file} {strange}")
    assert haproxy.ring() == [*ring[1:], strange]

    node.agent.tick()

    assert haproxy.ring() == ring
    assert drifts(node) == 1
    assert len(node.telemetry.events("drift.repaired")) == 1
    rig.pass_time(2_000)
    assert drifts(node) == 1
    assert node.telemetry.standing() == []


@pytest.mark.parametrize("anew", ["reload", "restart"])
def test_a_haproxy_that_begins_anew_has_its_keys_from_the_file(rig: Rig, haproxy: HAProxy, anew: str) -> None:
    window = in_order(rig, haproxy)
    (node,) = rig.nodes
    rig.now_at = rig.policy.schedule.next_due(window.published_at)
    rig.settle(above=window.epoch)
    ring, pid, installed = haproxy.ring(), haproxy.pid, installs(node, "installed")

    getattr(haproxy, anew)()

    assert haproxy.pid != pid
    assert haproxy.ring() == ring
    node.agent.tick()
    assert (drifts(node), installs(node, "installed")) == (0, installed)
    assert node.is_ready()


def test_a_haproxy_reloaded_over_a_strange_file_is_found_within_one_tick(rig: Rig, haproxy: HAProxy) -> None:
    in_order(rig, haproxy)
    (node,) = rig.nodes
    ring = haproxy.ring()
    write_strange_keys(haproxy.key_file)
    haproxy.reload()
    assert not set(haproxy.ring()) & set(ring)

    node.agent.tick()

    assert haproxy.ring() == ring
    assert haproxy.key_file.read_text().split() == ring
    assert drifts(node) == 1
    assert node.is_ready()
