"""The catalogue says of every driver what its section may hold, and its defaults are the driver's own."""

import dataclasses
from pathlib import Path

import pytest

from keyrotd.servers.catalogue import COMMON, DRIVERS, REQUIRED, Type
from keyrotd.servers.command import CommandDriver
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.inprocess import NginxDriver
from keyrotd.servers.port import Driver
from keyrotd.servers.trafficserver import TrafficServerDriver
from keyrotd.testing.twins import MemoryServer

CLASSES: dict[str, type[HAProxyDriver | NginxDriver | TrafficServerDriver | EnvoyDriver | CommandDriver]] = {
    "haproxy": HAProxyDriver,
    "nginx": NginxDriver,
    "trafficserver": TrafficServerDriver,
    "envoy": EnvoyDriver,
    "command": CommandDriver,
}

#: Not for the configuration: who it is, and what tests put in.
NOT_CONFIGURED = {"name", "clock"}


@pytest.mark.parametrize("kind", DRIVERS)
def test_every_parameter_of_a_driver_has_a_field_with_its_default(kind: str) -> None:
    in_class = {
        field.name: REQUIRED if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(CLASSES[kind])
        if field.name not in NOT_CONFIGURED
    }

    in_catalogue = {field.into or key: field.default for key, field in DRIVERS[kind].fields.items()}

    assert in_catalogue == in_class


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_driver_is_known_by_its_kind_and_never_by_a_common_field(kind: str) -> None:
    assert CLASSES[kind].kind == kind
    assert not DRIVERS[kind].fields.keys() & COMMON.keys()


def test_a_section_becomes_its_driver() -> None:
    built = DRIVERS["haproxy"].build(
        "edge", {"socket": (Path("/s"),), "key_file": (Path("/k"),), "timeout": 500, "mode": 0o640}
    )

    assert built == HAProxyDriver(name="edge", socket=(Path("/s"),), key_file=(Path("/k"),), timeout_ms=500, mode=0o640)


def test_only_a_choice_has_choices() -> None:
    for entry in DRIVERS.values():
        for field in entry.fields.values():
            assert bool(field.choices) == (field.type is Type.CHOICE)


def test_every_driver_keeps_the_port() -> None:
    """Mypy reads this test, too."""
    assert told(MemoryServer()) == ("memory", False, False, None)
    assert told(HAProxyDriver(name="a", socket=(Path("/s"),), key_file=(Path("/k"),))) == ("haproxy", False, True, 3)
    nginx = NginxDriver(name="d", key_file=Path("/k/k"), ack_dir=Path("/a"))
    assert told(nginx) == ("nginx", False, False, None)
    traffic_server = TrafficServerDriver(name="e", key_file=Path("/k/k"), ack_dir=Path("/a"))
    assert told(traffic_server) == ("trafficserver", False, False, None)
    assert told(EnvoyDriver(name="c", key_file=Path("/k.json"))) == ("envoy", False, False, None)
    command = CommandDriver(name="b", key_file=Path("/k"), layout="ats48", command=("/bin/true",))
    assert told(command) == ("command", True, False, None)


def told(driver: Driver) -> tuple[str, bool, bool, int | None]:
    return driver.kind, driver.facts.reloads, driver.facts.ring_buffer, driver.facts.min_slots
