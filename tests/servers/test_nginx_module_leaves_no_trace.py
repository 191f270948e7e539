"""Stock nginx with the C module: what left the window is nowhere in a worker's memory, and a storm costs none of it."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.testing.children import wait_until
from keyrotd.testing.nginx import ByModule
from tests.nginx_module import Stage, sanitized, staged
from tests.nginx_sites import BOTH_VERSIONS, Site, Window, new_window
from tests.process_memory import anonymous, copies

pytestmark = pytest.mark.debian

_MANY = 8
_WARMING_UP = 200
_INSTALLS = 2_000

#: nginx's and OpenSSL's own allocations breathe; 80 bytes for each install would not fit in.
_BREATH_BYTES = 128 * 1024


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def test_retired_keys_are_gone_once_the_new_window_is_acknowledged(stage: Stage) -> None:
    """Each secret of the window stands in one place of a worker's memory; of those that left it, in none."""
    window = new_window()
    site = stage.started("a", window)
    _use(stage, site)
    seen = list(window.keys)
    for _ in range(3):
        window = window.rotated(keep=2)
        site.install(window)
        _use(stage, site)
        seen += window.keys

    live = [key for key in seen if key.name in window.names]
    gone = [key for key in seen if key.name not in window.names]
    for worker in site.nginx.workers:
        assert copies(worker, live) == {key.name.hex(): (1, 1) for key in live}
        assert copies(worker, gone) == {key.name.hex(): (0, 0) for key in gone}
    assert copies(site.nginx.master, seen) == {key.name.hex(): (0, 0) for key in seen}


def test_nothing_is_left_of_a_refused_file_or_of_expired_keys(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=300, opens_ms=600)
    spoilt = new_window()
    site = stage.started("a", window)
    site.wait_for_fault("expired")

    site.write(spoilt.content[:-1] + bytes([spoilt.content[-1] ^ 1]))
    site.wait_for_fault("bad-digest")

    for worker in site.nginx.workers:
        assert set(copies(worker, (*window.keys, *spoilt.keys)).values()) == {(0, 0)}


def test_a_worker_that_serves_its_last_connection_goes_on_reading(stage: Stage) -> None:
    """After a reload it may live for as long as somebody's download; what left the window leaves it too."""
    window = new_window()
    site = stage.started("a", window)
    with half_a_request(site, stage.ca):
        old = set(site.nginx.workers)
        site.nginx.signal(signal.SIGHUP)
        wait_until(lambda: bool(acknowledging(site)) and not acknowledging(site) & old, "new workers acknowledge alone")
        (last,) = old & set(site.nginx.workers)
        assert copies(last, window.keys) == {key.name.hex(): (1, 1) for key in window.keys}

        site.install(new_window())

        wait_until(lambda: set(copies(last, window.keys).values()) == {(0, 0)}, "it has none of them")


@contextmanager
def half_a_request(site: Site, ca: Path) -> Iterator[None]:
    """Somebody whom no worker may leave alone."""
    context = ssl.create_default_context(cafile=str(ca))
    port = site.nginx.port
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as line,
    ):
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        yield


def acknowledging(site: Site) -> set[int]:
    return {ack.pid for ack in site.acks()}


def test_keys_are_kept_out_of_core_dumps(stage: Stage) -> None:
    site = stage.started("a", new_window())

    for worker in site.nginx.workers:
        mappings = Path(f"/proc/{worker}/smaps").read_text().split("VmFlags: ")
        assert any({"dd", "lo"} <= set(flags.splitlines()[0].split()) for flags in mappings[1:])


def test_thousands_of_installs_do_not_grow_a_worker(stage: Stage) -> None:
    """Installs as fast as a worker looks, most of them good, in between handshakes of both kinds."""
    site = stage.started("a", window := new_window(), poll_ms=1)
    workers = site.nginx.workers

    window = _storm(stage, site, window, installs=_WARMING_UP)
    settled = [anonymous(worker) for worker in workers]
    _storm(stage, site, window, installs=_INSTALLS)

    grown = [anonymous(worker) - before for worker, before in zip(workers, settled, strict=True)]
    said = site.nginx.said("keys in 4 SSL contexts")
    print(f"\n{said} installs in {len(workers)} workers, one has grown by {max(grown)} bytes at most")
    assert site.nginx.workers == workers
    assert max(grown) < _BREATH_BYTES
    assert said >= _INSTALLS


def test_a_storm_of_installs_shows_sanitizers_nothing(stage: Stage) -> None:
    stage.exe, built = sanitized()
    stage.intake = ByModule(built, poll_ms=1)
    site = stage.started("a", window := new_window())
    workers = site.nginx.workers

    _storm(stage, site, window, installs=_WARMING_UP)
    site.nginx.reload()
    site.nginx.restart()

    assert not set(site.nginx.workers) & set(workers)
    assert site.nginx.said("Sanitizer") + site.nginx.said("runtime error") == 0


def _storm(stage: Stage, site: Site, window: Window, *, installs: int) -> Window:
    spoilt = window.content[:-1] + bytes([window.content[-1] ^ 1])
    for number in range(1, installs + 1):
        window = window.rotated(keep=4)
        if number % 50 == 0:
            site.write(spoilt)
            site.wait_for_fault("bad-digest")
            site.install(window)
            _use(stage, site)
        else:
            site.write(window.content)
            _wait_for_one(site, window)
    site.install(replace(window, step=1))
    return window


def _wait_for_one(site: Site, window: Window) -> None:
    wait_until(lambda: any(ack.digest == window.digest for ack in site.acks()), "a worker has it")


def _use(stage: Stage, site: Site) -> None:
    for client in map(stage.client, BOTH_VERSIONS):
        for target in site.targets:
            shake = client.visit(target)
            assert [client.resumes(shake, target) for _ in range(_MANY)] == [True] * _MANY
