"""Every kind of server that `keyrotd demo` offers starts as the demo starts it, and gets a ring's keys."""

from collections.abc import Callable
from pathlib import Path

import pytest

from keyrotd.servers.catalogue import DRIVERS
from keyrotd.testing.fleet import Fleet
from keyrotd.testing.kinds import KINDS
from keyrotd.tls.handshake import Handshake, Version, client_context, visit
from tests import servers_found
from tests.scenes import HURRIED, short_directory, started

_WANTED: dict[str, Callable[[], Path]] = {
    "haproxy": servers_found.wheel_haproxy,
    "nginx": servers_found.debian_nginx_lua,
    "envoy": servers_found.wheel_envoy,
    "trafficserver": servers_found.traffic_server,
}
_OF_DEBIAN = {"nginx", "trafficserver"}


@pytest.mark.parametrize(
    "word", [pytest.param(word, marks=[pytest.mark.debian] if word in _OF_DEBIAN else []) for word in KINDS]
)
def test_a_node_of_each_kind_serves_under_the_rings_key(word: str) -> None:
    _WANTED[word]()
    kind = KINDS[word]
    with (
        short_directory() as directory,
        started(Fleet(directory, (kind.find(),), nodes=1, schedulers=1, pace=HURRIED)) as operator,
    ):
        fleet = operator.fleet
        (server,), (target,) = fleet.servers, fleet.targets
        seen = visit(target, client_context(Version.TLS12, fleet.trust), sni="localhost", timeout_ms=5_000)

        assert server.kind == word
        assert word in DRIVERS
        assert isinstance(seen, Handshake)
        assert seen.key_name == operator.window.current.name
