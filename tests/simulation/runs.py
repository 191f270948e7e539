"""One seed, one run: bad weather, then calm, in which everything must heal."""

from dataclasses import dataclass

from keyrotd.core.policy import Policy
from tests.simulation.claims import Broken
from tests.simulation.weather import Weather, fleet
from tests.simulation.world import Fleet

#: In rotation intervals.
BAD_PERIODS = 12


@dataclass(frozen=True, slots=True)
class Tally:
    """What was done in a run, or in several."""

    ticks: int = 0
    handshakes: int = 0
    publishes: int = 0
    crashes: int = 0
    crowded: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.ticks + other.ticks,
            self.handshakes + other.handshakes,
            self.publishes + other.publishes,
            self.crashes + other.crashes,
            self.crowded + other.crowded,
        )


def run(seed: int, *, log: list[str] | None = None) -> Tally:
    """Raise Broken if any claim does not hold under `seed`."""
    world = fleet(seed)
    weather = Weather(world, calm_ms=calm_ms(world.policy), log=log)
    world.run(2 * world.policy.speak_ms)
    weather.begin()
    world.run(BAD_PERIODS * world.policy.rotation_interval_ms)
    weather.clear()
    world.run(calm_ms(world.policy))
    heals(world)
    return tally(world)


def calm_ms(policy: Policy) -> int:
    """Within this everything mends: old leases and speaking, one mend and one rotation, and everybody follows."""
    recovering_ms = policy.lease_ttl_ms + policy.speak_ms + policy.node_ttl_ms
    return recovering_ms + 2 * (policy.overdue_after_ms + policy.spacing_ms) + policy.rotation_interval_ms


def heals(world: Fleet) -> None:
    """All is well: one window, everywhere, and rotations go on."""
    newest, faults = world.claims.newest, []
    stored = world.store.ring("edge").window
    if newest is None or stored is None or stored.digest != newest.digest:
        faults.append(f"the store holds {None if stored is None else stored.epoch}")
    if world.leader is None:
        faults.append("nobody leads")
    holding = [node.name for node in world.nodes if not world.claims.follows(node)]
    if holding:
        faults.append(f"not in sync: {', '.join(holding)}")
    if newest is not None and world.now - world.claims.out_at[newest.digest] > world.policy.rotation_interval_ms * 1.5:
        faults.append("nothing was published for long")
    if faults:
        raise Broken(world.claims._words(f"calm, and yet {'; '.join(faults)}"))


def tally(world: Fleet) -> Tally:
    claims = world.claims
    return Tally(world.ticks, claims.handshakes, len(claims.windows), claims.crashes, claims.crowded)
