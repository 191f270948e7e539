"""Stock nginx with the C module: every worker and server takes the file's keys, while it runs, and those alone."""

import os
from collections.abc import Iterator

import pytest

from keyrotd.tls.handshake import Version
from tests.nginx_module import Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, new_window

pytestmark = pytest.mark.debian

#: Enough connections that the kernel gives each of two workers one, all but surely.
_MANY = 8


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_a_ticket_of_one_nginx_resumes_on_every_worker_of_another(stage: Stage, version: Version) -> None:
    """On http, on another port, on stream, under another name: from the first connection on."""
    window = new_window()
    a, b = stage.started("a", window), stage.started("b", window)
    client = stage.client(version)

    for ours, theirs in zip(a.targets, b.targets, strict=True):
        shake = client.visit(ours)

        assert shake.key_name == window.keys[0].name
        assert [client.resumes(shake, theirs) for _ in range(_MANY)] == [True] * _MANY
    assert client.resumes(client.visit(a.targets[0]), b.targets[1])
    found = [(ack.digest, ack.seals, ack.epoch, ack.contexts, ack.fault) for ack in (*a.acks(), *b.acks())]
    assert found == [(window.digest, window.keys[0].name.hex(), 1, 4, None)] * (2 * WORKERS)


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_a_key_that_left_the_window_opens_nothing_and_a_new_one_seals(stage: Stage, version: Version) -> None:
    """The same workers, three windows: next opens before it seals, previous opens after it, and then no more."""
    first = new_window()
    site = stage.started("a", first)
    client, target, workers = stage.client(version), site.targets[0], site.nginx.workers
    old = client.visit(target)

    second = first.rotated()
    site.install(second)
    assert client.sealed_by(target) == first.keys[1].name
    assert [client.resumes(old, target) for _ in range(_MANY)] == [True] * _MANY

    third = second.rotated(keep=2)
    site.install(third)
    assert client.sealed_by(target) == second.keys[1].name
    assert [client.resumes(old, target) for _ in range(_MANY)] == [False] * _MANY
    assert site.nginx.workers == workers


def test_whoever_resumes_under_an_older_key_is_given_a_ticket_of_the_new_one(stage: Stage) -> None:
    """In TLS 1.2 too, where a server may or may not renew."""
    first = new_window()
    site = stage.started("a", first)
    client = stage.client(Version.TLS12)
    old = client.visit(site.targets[0])

    site.install(first.rotated())

    assert client.resume(old, site.targets[0]).key_name == first.keys[1].name


def test_as_many_keys_as_a_file_holds_open(stage: Stage) -> None:
    window = new_window()
    site = stage.started("a", window)
    client, target = stage.client(Version.TLS13), site.targets[0]
    oldest = client.visit(target)
    for _ in range(94):
        window = window.rotated(keep=96)

    site.install(window)

    assert len(window.keys) == 96
    assert window.keys[-1].name == oldest.key_name
    assert client.resumes(oldest, target)


def test_without_a_good_file_nginx_goes_on_with_its_own_keys_until_one_comes(stage: Stage) -> None:
    site = stage.started("a")
    site.wait_for_fault("missing")
    client, target = stage.client(Version.TLS12), site.targets[0]
    own = client.visit(target)
    assert [client.resumes(own, target) for _ in range(_MANY)] == [True] * _MANY
    assert [(ack.digest, ack.seals, ack.contexts) for ack in site.acks()] == [(None, None, 0)] * WORKERS

    window = new_window()
    site.install(window)

    assert client.sealed_by(target) == window.keys[0].name
    assert [client.resumes(own, target) for _ in range(_MANY)] == [False] * _MANY


def test_the_files_keys_come_before_a_configured_one(stage: Stage) -> None:
    """What a site had before it had keyrotd, `ssl_session_ticket_key`, need not go first."""
    window = new_window()
    site = stage.site("a", window)
    cold = site.nginx.directory / "cold.key"
    cold.write_bytes(os.urandom(80))
    site.nginx.amend = lambda text: text.replace("ssl_session_cache off;", f"ssl_session_ticket_key {cold};")

    site.start()

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name


def test_a_server_that_wants_no_tickets_gives_none(stage: Stage) -> None:
    site = stage.site("a", new_window())
    port = site.nginx.ports[2]
    listen = f"listen 127.0.0.1:{port} ssl reuseport;"
    site.nginx.amend = lambda text: text.replace(listen, f"{listen} ssl_session_tickets off;")

    site.start()

    assert stage.client(Version.TLS12).visit(site.targets[2]).key_name is None


def test_a_server_behind_one_that_wants_no_tickets_seals_with_the_files_keys(stage: Stage) -> None:
    """OpenSSL asks the listener's default server, also for those whose own tickets are on."""
    window = new_window()
    site = stage.site("a", window)
    site.nginx.amend = lambda text: text.replace(
        "server_name localhost;", "server_name first.test; ssl_session_tickets off;", 1
    ).replace("server_name other.test;", "server_name localhost;")
    site.start()

    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == window.keys[0].name
