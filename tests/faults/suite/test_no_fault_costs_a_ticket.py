"""Every scenario of the suite keeps its claims: no orphan ticket, no key beyond its bound, and all is well again."""

import pytest

from tests.faults.suite.play import play
from tests.faults.suite.scenarios import SCENARIOS, Scenario
from tests.servers_found import wheel_haproxy, wheel_valkey


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_no_fault_costs_a_ticket(scenario: Scenario) -> None:
    verdict = play(scenario, store_exe=wheel_valkey(), haproxy_exe=wheel_haproxy())

    print(verdict)
    assert verdict.broken == ()
