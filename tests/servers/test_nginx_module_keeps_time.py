"""Stock nginx with the C module and nobody to write a new file: no shared key seals or opens beyond its bound."""

from collections.abc import Iterator

import pytest

from keyrotd.testing.children import wait_until
from keyrotd.tls.handshake import Version
from tests.nginx_module import Stage, staged
from tests.nginx_sites import BOTH_VERSIONS, WORKERS, Window, boot_ms, new_window

pytestmark = pytest.mark.debian

_MANY = 8

#: No poll comes to help: each handshake asks the clock.
_SLOW_POLL_MS = 30_000


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("version", BOTH_VERSIONS)
def test_keys_end_at_their_bounds_without_a_poll(stage: Stage, version: Version) -> None:
    """Past the first no ticket is given and the file's still open; past the second none opens, and all still serves."""
    window = new_window().bounded(seals_ms=1_500, opens_ms=3_000)
    site = stage.started("a", window, poll_ms=_SLOW_POLL_MS)
    client = stage.client(version)
    shakes = [client.visit(target) for target in site.targets]
    assert [shake.key_name for shake in shakes] == [window.keys[0].name] * 3
    assert boot_ms() < _bounds(window)[0]

    _wait_for_boot_ms(_bounds(window)[0])
    assert [client.sealed_by(target) for target in site.targets] == [None] * 3
    opened = [
        client.resumes(shake, target) for shake, target in zip(shakes, site.targets, strict=True) for _ in range(_MANY)
    ]
    assert boot_ms() < _bounds(window)[1]
    assert opened == [True] * (3 * _MANY)

    _wait_for_boot_ms(_bounds(window)[1])
    assert [client.resumes(shakes[0], site.targets[0]) for _ in range(_MANY)] == [False] * _MANY
    assert client.sealed_by(site.targets[0]) is None


def test_what_time_did_is_acknowledged_and_a_late_window_is_taken(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=400, opens_ms=1_200)
    site = stage.started("a", window)
    wait_until(
        lambda: [(ack.digest, ack.seals, ack.fault) for ack in site.acks()] == [(window.digest, None, None)] * WORKERS,
        "no worker seals",
    )

    site.wait_for_fault("expired")
    assert [(ack.digest, ack.seals, ack.epoch, ack.installed_at) for ack in site.acks()] == [
        (None, None, 0, 0)
    ] * WORKERS
    assert site.nginx.said("the time of all keys is over") == WORKERS

    late = window.rotated().bounded(seals_ms=60_000, opens_ms=120_000)
    site.install(late)
    assert stage.client(Version.TLS13).sealed_by(site.targets[0]) == late.keys[0].name


def test_bounds_may_move_under_the_same_keys(stage: Stage) -> None:
    window = new_window().bounded(seals_ms=-1, opens_ms=60_000)
    site = stage.started("a", window)
    client, target = stage.client(Version.TLS13), site.targets[0]
    assert client.sealed_by(target) is None

    site.install(window.bounded(seals_ms=60_000, opens_ms=120_000))

    assert client.sealed_by(target) == window.keys[0].name


def test_a_lower_epoch_is_older_even_when_the_higher_one_has_expired(stage: Stage) -> None:
    """What a process has seen it remembers, keys or no keys."""
    older = new_window()
    newer = older.rotated()
    site = stage.started("a", newer)
    site.write(newer.bounded(seals_ms=300, opens_ms=600).content)
    site.wait_for_fault("expired")

    site.write(older.content)

    site.wait_for_fault("older")


def _bounds(window: Window) -> tuple[int, int]:
    assert window.seals_until_ms is not None
    assert window.opens_until_ms is not None
    return window.seals_until_ms, window.opens_until_ms


def _wait_for_boot_ms(instant_ms: int) -> None:
    wait_until(lambda: boot_ms() >= instant_ms, "the bound has passed")
