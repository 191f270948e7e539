"""Stock nginx with the C module, through whatever happens to processes and files: it serves, and the window stays."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from keyrotd.servers import files
from keyrotd.testing.children import wait_until
from keyrotd.tls.handshake import Version
from tests.nginx_module import Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, Site, Window, new_window

pytestmark = pytest.mark.debian

_MANY = 8


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def _reload(site: Site) -> None:
    site.nginx.reload()


def _kill_a_worker(site: Site) -> None:
    before = site.nginx.workers
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(site.nginx.workers) == WORKERS and before[0] not in site.nginx.workers, "there is another")


def _restart(site: Site) -> None:
    site.nginx.restart()


def _upgrade(site: Site) -> None:
    old = site.nginx.master
    os.kill(old, signal.SIGUSR2)
    wait_until(lambda: len(site.acks()) == 2 * WORKERS, "the new binary's workers are there too")
    os.kill(old, signal.SIGQUIT)
    wait_until(lambda: not Path(f"/proc/{old}").exists(), "the old binary is gone")
    assert {ack.parent for ack in site.acks()} == {site.nginx.master} != {old}


@pytest.mark.parametrize("happens", [_reload, _kill_a_worker, _restart, _upgrade])
def test_the_window_is_there_before_the_first_connection_after(stage: Stage, happens: Callable[[Site], None]) -> None:
    """Tickets from before resume on every worker, and what comes into the file next is taken by all that live."""
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
    assert {ack.pid for ack in site.acks()} == set(site.nginx.workers)


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
    client, target = stage.client(Version.TLS13), site.targets[0]
    shake = client.visit(target)

    spoil(site, window.rotated())
    site.wait_for_fault(fault)
    site.wait_for_polls()

    assert [ack.digest for ack in site.acks()] == [window.digest] * WORKERS
    assert client.sealed_by(target) == window.keys[0].name
    assert [client.resumes(shake, target) for _ in range(_MANY)] == [True] * _MANY
    assert site.nginx.said(f'"{site.key_file}" is refused: {fault}; former keys stay') == WORKERS
    site.install(window.rotated())
    site.wait_for_fault(None)


def test_a_worker_that_starts_without_a_good_file_says_so_and_takes_the_next(stage: Stage) -> None:
    """The others keep what they have; the one starts with nginx's own keys, as every nginx does."""
    window = new_window()
    site = stage.started("a", window)
    site.key_file.unlink()
    site.wait_for_fault("missing")

    _kill_a_worker(site)
    wait_until(lambda: site.nginx.said("is refused: missing; nginx's own keys stay") == 1, "the new worker says so")
    site.install(window)

    assert [stage.client(Version.TLS12).sealed_by(site.targets[0]) for _ in range(_MANY)] == [
        window.keys[0].name
    ] * _MANY


def test_acknowledging_in_vain_is_said_once_and_keys_go_in(stage: Stage) -> None:
    window = new_window()
    site = stage.site("a", window)
    site.nginx.ack_dir.rmdir()
    site.nginx.ack_dir.write_text("in the way")

    site.nginx.start()
    wait_until(lambda: site.nginx.said("acknowledging in keyrotd_ack_dir") == WORKERS, "both say so")
    client = stage.client(Version.TLS13)

    assert client.sealed_by(site.targets[0]) == window.keys[0].name
    site.nginx.ack_dir.unlink()
    site.nginx.ack_dir.mkdir()
    wait_until(lambda: len(site.acks()) == WORKERS, "they acknowledge again")
    assert site.nginx.said("acknowledging in keyrotd_ack_dir") == WORKERS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's nginx changes its workers' user")
def test_workers_of_another_user_read_their_group_and_find_a_place_to_acknowledge(stage: Stage) -> None:
    """The directory is made by the master where it is missing, as after a boot."""
    window = new_window()
    site = stage.site("a")
    site.nginx.user = "www-data"
    site.nginx.ack_dir.rmdir()
    files.write(site.key_file, window.content, files.Access(mode=0o640, group="www-data"))

    site.start()
    site.wait_for(window)

    assert site.nginx.ack_dir.owner() == "www-data"
    assert {path.owner() for path in site.nginx.ack_dir.iterdir()} == {"www-data"}
    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_who_leaves_takes_the_acknowledgement_along(stage: Stage, number: signal.Signals) -> None:
    """Whether nginx stops at once or serves what it has first."""
    site = stage.started("a", new_window())

    site.nginx.signal(number)
    wait_until(lambda: not (site.nginx.directory / "pid").exists(), "nginx has ended")

    assert list(site.nginx.ack_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("keyrotd_key_file /a;", "keyrotd_key_file and keyrotd_ack_dir go together, one of them is missing"),
        ("keyrotd_ack_dir /a;", "keyrotd_key_file and keyrotd_ack_dir go together, one of them is missing"),
        (
            "keyrotd_key_file /a; keyrotd_ack_dir /b; keyrotd_poll_interval 2m;",
            "keyrotd_poll_interval is 120000 ms, not within 1 ms and 60000 ms",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_and_a_running_nginx_goes_on(
    stage: Stage, lines: str, words: str
) -> None:
    window = new_window()
    site = stage.started("a", window)
    workers, config = site.nginx.workers, site.nginx.directory / "nginx.conf"
    text = config.read_text()
    directives = [line for line in text.splitlines() if line.startswith("keyrotd_")]
    for directive in directives:
        text = text.replace(f"{directive}\n", "")
    config.write_text(text.replace("events {", f"{lines}\nevents {{"))

    site.nginx.signal(signal.SIGHUP)
    wait_until(lambda: site.nginx.said(words) == 1, "nginx says what is wrong")
    site.wait_for_polls()

    assert site.nginx.workers == workers
    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name


def test_a_reload_that_takes_the_directives_away_gives_nginx_its_own_keys_back(stage: Stage) -> None:
    window = new_window()
    site = stage.started("a", window)
    config = site.nginx.directory / "nginx.conf"
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if not line.startswith("keyrotd_")))

    site.nginx.reload()

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) not in window.names
    wait_until(lambda: site.acks() == (), "nobody acknowledges")


def _of_another_boot(window: Window) -> Window:
    return replace(window.bounded(seals_ms=60_000, opens_ms=60_000), boot_id=str(UUID(int=1)))
