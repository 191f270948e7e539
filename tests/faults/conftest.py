"""Rings to be broken: over a store of all, or over one of its own where the store is what breaks."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from keyrotd.store.embedded import Embedded
from tests.contract.stores import address, running
from tests.faults.rig import Rig
from tests.servers_found import wheel_valkey


@pytest.fixture
def short_path() -> Iterator[Path]:
    with TemporaryDirectory(prefix="kf", dir="/tmp") as directory:  # a Unix socket's path must be short
        yield Path(directory)


@pytest.fixture(scope="session")
def shared_store() -> Iterator[Embedded]:
    with TemporaryDirectory(prefix="kf", dir="/tmp") as directory, running(wheel_valkey(), Path(directory)) as store:
        yield store


@pytest.fixture
def own_store(short_path: Path) -> Iterator[Embedded]:
    """A store to be stopped, slowed or emptied."""
    with running(wheel_valkey(), short_path / "db") as store:
        yield store
        if store.running:
            os.kill(store.pid, signal.SIGCONT)


@pytest.fixture
def rig(shared_store: Embedded, short_path: Path) -> Iterator[Rig]:
    rig = Rig(address(shared_store), short_path)
    yield rig
    rig.close()


@pytest.fixture
def own_rig(own_store: Embedded, short_path: Path) -> Iterator[Rig]:
    rig = Rig(address(own_store), short_path)
    yield rig
    rig.close()
