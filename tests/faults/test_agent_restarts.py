"""An agent that ends, however it does, leaves the servers' keys in place; the next one takes up where it left off."""

import shutil

from keyrotd.daemon.rings import Agents
from keyrotd.store.embedded import Embedded
from tests.faults.rig import Rig, names_in


def test_a_restarted_agent_installs_nothing_anew(rig: Rig) -> None:
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes, content = names_in(twin), twin.pushes, twin.key_file.read_bytes()

    rig.restart(node)
    rig.pass_time(5_000)

    assert (names_in(twin), twin.pushes, twin.key_file.read_bytes()) == (ring, pushes, content)
    assert [event["digest"] for event in node.telemetry.events("cache.restored")] == [window.digest]
    assert node.telemetry.events("window.installed") == []
    assert node.telemetry.standing() == []
    assert node.is_ready()


def test_a_restarted_agent_repairs_from_its_cache_without_a_store(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring = names_in(twin)
    own_store.stop()
    rig.restart(node)
    twin.push(twin.key_file, bytes(range(80)))

    node.agent.tick()

    assert names_in(twin) == ring
    assert node.telemetry.standing() == ["store"]


def test_a_restarted_agent_stops_sealing_on_time_without_a_store(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    own_store.stop()
    rig.pass_time(10_000)
    rig.restart(node)

    rig.now_at = window.seals_until + 2_000
    node.clock.skew_ms = -7_200_000  # the wall clock has no say
    rig.pass_time(2_500)

    assert names_in(twin)[-2] not in {window.current.name.hex(), window.next.name.hex()}
    assert window.current.name.hex() in names_in(twin)


def test_an_agent_without_its_runtime_directory_takes_the_window_from_the_store(rig: Rig) -> None:
    rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    shutil.rmtree(node.runtime)
    node.runtime.mkdir(mode=0o700)

    rig.restart(node)
    rig.pass_time(5_000)

    assert (names_in(twin), twin.pushes) == (ring, pushes)
    assert node.telemetry.standing() == []
    assert node.is_ready()
    assert (node.runtime / "agent-edge.cache").exists()


def test_an_agent_without_cache_and_store_leaves_a_running_server_alone(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes, content = names_in(twin), twin.pushes, twin.key_file.read_bytes()
    own_store.stop()
    (node.runtime / "agent-edge.cache").unlink()

    rig.restart(node)
    rig.pass_time(30_000)

    assert (names_in(twin), twin.pushes, twin.key_file.read_bytes()) == (ring, pushes, content)


def test_what_an_agent_without_cache_and_store_left_alone_seals_no_longer_than_it_may(
    own_store: Embedded, own_rig: Rig
) -> None:
    """G3 over G5: it still knows by when, and nothing else."""
    rig = own_rig
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    own_store.stop()
    (node.runtime / "agent-edge.cache").unlink()
    rig.restart(node)

    rig.now_at = window.seals_until - 2_000
    rig.pass_time(1_000)
    before = names_in(twin)[-2]
    rig.pass_time(4_000)

    assert before == window.current.name.hex()
    assert names_in(twin)[-2] not in {window.current.name.hex(), window.next.name.hex()}


def test_a_rebooted_agent_waits_for_a_beat_before_it_believes_its_cache(own_store: Embedded, own_rig: Rig) -> None:
    rig = own_rig
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring = names_in(twin)
    own_store.stop()

    node.clock.reboot()  # the cache lies on a disk that outlived it, and nothing says how old it is
    rig.restart(node)
    rig.pass_time(2_000)

    assert node.telemetry.events("cache.restored") == []
    assert names_in(twin) == ring
    assert window.current.name.hex() in names_in(twin)


def test_a_stopped_agent_leaves_its_servers_their_keys(rig: Rig) -> None:
    rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes, content = names_in(twin), twin.pushes, twin.key_file.read_bytes()

    Agents([node.agent], [rig.peek]).stop()

    assert (names_in(twin), twin.pushes, twin.key_file.read_bytes()) == (ring, pushes, content)
    assert (node.runtime / "agent-edge.cache").exists()
