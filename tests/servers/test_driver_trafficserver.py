"""The driver of Traffic Server keeps what the port promises, nudged or not, over the real server."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keyrotd.core.keys import in_step
from keyrotd.servers.trafficserver import TrafficServerDriver
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import CLAIMS, Subject, rotated, some_keys
from keyrotd.testing.trafficserver import TrafficServer
from tests.trafficservers import Stage, ack, running

pytestmark = pytest.mark.debian


@pytest.fixture(scope="module")
def polled() -> Iterator[Stage]:
    """A node that looks often and is never nudged; its keys are of no window, so none is older than another."""
    with running(1, poll_ms=50, alone=True, window=False) as stage:
        yield stage


@pytest.fixture(scope="module")
def nudged() -> Iterator[Stage]:
    """A node that looks by itself once a minute."""
    with running(1, poll_ms=60_000, window=False) as stage:
        yield stage


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_it_keeps_what_the_port_promises(polled: Stage, claim: Callable[[Subject], None]) -> None:
    driver = driver_of(polled.node)

    claim(Subject(driver=driver, shut=lambda: silenced(polled.node)))


def test_a_nudge_is_enough(nudged: Stage) -> None:
    keys = some_keys(os.urandom, previous=1)
    driver = replace(driver_of(nudged.node), nudge=nudged.node.nudge)

    for _ in range(5):
        keys = rotated(keys, os.urandom)
        driver.install(keys)
        assert in_step(driver.observe(), keys)

    assert nudged.visit(nudged.node).key_name == keys.current.name


def test_what_the_operator_says_by_hand_is_a_nudge_too(nudged: Stage) -> None:
    keys, driver = some_keys(os.urandom, previous=0), driver_of(nudged.node)
    waiting = threading.Thread(target=driver.install, args=(keys,))
    waiting.start()

    while waiting.is_alive():
        nudged.node.control("plugin", "msg", "keyrotd", "look")
    waiting.join()

    assert in_step(driver.observe(), keys)


@pytest.mark.parametrize("socket", ["/nowhere/mgmtapi.sock", "/dev/null"])
def test_a_nudge_that_fails_is_no_error(polled: Stage, socket: str) -> None:
    keys = some_keys(os.urandom, previous=1)

    replace(driver_of(polled.node), nudge=Path(socket)).install(keys)

    assert in_step(driver_of(polled.node).observe(), keys)


def driver_of(node: TrafficServer) -> TrafficServerDriver:
    return TrafficServerDriver(
        name=node.name, key_file=node.key_file, ack_dir=node.ack_dir, group=node.group, timeout_ms=20_000
    )


@contextmanager
def silenced(node: TrafficServer) -> Iterator[None]:
    """Nobody hears what it acknowledges. It goes on looking at its file, and afterwards it has looked at it."""
    aside = node.ack_dir.with_suffix(".aside")
    node.ack_dir.rename(aside)
    yield
    aside.rename(node.ack_dir)
    before = ack(node).touched_at
    wait_until(lambda: ack(node).touched_at > before, "it looks again")
