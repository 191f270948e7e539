"""The stores of several servers, started once for all who only use them; who breaks one starts one of his own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.topologies import Clustered, Watched, clustered, watched


@pytest.fixture(scope="session")
def fleet(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A primary, two replicas and three sentinels."""
    with watched(store_exe, tmp_path_factory.mktemp("fleet"), replicas=2) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def cluster(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """Three nodes with a third of the slots each."""
    with clustered(store_exe, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster
