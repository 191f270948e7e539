"""Every store keeps the one contract: the twin, Valkey and Redis 7.0, alone, behind sentinels and as a cluster."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyrotd.store.addresses import Address
from keyrotd.store.embedded import Embedded
from keyrotd.store.memory import MemoryServer, MemoryStore
from keyrotd.store.port import Store
from keyrotd.testing.store import CLAIMS, Claim
from tests.contract.stores import address, fresh_namespace, running, store_on
from tests.contract.topologies import Clustered, Watched


@pytest.fixture(scope="module")
def server(store_exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with running(store_exe, tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_memory_keeps_the_contract(claim: Claim) -> None:
    memory = MemoryServer(lambda: time.time_ns() // 1_000_000)

    claim(lambda ring: MemoryStore(ring, memory))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_redis_keeps_the_contract(claim: Claim, server: Embedded) -> None:
    keeps(address(server), claim)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_what_sentinels_watch_keeps_the_contract(claim: Claim, fleet: Watched) -> None:
    keeps(fleet.address, claim)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_a_cluster_keeps_the_contract(claim: Claim, cluster: Clustered) -> None:
    keeps(cluster.address, claim)


def keeps(where: Address, claim: Claim) -> None:
    namespace = fresh_namespace()

    with ExitStack() as opened:

        def make(ring: str) -> Store:
            store = store_on(where, ring=ring, namespace=namespace)
            opened.callback(store.close)
            return store

        claim(make)
