"""What all tests share: the real servers, and an honest last word about those that are not here."""

from pathlib import Path

import pytest

from tests import servers_found


@pytest.fixture(scope="session", params=["wheel", pytest.param("debian", marks=pytest.mark.debian)])
def haproxy_exe(request: pytest.FixtureRequest) -> Path:
    """Each HAProxy in turn: 2.8 from its wheel, 2.6 from Debian."""
    return servers_found.wheel_haproxy() if request.param == "wheel" else servers_found.debian_haproxy()


@pytest.fixture(scope="session", params=["wheel", pytest.param("debian", marks=pytest.mark.debian)])
def store_exe(request: pytest.FixtureRequest) -> Path:
    """Each store server in turn: Valkey 9.1 from its wheel, Redis 7.0 from Debian."""
    return servers_found.wheel_valkey() if request.param == "wheel" else servers_found.debian_redis()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what this machine could not have run, whether or not a test asked for it."""
    lacking = servers_found.missing()
    if lacking:
        terminalreporter.section("not run on this machine")
        for what, hint in lacking.items():
            terminalreporter.line(f"{what}: {hint}")
