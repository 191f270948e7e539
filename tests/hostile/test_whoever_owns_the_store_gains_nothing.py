"""A store with a hostile owner: no crash, nothing unsigned taken, nothing ordered, no key lost; and then it heals."""

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from keyrotd.core.messages import Goal
from keyrotd.store import limits
from tests.hostile.attacker import PLACES, Attacker, View
from tests.hostile.stage import Stage
from tests.simulation.runs import calm_ms, heals

SECOND = 1000
#: From shorter than a tick to longer than a rotation.
SPANS = st.sampled_from((500, 2 * SECOND, 6 * SECOND, 20 * SECOND, 75 * SECOND))
MACHINES = st.integers(0, 3)


class Owned(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.world = Stage(seed)
        self.attacker = Attacker(self.world, Random(f"attacker {seed}"))
        self.world.claims.forged = self.attacker.forged
        self.world.run(2 * self.world.policy.speak_ms)
        assert self.world.claims.windows

    @rule(span_ms=SPANS)
    def wait(self, span_ms: int) -> None:
        self.world.run(span_ms)

    @rule(place=st.sampled_from(PLACES), span_ms=SPANS)
    def repeat(self, place: str, span_ms: int) -> None:
        self.attacker.repeat(place)
        self.world.run(span_ms)

    @rule(place=st.sampled_from(PLACES), data=st.binary(max_size=64), span_ms=SPANS)
    def spoil(self, place: str, data: bytes, span_ms: int) -> None:
        self.attacker.spoil(place, data)
        self.world.run(span_ms)

    @rule(place=st.sampled_from(PLACES), span_ms=SPANS)
    def flip(self, place: str, span_ms: int) -> None:
        self.attacker.flip(place)
        self.world.run(span_ms)

    @rule(places=st.sets(st.sampled_from(PLACES), min_size=1), span_ms=SPANS)
    def delete(self, places: set[str], span_ms: int) -> None:
        for place in sorted(places):
            self.attacker.delete(place)
        self.world.run(span_ms)

    @rule(span_ms=SPANS)
    def forge(self, span_ms: int) -> None:
        self.attacker.forge()
        self.world.run(span_ms)

    @rule(machine=MACHINES, view=st.sampled_from(View))
    def show(self, machine: int, view: View) -> None:
        self.attacker.views[self.world.machines[machine].name] = view

    @rule(view=st.sampled_from(View), span_ms=SPANS)
    def show_all(self, view: View, span_ms: int) -> None:
        for machine in self.world.machines:
            self.attacker.views[machine.name] = view
        self.world.run(span_ms)

    @rule(rate=st.sampled_from((-1, 0, 1, 50)), offset_ms=st.sampled_from((-(10**9), -90_000, 0, 90_000, 10**9)))
    def turn_clock(self, rate: int, offset_ms: int) -> None:
        """TIME runs back, stands, runs or races, from wherever it pleases."""
        world, began_at = self.world, self.world.now
        world.store.clock = lambda: began_at + offset_ms + rate * (world.now - began_at)

    @rule(machine=MACHINES)
    def restart(self, machine: int) -> None:
        self.world.machines[machine].die()

    @rule()
    def revoke(self) -> None:
        """What an operator does, for the attacker to repeat."""
        self.world.ask(Goal.REVOKE)
        self.world.run(6 * SECOND)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self.attacker.views.clear()
        world.store.clock = lambda: world.now
        world.run(limits.LEASE_MS + 2 * calm_ms(world.policy))
        world.claims._choose_newest()
        heals(world)


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Owned,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # a history is short as it is, and shrinking takes minutes
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whoever_owns_the_store_gains_nothing() -> None:
    play(examples=12, steps=12)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_whoever_owns_the_store_for_long_gains_nothing() -> None:
    play(examples=100, steps=40)
