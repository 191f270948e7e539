"""An agent that cannot write goes on with what it has: servers get their keys, and the disk is caught up with later."""

from pathlib import Path

import pytest

from tests.faults.rig import RING, Rig, driver_of, filled, names_in, sealing
from tests.mounts import mounted


def test_a_full_runtime_directory_keeps_no_key_from_a_server(rig: Rig) -> None:
    runtime = made(rig.directory / "run")
    twin = rig.add_twin()
    with mounted(runtime, read_only=False):
        rig.add_desk()
        node = rig.add_node(driver_of(twin), runtime=runtime)
        rig.start_twin(node, twin)
        window = rig.begin()
        cached = (runtime / "agent-edge.cache").read_bytes()
        free = filled(runtime)

        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        newer = rig.settle(above=window.epoch)

        assert sealing(twin) == newer.current.name.hex()
        words, hint = node.telemetry.said_once("agent-edge.cache")
        assert "no space left" in words.lower()
        assert "free space" in hint
        assert (runtime / "agent-edge.cache").read_bytes() == cached  # whole, if old

        free()
        rig.pass_time(1_000)

        assert node.telemetry.standing() == []
        rig.restart(node)
        assert node.telemetry.events("cache.restored")[0]["epoch"] == newer.epoch


def test_a_full_state_directory_is_caught_up_with(rig: Rig) -> None:
    state = made(rig.directory / "state")
    twin = rig.add_twin()
    with mounted(state, read_only=False):
        rig.add_desk()
        node = rig.add_node(driver_of(twin), state=state)
        rig.start_twin(node, twin)
        window = rig.begin()
        free = filled(state)

        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        newer = rig.settle(above=window.epoch)

        assert sealing(twin) == newer.current.name.hex()
        assert node.telemetry.said_once("agent-edge.memory")
        assert f"floor {window.epoch}\n" in (state / "agent-edge.memory").read_text()

        free()
        rig.pass_time(1_000)

        assert node.telemetry.standing() == []
        assert f"floor {newer.epoch}\n" in (state / "agent-edge.memory").read_text()


def test_a_disk_full_at_start_is_caught_up_with(rig: Rig) -> None:
    window = rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    node.state = made(rig.directory / "state")
    with mounted(node.state, read_only=False):
        free = filled(node.state)
        rig.restart(node)
        rig.pass_time(2_000)

        assert (names_in(twin), twin.pushes) == (ring, pushes)
        assert node.telemetry.said_once("agent-edge.memory")

        free()
        rig.pass_time(2_000)

        assert node.telemetry.standing() == []
        assert f"floor {window.epoch}\n" in (node.state / "agent-edge.memory").read_text()


def test_folders_that_cannot_be_written_at_all_keep_a_node_going(rig: Rig) -> None:
    runtime, state = made(rig.directory / "run"), made(rig.directory / "state")
    twin = rig.add_twin()
    with mounted(runtime, read_only=True), mounted(state, read_only=True):
        rig.add_desk()
        node = rig.add_node(driver_of(twin), runtime=runtime, state=state)
        rig.start_twin(node, twin)
        window = rig.settle()

        assert sealing(twin) == window.current.name.hex()
        assert node.is_ready()
        for name in ("agent-edge.cache", "agent-edge.memory"):
            assert "read-only" in node.telemetry.said_once(name)[0].lower()


def test_a_full_key_directory_keeps_the_keys_in_memory_as_they_are(rig: Rig) -> None:
    home = made(rig.directory / "h1")
    with mounted(home, read_only=False):
        window = rig.start()
        (node,), (twin,) = rig.nodes, rig.twins
        ring, content = names_in(twin), twin.key_file.read_bytes()
        free = filled(home)

        rig.now_at = rig.policy.schedule.next_due(window.published_at)
        rig.pass_time(1_500)

        newer = rig.window()
        assert newer is not None
        assert newer.epoch == window.epoch + 1
        assert (names_in(twin), twin.key_file.read_bytes()) == (ring, content)
        assert "no space left on device" in node.telemetry.said_once("server haproxy")[0]
        assert node.telemetry.value("installs_total", ring=RING, server="haproxy", outcome="failed") > 1

        free()
        rig.settle(above=window.epoch)

        assert node.telemetry.standing() == []
        assert sealing(twin) == newer.current.name.hex()


@pytest.mark.parametrize("name", ["agent-edge.cache", "agent-edge.memory"])
def test_a_spoilt_file_is_said_and_made_anew(rig: Rig, name: str) -> None:
    rig.start()
    (node,), (twin,) = rig.nodes, rig.twins
    ring, pushes = names_in(twin), twin.pushes
    path = (node.runtime if name.endswith("cache") else node.state) / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    rig.restart(node)
    said = node.telemetry.said_once(name.removeprefix("agent-edge."))
    rig.pass_time(3_000)

    assert "cannot be read" in said[0]
    assert (names_in(twin), twin.pushes) == (ring, pushes)
    assert node.telemetry.standing() == []
    assert len(path.read_bytes()) == len(whole)


def made(directory: Path) -> Path:
    directory.mkdir(mode=0o700)
    return directory
