"""All that can be reached in a small ring keeps every claim, and each safeguard is missed when it is taken out."""

import pytest

from tests.exploration.explorer import explore, told
from tests.exploration.mutants import MUTANTS, Mutant
from tests.exploration.ring import Rules
from tests.exploration.scopes import SCOPES, Scope

#: More than any scope has; what a mutant needs is far less.
MOST = 400_000


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param(scope, marks=[pytest.mark.long] if scope.long else [], id=scope.name)
        for scope in SCOPES
        if not scope.far
    ],
)
@pytest.mark.timeout(1200)
def test_every_state_that_can_be_reached_keeps_every_claim(scope: Scope) -> None:
    start = scope.start()

    found = explore(start, Rules(), most=MOST)

    print(f"{scope.name}: {found.states} states by {found.steps} steps, depth {found.depth}")
    assert not found.broken, "\n" + told(start, Rules(), found.trace)
    assert found.complete


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_safeguard_taken_out_is_missed(mutant: Mutant) -> None:
    start = mutant.scope.start()

    found = explore(start, mutant.rules, most=MOST)

    print(f"without {mutant.name}, after {found.states} states:\n{told(start, mutant.rules, found.trace)}")
    assert found.broken.startswith(f"{mutant.broken}:")
