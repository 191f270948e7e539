"""
keyrotd itself: the real ticks of two schedulers and of an agent per server, over the memory store of its simulation.

The model: none. R and T are the scale's, everything else is what a configuration that says no more has (see
config.example.toml). The moment of a rotation is the publish: the strike comes before anybody, the leader included,
does anything more. Its store is flushed, parted and made to lose calls as in tests/simulation; wake-ups are lost with
polls. The claims of the simulation are checked all along: an orphan that G1 forbids ends the run.

In its favour: a leader that dies is no server, so that no server dies with it, as the leaders of some rivals do; and
two schedulers run, as its documents want.
"""

from collections.abc import Callable
from dataclasses import replace

from keyrotd.core.policy import SEVEN_DAYS_MS, Interval, Policy
from keyrotd.testing.twins import MemoryServer as Twin
from tests.rivals.load import Shown
from tests.rivals.weather import HOSTS, SECOND, SKEW_MS, Scale, clocks
from tests.simulation.world import Fleet

SCHEDULERS = 2


def policy(scale: Scale) -> Policy:
    said = Policy(
        schedule=Interval(scale.rotation_interval_ms),
        ticket_lifetime_ms=scale.ticket_lifetime_ms,
        max_seal_age_ms=2 * scale.rotation_interval_ms,
        overdue_after_ms=scale.rotation_interval_ms // 8,
        previous_keys=None,
        node_ttl_ms=30 * SECOND,
        tick_interval_ms=1 * SECOND,
        lease_ttl_ms=10 * SECOND,
        poll_interval_ms=5 * SECOND,
        store_timeout_ms=1 * SECOND,
        max_stranded_ms=0,
    )
    return replace(said, max_stranded_ms=SEVEN_DAYS_MS - said.worst_ms)


class Keyrotd(Fleet):
    """A fleet as in the simulation, as a stage for the same weather and the same clients as the rivals'."""

    def __init__(self, scale: Scale, seed: int) -> None:
        self._strikes: list[Callable[[], None]] = []
        super().__init__(policy(scale), seed=seed, schedulers=SCHEDULERS)
        for _ in range(HOSTS):
            self.add_node(Twin(name="tls", file=True))
        self.claims.skew_ms = 2 * SKEW_MS
        drawn = clocks(seed, HOSTS + SCHEDULERS)
        for machine, (skew_ms, rate_ppm) in zip((*self.nodes, *self.rulers), drawn, strict=True):
            machine.clock.skew_ms, machine.clock.rate_ppm = skew_ms, rate_ppm
            machine.alarm_at = self.now + self.rng.randrange(60 * SECOND)

    def run_until(self, end_at: int) -> None:
        """Let one machine tick, or time pass up to `end_at`."""
        super().run_until(min(end_at, *(machine.alarm_at for machine in self.machines)))

    def shown(self) -> tuple[Shown | None, ...]:
        return tuple(_shown(node.servers[0]) for node in self.nodes)

    def look_for_publish(self) -> None:
        before = self._standing
        super().look_for_publish()
        if self._standing != before:
            strikes, self._strikes = self._strikes, []
            for strike in strikes:
                strike()

    def at_rotation(self, strike: Callable[[], None]) -> None:
        self._strikes.append(strike)

    def miss_polls(self, share: float) -> None:
        self.wakes_lost = share
        for machine in self.machines:
            machine.miss = share

    def cut_host(self, place: int, for_ms: int) -> None:
        node = self.nodes[place]
        self.cut(node)

        def join() -> None:
            node.cut = False

        self.plan(for_ms, join)

    def kill_leader(self, for_ms: int) -> None:
        leader, until = self.leader, self.now + for_ms
        assert leader is not None  # strikes come at a publish
        leader.hazard.crash_in(1, after=False)

        def stay_away() -> None:
            leader.alarm_at = until

        self.plan(0, stay_away)

    def part(self, for_ms: int) -> None:
        self.store_away()
        self.plan(for_ms, self.store_back)


def _shown(twin: Twin) -> Shown | None:
    if twin.keys is None:
        return None
    return Shown(twin.keys.current.name.hex(), frozenset(stek.name.hex() for stek in twin.keys.opening))
