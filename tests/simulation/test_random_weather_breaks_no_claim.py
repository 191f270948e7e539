"""Seeds: bad weather of every kind, then calm, in which everything heals. Longer: python -m tests.simulation."""

import pytest

from tests.simulation.claims import Broken, Orphan
from tests.simulation.mutations import (
    Mutation,
    constant_slack,
    no_gate,
    no_next,
    patient_servers,
)
from tests.simulation.runs import run

#: Enough to meet every kind of misfortune on every kind of fleet; a long run has ten thousand.
SEEDS = range(1, 11)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_claim_is_broken(seed: int) -> None:
    done = run(seed)

    assert done.handshakes > 0


@pytest.mark.parametrize("mutation", [no_gate, no_next, constant_slack])
def test_a_fault_in_the_protocol_is_found_as_an_orphan(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation(monkeypatch)

    with pytest.raises(Orphan):
        _run_until_found(Orphan)


def test_a_bound_that_is_not_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    patient_servers(monkeypatch)

    with pytest.raises(Broken):
        _run_until_found(Broken)


def _run_until_found(fault: type[Broken], within: int = 30) -> None:
    """Run seed after seed up to the first that shows such a fault."""
    for seed in range(1, within + 1):
        try:
            run(seed)
        except Broken as broken:
            if isinstance(broken, fault):
                raise
