"""nginx with the Lua reader, through whatever happens to processes and files: it serves, and the window stays."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from keyrotd.core.stek import Scheme
from keyrotd.testing.children import wait_until
from keyrotd.tls.handshake import Handshake, Version
from tests.nginx_lua import Site, Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, Client, Window, new_window
from tests.process_memory import writable

pytestmark = pytest.mark.debian

_MANY = 8
_FAILED = "the reader itself failed"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def _reload(site: Site) -> None:
    before = site.workers
    site.nginx.signal(signal.SIGHUP)
    wait_until(lambda: len(site.workers) == WORKERS and not set(site.workers) & set(before), "new workers, only they")


def _kill_a_worker(site: Site) -> None:
    before = site.workers
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(site.workers) == WORKERS and before[0] not in site.workers, "there is another worker")


def _restart(site: Site) -> None:
    site.nginx.stop()
    site.start()


def _upgrade(site: Site) -> None:
    old = site.nginx.master
    site.nginx.signal(signal.SIGUSR2)
    wait_until(lambda: len(site.workers) == 2 * WORKERS, "the new binary's workers are there too")
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: len(site.workers) == WORKERS, "the old binary's workers are gone")
    assert {ack.parent for ack in site.acks()} == {site.nginx.master} != {old}


@pytest.mark.parametrize("happens", [_reload, _kill_a_worker, _restart, _upgrade])
def test_the_window_is_there_before_the_first_connection_after(stage: Stage, happens: Callable[[Site], None]) -> None:
    """Tickets from before resume on every worker, and what came into the file meanwhile is taken."""
    first = new_window()
    site = stage.site("a", first)
    site.nginx.daemon = happens is _upgrade
    site.start()
    clients = [stage.client(version) for version in BOTH_VERSIONS]
    shakes = [[client.visit(target) for target in site.targets] for client in clients]

    happens(site)

    for client, held in zip(clients, shakes, strict=True):
        for shake, target in zip(held, site.targets, strict=True):
            assert [client.resumes(shake, target) for _ in range(_MANY)] == [True] * _MANY
            assert client.sealed_by(target) == first.keys[0].name
    site.install(first.rotated())
    assert clients[0].sealed_by(site.targets[0]) == first.keys[1].name


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("missing", lambda site, _: site.key_file.unlink()),
        ("bad-file", lambda site, window: site.write(window.content, mode=0o666)),
        ("bad-magic", lambda site, _: site.write(b"")),
        ("bad-length", lambda site, window: site.write(window.content[:-1])),
        ("bad-digest", lambda site, window: site.write(window.content[:-1] + bytes([window.content[-1] ^ 1]))),
        ("older", lambda site, window: site.write(replace(window, epoch=6).content)),
        ("other-boot", lambda site, window: site.write(_of_another_boot(window).content)),
        ("expired", lambda site, window: site.write(window.bounded(seals_ms=-2, opens_ms=-1).content)),
    ],
)
def test_a_file_that_is_not_good_changes_nothing_and_is_said_once(
    stage: Stage, fault: str, spoil: Callable[[Site, Window], None]
) -> None:
    """By every worker, in nginx's log and in its acknowledgement; the next good file is taken."""
    window = replace(new_window(), epoch=7)
    site = stage.started("a", window)
    client = stage.client(Version.TLS13)
    shake = client.visit(site.targets[0])

    spoil(site, window.rotated())
    site.wait_for_fault(fault)
    site.wait_for_polls()

    _nothing_changed(site, window, client, shake)
    assert site.nginx.said(f"{site.key_file}: {fault}") == WORKERS
    assert site.nginx.said("epoch 7 stays") == WORKERS
    site.install(window.rotated())
    site.wait_for_fault(None)


def test_a_failure_of_the_reader_itself_leaves_the_keys_and_is_said_once(stage: Stage) -> None:
    """As after an upgrade of a library that it rests on; the next window is taken."""
    window = new_window()
    site = stage.site("a", window)
    site.reader.before = """
        local keyfile, parses = require "keyrotd.keyfile", 0
        local parse = keyfile.parse
        keyfile.parse = function(...)
            parses = parses + 1
            return parses == 2 and error("it failed") or parse(...)
        end
    """
    site.start()
    lost = window.rotated()

    site.write(lost.content)
    wait_until(lambda: site.nginx.said(_FAILED) == WORKERS, "both workers say so")
    site.wait_for_polls()

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name
    assert site.nginx.said(_FAILED) == WORKERS
    assert [writable(pid).count(lost.keys[1].secrets(Scheme.AES256).aes) for pid in site.workers] == [0] * WORKERS
    site.install(lost.rotated())
    site.nginx.log.write_text("")  # it was meant


def test_an_unwritable_acknowledgement_is_said_and_keys_go_in(stage: Stage) -> None:
    window = new_window()
    site = stage.site("a", window)
    site.nginx.ack_dir.rmdir()

    site.nginx.start()
    wait_until(lambda: site.nginx.said("cannot be written (No such file or directory)") == WORKERS, "both say so")

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_who_leaves_takes_the_acknowledgement_along(stage: Stage, number: signal.Signals) -> None:
    """Whether nginx stops at once or serves what it has first."""
    site = stage.started("a", new_window())

    site.nginx.signal(number)
    wait_until(lambda: not (site.nginx.directory / "pid").exists(), "nginx has ended")

    assert list(site.nginx.ack_dir.iterdir()) == []


def test_what_a_killed_worker_left_is_swept_up(stage: Stage) -> None:
    """Else the next window would wait for it."""
    site = stage.started("a", new_window())

    _kill_a_worker(site)

    assert {path.name for path in site.nginx.ack_dir.iterdir()} == {str(pid) for pid in site.workers}


def test_a_second_start_is_refused(stage: Stage) -> None:
    site = stage.site("a", new_window())
    site.reader.after = 'require("keyrotd").start { key_file = "/another", ack_dir = "/another" }'

    site.start()
    wait_until(lambda: site.nginx.said("start is called twice") == WORKERS, "both workers say so")

    assert [ack.fault for ack in site.acks()] == [None] * WORKERS


def _of_another_boot(window: Window) -> Window:
    return replace(window.bounded(seals_ms=60_000, opens_ms=60_000), boot_id=str(UUID(int=1)))


def _nothing_changed(site: Site, window: Window, client: Client, shake: Handshake) -> None:
    assert [ack.digest for ack in site.acks()] == [window.digest] * WORKERS
    assert client.sealed_by(site.targets[0]) == window.keys[0].name
    assert [client.resumes(shake, site.targets[0]) for _ in range(_MANY)] == [True] * _MANY
