"""Every scenario of the suite keeps its claims: no orphan ticket, no key beyond its bound, and all is well again."""

from pathlib import Path

import pytest

from tests.faults.suite.play import play
from tests.faults.suite.scenarios import SCENARIOS
from tests.servers_found import debian_redis, wheel_haproxy, wheel_valkey

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_fault_costs_a_ticket(name: str) -> None:
    """Whatever the store forgets and whoever dies, a ticket younger than T opens."""
    _keeps_its_claims(name, wheel_valkey())


@pytest.mark.debian
@pytest.mark.parametrize("name", ["old-snapshot", "failover-with-the-last-write-lost"])
def test_nor_where_redis_itself_goes_back_in_time(name: str) -> None:
    """What depends on the server's own snapshots and failovers holds for Redis 7.0 too."""
    _keeps_its_claims(name, debian_redis())


def _keeps_its_claims(name: str, store_exe: Path) -> None:
    verdict = play(SCENARIOS[name], store_exe=store_exe, haproxy_exe=wheel_haproxy())

    print(verdict)
    assert verdict.broken == ()
