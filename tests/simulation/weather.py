"""Seeded misfortune: a fleet drawn from a seed, and everything in the fault model that can happen to it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from keyrotd.core.messages import Goal
from keyrotd.core.policy import Interval, Policy, impossible
from keyrotd.testing.twins import MemoryServer as Twin
from tests.simulation.world import Crash, Fleet, Machine, Node, Ruler

SECOND, MINUTE = 1000, 60_000

#: Three slots suffice: every ticket dies within one rotation.
BRISK = Policy(
    schedule=Interval(60 * SECOND),
    ticket_lifetime_ms=30 * SECOND,
    max_seal_age_ms=120 * SECOND,
    overdue_after_ms=7_500,
    max_stranded_ms=30 * MINUTE,
    previous_keys=None,
    node_ttl_ms=15 * SECOND,
    tick_interval_ms=2 * SECOND,
    lease_ttl_ms=10 * SECOND,
    poll_interval_ms=5 * SECOND,
    store_timeout_ms=1 * SECOND,
)
#: Tickets outlive a rotation: several previous keys, so no server of three slots.
LONG = replace(BRISK, ticket_lifetime_ms=90 * SECOND)
#: In minutes, so that what the code counts in seconds is small: the protocol review's numbers.
SLOW = Policy(
    schedule=Interval(60 * MINUTE),
    ticket_lifetime_ms=90 * MINUTE,
    max_seal_age_ms=120 * MINUTE,
    overdue_after_ms=20 * MINUTE,
    max_stranded_ms=30 * 60 * MINUTE,
    previous_keys=None,
    node_ttl_ms=12 * MINUTE,
    tick_interval_ms=1 * MINUTE,
    lease_ttl_ms=4 * MINUTE,
    poll_interval_ms=5 * MINUTE,
    store_timeout_ms=10 * SECOND,
)


def fleet(seed: int) -> Fleet:
    """Draw one to two schedulers and three to four nodes, all of whose promises can be kept."""
    world = Fleet(BRISK, seed=seed)
    rng = world.rng
    world = Fleet(rng.choice((BRISK, LONG, SLOW)), seed=seed, schedulers=rng.choice((1, 2)))
    few = not list(impossible(world.policy, slots=3, notice_delay_ms=0))
    for _ in range(rng.choice((3, 4))):
        slots = rng.choice((3, None)) if few else None
        world.add_node(Twin(name="tls", slots=slots, ring_buffer=slots is not None, file=rng.random() < 0.8))
    world.claims.skew_ms = skew_ms = 2 * world.policy.tick_interval_ms
    for machine in world.machines:
        machine.clock.skew_ms = rng.randint(-skew_ms // 2, skew_ms // 2)
        machine.clock.rate_ppm = rng.randint(-500, 500)
        machine.miss = rng.choice((0.0, 0.0, 0.02, 0.15))
    world.wakes_lost = rng.choice((0.0, 0.3, 1.0))
    return world


@dataclass
class Weather:
    """What happens to `world`, one misfortune after the other, until told to be `calm`."""

    world: Fleet
    calm_ms: int
    raging: bool = True
    lost_at: int = 0
    log: list[str] | None = None

    def begin(self) -> None:
        self._next()

    def _next(self) -> None:
        rng, poll_ms = self.world.rng, self.world.policy.poll_interval_ms
        self.world.plan(round(rng.expovariate(1 / (3 * poll_ms))) + 1, self._strike)

    def _strike(self) -> None:
        if not self.raging:
            return
        rng = self.world.rng
        (happening,) = rng.choices(*zip(*_MISFORTUNES, strict=True))
        if rng.random() < 0.3:
            self.world.at_publish.append(lambda: self._happen(happening))
        else:
            self._happen(happening)
        self._next()

    def _happen(self, happening: "Callable[[Weather], None]") -> None:
        if self.raging:
            self.note(happening.__name__)
            happening(self)

    def note(self, words: str) -> None:
        if self.log is not None:
            self.log.append(f"{(self.world.now - self.world.began_at) / 1000:9.1f}  {words}")

    def clear(self) -> None:
        """End all trouble."""
        self.raging = False
        world = self.world
        world.at_publish.clear()
        world.store_back()
        for machine in world.machines:
            machine.cut, machine.miss, machine.hazard.strike_at = False, 0.0, None
            machine.alarm_at = min(machine.alarm_at, world.now + world.policy.poll_interval_ms)
        for node in world.nodes:
            _heal(node)

    # Choosing.

    def node(self) -> Node:
        return self.world.rng.choice(self.world.nodes)

    def ruler(self) -> Ruler:
        return self.world.rng.choice(self.world.rulers)

    def machine(self) -> Machine:
        return self.world.rng.choice(self.world.machines)

    def a_while(self) -> int:
        """Up to several periods, mostly short."""
        rng, policy = self.world.rng, self.world.policy
        longest_ms = rng.choice(
            (
                2 * policy.poll_interval_ms,
                policy.node_ttl_ms,
                policy.lease_ttl_ms * 2,
                policy.rotation_interval_ms,
                4 * policy.rotation_interval_ms,
            )
        )
        return rng.randint(1, longest_ms)

    def may_lose(self) -> bool:
        """One loss of the store at a time: the next only after everybody had the time to mend this one."""
        now = self.world.now
        if now - self.lost_at < self.calm_ms or not self.world.store_up:
            return False
        self.lost_at = now
        return True


def store_away(w: Weather) -> None:
    w.world.store_away()
    w.world.plan(w.a_while(), w.world.store_back)


def partition(w: Weather) -> None:
    machine = w.machine()
    w.world.cut(machine)

    def join() -> None:
        machine.cut = False

    w.world.plan(w.a_while(), join)


def tick_crashes(w: Weather) -> None:
    w.machine().hazard.crash_in(w.world.rng.randint(1, 8), after=w.world.rng.random() < 0.5)


def scheduler_killed(w: Weather) -> None:
    rng, ruler = w.world.rng, w.ruler()
    ruler.die()
    ruler.alarm_at = w.world.now + (0 if rng.random() < 0.5 else w.a_while())
    if rng.random() < 0.3:
        ruler.state.files.clear()
        w.world.claims.forgot(ruler.name)


def scheduler_stopped(w: Weather) -> None:
    ruler = w.ruler()
    if ruler.up:
        with suppress(Crash):
            ruler.daemon.stop()
        ruler.die()
        ruler.alarm_at = w.world.now + w.a_while()


def agent_restarted(w: Weather) -> None:
    node = w.node()
    node.die()
    node.alarm_at = w.world.now + w.world.rng.randrange(w.world.policy.poll_interval_ms)
    if w.world.rng.random() < 0.3:
        node.runtime.files.clear()


def node_rebooted(w: Weather) -> None:
    node = w.node()
    node.die()
    node.clock.reboot()
    node.runtime.files.clear()
    for twin in node.servers:
        twin._file_keys = None  # the key file was on tmpfs, too
        twin.restart()
    node.read_back = None
    node.alarm_at = w.world.now + w.a_while() // 4


def server_restarted(w: Weather) -> None:
    w.node().restart_servers()


def server_refuses(w: Weather) -> None:
    node = w.node()
    node.sick, node.refused_at = True, w.world.now if node.refused_at is None else node.refused_at
    for twin in node.servers:
        twin.fail()
    w.world.plan(w.world.rng.randint(1, w.world.policy.overdue_after_ms * 3 // 2), lambda: _heal(node))


def _heal(node: Node) -> None:
    node.sick = False
    for twin in node.servers:
        twin.heal()


def frozen(w: Weather) -> None:
    w.world.freeze_in(w.machine(), w.world.rng.randint(1, 8), w.a_while() // 2)


def write_lost(w: Weather) -> None:
    if w.world.before_publish is not None and w.may_lose():
        w.world.lose_write()
        forgetful_leader(w)


def flushed(w: Weather) -> None:
    if w.may_lose():
        w.world.flush()
        forgetful_leader(w)


def forgetful_leader(w: Weather) -> None:
    if w.world.rng.random() < 0.5:
        for ruler in w.world.rulers:
            ruler.die()
            ruler.alarm_at = w.world.now + 1 + w.world.rng.randrange(w.world.policy.tick_interval_ms)
            if w.world.rng.random() < 0.5:
                ruler.state.files.clear()
                w.world.claims.forgot(ruler.name)


def asked_to_rotate(w: Weather) -> None:
    if w.world.store_up:
        w.world.ask()


def asked_to_revoke(w: Weather) -> None:
    if w.world.store_up and w.world.rng.random() < 0.3:
        w.world.ask(Goal.REVOKE)


def wall_clock_set(w: Weather) -> None:
    half_ms = w.world.claims.skew_ms // 2
    w.machine().clock.skew_ms = w.world.rng.randint(-half_ms, half_ms)


_MISFORTUNES: tuple[tuple[Callable[[Weather], None], int], ...] = (
    (store_away, 4),
    (partition, 4),
    (tick_crashes, 6),
    (scheduler_killed, 4),
    (scheduler_stopped, 1),
    (agent_restarted, 3),
    (node_rebooted, 2),
    (server_restarted, 3),
    (server_refuses, 3),
    (frozen, 3),
    (write_lost, 2),
    (flushed, 2),
    (asked_to_rotate, 4),
    (asked_to_revoke, 1),
    (wall_clock_set, 2),
)
