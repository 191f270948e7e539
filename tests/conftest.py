"""What all tests share: the real servers, and an honest last word about those that are not here."""

from functools import partial
from pathlib import Path

import pytest

from keyrotd.testing.envoy import Envoy
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import Maker
from keyrotd.testing.nginx import ByLua, ByModule, Nginx
from keyrotd.testing.trafficserver import TrafficServer
from tests import nginx_lua, nginx_module, servers_found, trafficservers

_DEBIAN = pytest.mark.debian


@pytest.fixture(scope="session", params=["wheel", pytest.param("debian", marks=_DEBIAN)])
def haproxy_exe(request: pytest.FixtureRequest) -> Path:
    """Each HAProxy in turn: 2.8 from its wheel, 2.6 from Debian."""
    return servers_found.wheel_haproxy() if request.param == "wheel" else servers_found.debian_haproxy()


@pytest.fixture(scope="session", params=["wheel", pytest.param("debian", marks=_DEBIAN)])
def store_exe(request: pytest.FixtureRequest) -> Path:
    """Each store server in turn: Valkey 9.1 from its wheel, Redis 7.0 from Debian."""
    return servers_found.wheel_valkey() if request.param == "wheel" else servers_found.debian_redis()


#: Every kind of server that scenarios over whole fleets run on: one line each, and they all do.
KINDS = (
    pytest.param(lambda: partial(HAProxy, exe=servers_found.wheel_haproxy()), id="haproxy"),
    pytest.param(lambda: partial(Envoy, exe=servers_found.wheel_envoy()), id="envoy"),
    pytest.param(lambda: partial(HAProxy, exe=servers_found.debian_haproxy()), id="debian-haproxy", marks=_DEBIAN),
    pytest.param(
        lambda: partial(Nginx, exe=nginx_module.nginx_exe(), intake=ByModule(nginx_module.module())),
        id="nginx-module",
        marks=_DEBIAN,
    ),
    pytest.param(
        lambda: partial(Nginx, exe=servers_found.debian_nginx_lua(), intake=ByLua(nginx_lua.LUA)),
        id="nginx-lua",
        marks=_DEBIAN,
    ),
    pytest.param(
        lambda: partial(TrafficServer, exe=servers_found.traffic_server(), plugin=trafficservers.plugin()),
        id="trafficserver",
        marks=_DEBIAN,
    ),
)


@pytest.fixture(scope="session", params=KINDS)
def maker(request: pytest.FixtureRequest) -> Maker:
    """How a fleet gets its servers, of each kind in turn."""
    found: Maker = request.param()
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not have run, whether or not a test asked for it."""
    lacking = servers_found.missing()
    if lacking:
        terminalreporter.section("not run on this machine")
        for what, hint in lacking.items():
            terminalreporter.line(f"{what}: {hint}")
