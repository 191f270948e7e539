"""nginx with the Lua reader and nobody to write a new file: no shared key seals or opens beyond its bound."""

from collections.abc import Iterator

import pytest

from keyrotd.testing.children import wait_until
from keyrotd.tls.handshake import Handshake, Version
from keyrotd.tls.target import Target
from tests.nginx_lua import Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, Client, Window, boot_ms, new_window

pytestmark = pytest.mark.debian

_MANY = 8

#: No poll comes to help: the bounds must be met by timers of their own.
_SLOW_POLL_MS = 30_000


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


def test_keys_end_at_their_bounds_without_a_poll(stage: Stage) -> None:
    """Past the first a worker seals with a key of its own and opens the file's; past the second nothing opens."""
    site = stage.site("a")
    site.reader.poll_ms = _SLOW_POLL_MS
    window = new_window().bounded(seals_ms=1_500, opens_ms=3_500)
    site.write(window.content)
    site.start()
    clients, target = [stage.client(version) for version in BOTH_VERSIONS], site.targets[0]
    shakes = [client.visit(target) for client in clients]
    assert {shake.key_name for shake in shakes} == {window.keys[0].name}
    assert boot_ms() < _bounds(window)[0]

    _wait_for_boot_ms(_bounds(window)[0])
    sealed_by = {client.sealed_by(target) for client in clients for _ in range(_MANY)}
    opened = _resumed(clients, shakes, target)
    assert boot_ms() < _bounds(window)[1]
    assert len(sealed_by) == WORKERS, "each worker has a key that nobody shares"
    assert not sealed_by & window.names
    assert opened == {True}
    assert [(ack.digest, ack.seals, ack.fault) for ack in site.acks()] == [(window.digest, None, None)] * WORKERS

    _wait_for_boot_ms(_bounds(window)[1])
    assert _resumed(clients, shakes, target) == {False}
    assert [(ack.digest, ack.seals, ack.fault) for ack in site.acks()] == [(None, None, "expired")] * WORKERS


def test_a_window_that_comes_late_is_taken_and_the_lonely_key_goes(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=-1, opens_ms=60_000)
    site = stage.started("a", window)
    client, target = stage.client(Version.TLS13), site.targets[0]
    alone = client.visit(target)
    assert alone.key_name not in window.names
    late = window.rotated().bounded(seals_ms=60_000, opens_ms=120_000)

    site.install(late)

    assert client.sealed_by(target) == late.keys[0].name
    assert [client.resumes(alone, target) for _ in range(_MANY)] == [False] * _MANY


def test_a_lonely_key_seals_no_longer_than_tickets_of_the_window_open(stage: Stage) -> None:
    """Whoever is left alone for long does not seal with one key for ever."""
    window = new_window().bounded(seals_ms=-1, opens_ms=400)
    site = stage.started("a", window)
    client, target = stage.client(Version.TLS13), site.targets[0]

    seen: set[bytes | None] = set()

    def more_than_one_each() -> bool:
        seen.add(client.sealed_by(target))
        return len(seen) > 2 * WORKERS

    wait_until(more_than_one_each, "workers change their own keys")

    assert not seen & window.names


def test_bounds_may_move_under_the_same_keys(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=-1, opens_ms=60_000)
    site = stage.started("a", window)
    client, target = stage.client(Version.TLS13), site.targets[0]
    assert client.sealed_by(target) not in window.names

    site.install(window.bounded(seals_ms=60_000, opens_ms=120_000))

    assert client.sealed_by(target) == window.keys[0].name


def _resumed(clients: list[Client], shakes: list[Handshake], target: Target) -> set[bool]:
    pairs = zip(clients, shakes, strict=True)
    return {client.resumes(shake, target) for client, shake in pairs for _ in range(_MANY)}


def _bounds(window: Window) -> tuple[int, int]:
    assert window.seals_until_ms is not None
    assert window.opens_until_ms is not None
    return window.seals_until_ms, window.opens_until_ms


def _wait_for_boot_ms(instant_ms: int) -> None:
    # nginx's timers may be some ms late, as any are.
    wait_until(lambda: boot_ms() > instant_ms + 100, "the bound has passed")
