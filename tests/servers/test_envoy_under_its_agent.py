"""An agent and its Envoy from the first moment on: alone, in a fleet, and with its file broken by hand."""

from collections.abc import Iterator
from functools import partial

import pytest

from keyrotd.servers import files
from keyrotd.servers.envoy_secret import decode
from keyrotd.testing.children import wait_until
from keyrotd.testing.envoy import Envoy
from keyrotd.testing.fleet import Fleet
from keyrotd.tls.handshake import Fault, Handshake, Version, client_context, visit
from tests import servers_found
from tests.leaks import Leaks
from tests.scenes import HURRIED, Operator, short_directory


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Nothing of it runs yet."""
    makers = (partial(Envoy, exe=servers_found.wheel_envoy()),)
    with short_directory() as directory:
        fleet = Fleet(directory, makers, nodes=1, schedulers=1, pace=HURRIED, store_exe=servers_found.wheel_valkey())
        try:
            yield fleet
        finally:
            fleet.close()


def test_envoy_starts_without_a_store_joins_its_fleet_and_is_mended_while_it_runs(fleet: Fleet) -> None:
    (envoy,) = fleet.servers
    secrets: dict[str, bytes] = {}

    fleet.start_agent(1)
    wait_until(envoy.key_file.exists, "an agent alone writes keys of its own")
    envoy.start()
    assert isinstance(come(fleet), Handshake)
    secrets |= secrets_in(envoy.key_file.read_bytes())

    fleet.start_store()
    fleet.start_scheduler(1)
    operator = Operator(fleet)
    wait_until(lambda: fleet.in_step(operator.store), "the fleet's window is read back")
    pid = envoy.pid
    secrets |= secrets_in(envoy.key_file.read_bytes())

    misspelt = envoy.key_file.read_bytes().replace(b"session_ticket_keys", b"session_ticket_keyz")
    files.write(envoy.key_file, misspelt)
    wait_until(lambda: envoy.key_file.read_bytes() != misspelt, "the agent finds and mends it")
    wait_until(lambda: isinstance(come(fleet), Handshake), "Envoy serves again")

    operator.rotate()
    seen = come(fleet)
    assert isinstance(seen, Handshake)
    assert seen.key_name == operator.window.current.name
    assert envoy.pid == pid
    secrets |= secrets_in(envoy.key_file.read_bytes())
    operator.store.close()
    fleet.close()
    logs = [(str(log), log.read_bytes()) for log in fleet.directory.rglob("*.log")]
    assert len(logs) >= 3
    assert Leaks(secrets).among(logs) == {}


def come(fleet: Fleet) -> Handshake | Fault:
    (target,) = fleet.targets
    return visit(target, client_context(Version.TLS12, fleet.trust), sni="localhost", timeout_ms=5_000)


def secrets_in(content: bytes) -> dict[str, bytes]:
    keys = decode(content, "stek").keys
    return {f"{part} of {key.name.hex()}": getattr(key, part) for key in keys for part in ("aes", "hmac")}
