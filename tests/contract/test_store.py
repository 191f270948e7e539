"""Every store keeps the one contract: the twin, Valkey and Redis 7.0."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyrotd.store.embedded import Embedded
from keyrotd.store.memory import MemoryServer, MemoryStore
from keyrotd.store.port import Store
from keyrotd.testing.store import CLAIMS, Claim
from tests.contract.stores import address, fresh_namespace, running, store_on


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
    namespace = fresh_namespace()

    with ExitStack() as opened:

        def make(ring: str) -> Store:
            store = store_on(address(server), ring=ring, namespace=namespace)
            opened.callback(store.close)
            return store

        claim(make)
