"""The memory server has the days that real servers have."""

import os
import threading

import pytest

from keyrotd.core.errors import InstallFailed
from keyrotd.core.keys import in_step
from keyrotd.servers.port import ServerUnreachable
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.twins import MemoryServer

KEYS = some_keys(os.urandom, previous=2)


def test_it_seals_with_current_and_opens_what_fits() -> None:
    server = MemoryServer(slots=3)

    server.install(KEYS)

    assert server.sealing == KEYS.current
    assert [server.opens(stek.name) for stek in KEYS.opening] == [True, True, True, False]


def test_a_restart_without_a_file_loses_the_keys_and_shows_another_instance() -> None:
    server = MemoryServer()
    server.install(KEYS)
    before = server.observe().instance

    server.restart()

    assert server.sealing is None
    assert not in_step(server.observe(), KEYS)
    assert server.observe().instance != before


def test_a_file_brings_back_what_was_installed_and_not_what_somebody_pushed() -> None:
    server = MemoryServer(file=True)
    server.install(KEYS)
    server.meddle(rotated(KEYS, os.urandom))
    assert not in_step(server.observe(), KEYS)

    server.restart()

    assert in_step(server.observe(), KEYS)


def test_a_stopped_server_takes_the_file_and_starts_from_it() -> None:
    server = MemoryServer(file=True)
    server.stop()

    with pytest.raises(ServerUnreachable):
        server.install(KEYS)
    with pytest.raises(ServerUnreachable):
        server.observe()

    server.heal()
    assert in_step(server.observe(), KEYS)


def test_a_server_that_refuses_keeps_its_keys() -> None:
    server = MemoryServer()
    server.install(KEYS)
    server.fail(InstallFailed("server memory: full", hint="make room"))

    with pytest.raises(InstallFailed, match="server memory: full"):
        server.install(rotated(KEYS, os.urandom))

    assert server.sealing == KEYS.current


def test_a_server_that_hangs_goes_on_when_it_heals() -> None:
    server = MemoryServer()
    server.hang()
    install = threading.Thread(target=server.install, args=(KEYS,))
    install.start()
    assert server.sealing is None

    server.heal()

    install.join(10)
    assert server.sealing == KEYS.current
