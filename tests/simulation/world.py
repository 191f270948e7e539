"""
A small fleet in one thread: the real schedulers and agents, over the memory store, by a clock that only we move.

Machines are visited one at a time, in the order of their alarms. Everything that a daemon touches is an *effect*
(an operation of the store, a write to a folder, a call to a server) and may be the last thing that it does: see Hazard.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from keyrotd.core.messages import Goal, Request
from keyrotd.core.policy import JITTER_PERCENT, Policy
from keyrotd.daemon import agent as agents
from keyrotd.daemon import scheduler as schedulers
from keyrotd.daemon.tending import Inline, Server
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.seal.messages import sign_request
from keyrotd.store.memory import Fault, MemoryServer, MemoryStore
from keyrotd.testing.clock import FakeClock
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.telemetry import SilentTelemetry
from keyrotd.testing.twins import MemoryServer as Twin
from tests.simulation.claims import Claims

RING = "edge"
#: A Tuesday in November 2023.
BEGIN_MS = 1_700_000_000_000


class Crash(BaseException):  # a process that is gone, not an error that anybody could catch
    """The process stops here. No daemon may catch it."""


@dataclass
class Hazard:
    """
    Counts one machine's effects. The one numbered `strike_at` is its process's last, done or not (`after`).

    `frozen` is called once before effect `freeze_at`: while it runs the process stands still and the world goes on.
    `about` and `seen` look on, before and after each effect; `seen` is told whether an answer came.
    """

    effects: int = 0
    strike_at: int | None = None
    after: bool = False
    freeze_at: int | None = None
    frozen: Callable[[], None] | None = None
    about: Callable[[str], None] | None = None
    seen: Callable[[str, bool], None] | None = None

    def run(self, name: str, do: Callable[[], Any]) -> Any:
        self.effects += 1
        if self.frozen is not None and self.freeze_at is not None and self.effects >= self.freeze_at:
            frozen, self.frozen = self.frozen, None
            frozen()
        strikes = self.strike_at is not None and self.effects >= self.strike_at
        if strikes:
            self.strike_at = None
        if strikes and not self.after:
            raise Crash
        if self.about is not None:
            self.about(name)
        answered = False
        try:
            answer = do()
            answered = True
        finally:
            if self.seen is not None:
                self.seen(name, answered)
        if strikes:
            raise Crash
        return answer

    def crash_in(self, effects: int, *, after: bool) -> None:
        self.strike_at, self.after = self.effects + effects, after


class Effectful:
    """Passes everything on to `target`; a call of one of `effects` goes through the hazard."""

    def __init__(self, target: object, effects: Iterable[str], hazard: Hazard) -> None:
        self._target, self._effects, self._hazard = target, frozenset(effects), hazard

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._effects:
            return found
        hazard = self._hazard

        def call(*args: Any, **kwargs: Any) -> Any:
            return hazard.run(name, lambda: found(*args, **kwargs))

        setattr(self, name, call)
        return call


_STORE_EFFECTS = frozenset(
    {
        "beat",
        "forget",
        "lead",
        "offer",
        "offers",
        "poll",
        "publish",
        "record",
        "release",
        "report",
        "reports",
        "settle",
        "withdraw",
        "wake",
        "window",
    }
)


@dataclass
class Machine:
    """What is common to nodes and schedulers: clocks, a disk, a way to the store, an alarm."""

    name: str
    world: "Fleet"
    clock: FakeClock
    state: MemoryFolder = field(default_factory=MemoryFolder)
    hazard: Hazard = field(default_factory=Hazard)
    cut: bool = False
    miss: float = 0.0
    alarm_at: int = 0
    up: bool = False
    frozen: bool = False
    lives: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore(RING, self.world.store, self.luck)

    def luck(self, operation: str) -> Fault | None:
        _ = operation
        if self.cut or not self.world.store_up:
            return Fault.AWAY
        if self.miss and self.world.rng.random() < self.miss:
            return self.world.rng.choice((Fault.AWAY, Fault.UNANSWERED))
        return None

    def _effectful(self, target: object, effects: Iterable[str]) -> Any:
        return Effectful(target, effects, self.hazard)

    def die(self) -> None:
        """The process is gone; what it had on disk is not."""
        self.up = False
        self.hazard.strike_at = None

    def visit(self) -> None:
        try:
            pause_ms = self._start_or_tick()
        except Crash:
            self.die()
            self.world.claims.crashed(self.name)
            # As systemd would: up again soon.
            self.alarm_at = self.world.now + self.world.rng.randrange(self.world.policy.poll_interval_ms)
            return
        self.alarm_at = self.world.now + pause_ms

    def _start_or_tick(self) -> int:
        raise NotImplementedError


class Ruler(Machine):
    """A scheduler."""

    daemon: schedulers.RingScheduler

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hazard.about, self.hazard.seen = self._about, self._seen

    def _start_or_tick(self) -> int:
        world = self.world
        if not self.up:
            self.lives += 1
            self.up = True
            self.daemon = schedulers.RingScheduler(
                RING,
                f"{self.name}/{self.lives}",
                world.policy,
                schedulers.Trust(
                    signer=world.signer,
                    verifiers=(world.signer.verify_key,),
                    operators=(world.operator.verify_key,),
                    keks=world.keks,
                ),
                schedulers.World(
                    store=self._effectful(self.store, _STORE_EFFECTS),
                    state=self._effectful(self.state, ("write",)),
                    clock=self.clock,
                    rand=world.seeds,
                    telemetry=SilentTelemetry(),
                ),
            )
        pause_ms = self.daemon.tick()
        world.claims.remembered(self.name, self.state)
        return pause_ms

    def _about(self, effect: str) -> None:
        if effect == "publish":
            self.world.keep_replica()

    def _seen(self, effect: str, answered: bool) -> None:  # noqa: FBT001 - as Hazard calls it
        _ = answered  # done is done, whether or not anybody heard of it
        if effect == "publish":
            self.world.look_for_publish()

    @property
    def leads(self) -> bool:
        return self.up and self.daemon.leads


class Node(Machine):
    """An agent and its servers."""

    agent: agents.RingAgent
    servers: tuple[Twin, ...] = ()
    reached_at = -1
    #: The digest that was read back last in a tick that reached the store, and when it did.
    read_back: tuple[str, int] | None = None
    #: When the last tick began that ran to its end, and the last such tick with servers that obeyed.
    ticked_at = -1
    obeyed_at = -1
    #: Servers that refuse, and since when, until a tick found that they obey again.
    sick = False
    refused_at: int | None = None
    #: When servers restarted last.
    restarted_at = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.runtime = MemoryFolder()
        self.hazard.seen = self._seen
        self._polled_at: int | None = None

    def _start_or_tick(self) -> int:
        world = self.world
        if not self.up:
            self.lives += 1
            self.up = True
            self.agent = agents.RingAgent(
                agents.Settings(
                    ring=RING,
                    node=self.name,
                    poll_interval_ms=world.policy.poll_interval_ms,
                    start_grace_ms=2 * world.policy.poll_interval_ms,
                ),
                agents.Trust(verifiers=(world.signer.verify_key,), keks=world.keks),
                agents.World(
                    store=self._effectful(self.store, _STORE_EFFECTS),
                    servers=tuple(
                        Server(driver=self._effectful(twin, ("observe", "install")), prove=None)
                        for twin in self.servers
                    ),
                    workers=Inline(),
                    runtime=self._effectful(self.runtime, ("write",)),
                    state=self._effectful(self.state, ("write",)),
                    clock=self.clock,
                    rand=world.rng.randbytes,
                    telemetry=SilentTelemetry(),
                ),
            )
        began_at, self._polled_at, sick = world.now, None, self.sick
        pause_ms = self.agent.tick()
        self.ticked_at = began_at
        if not sick and not self.sick:  # a tick may last
            self.obeyed_at, self.refused_at = began_at, None
        digest = self.agent._read_back()
        if digest is not None and began_at >= self.restarted_at:
            self._note_read_back(digest)
        world.claims.remembered(self.name, self.state)
        return pause_ms + pause_ms * world.rng.randrange(JITTER_PERCENT + 1) // 100

    def _seen(self, effect: str, answered: bool) -> None:  # noqa: FBT001 - as Hazard calls it
        if effect == "poll" and answered:
            self._polled_at = self.world.now

    def _note_read_back(self, digest: str) -> None:
        if self._polled_at is not None:
            self.read_back = (digest, self._polled_at)

    def restart_servers(self) -> None:
        self.restarted_at = self.world.now
        for twin in self.servers:
            twin.restart()
            if not twin.file:
                self.read_back = None  # it stands there without keys, and nobody has read anything back since


class Fleet:
    """The world. `run` lets time pass; everything else here is what happens to machines."""

    def __init__(self, policy: Policy, *, seed: int = 0, schedulers: int = 1) -> None:
        self.policy, self.seed = policy, seed
        self.rng = Random(seed)
        self.now = self.began_at = BEGIN_MS
        self.store = MemoryServer(lambda: self.now)
        self.store_up = True
        chance = self.rng.randbytes
        self.signer, self.operator = SigningKey(chance(32)), OperatorKey(chance(32))
        self.keks = (Kek(chance(32)),)
        self.nodes: list[Node] = []
        self.claims = Claims(self)
        self.rulers = [
            Ruler(f"scheduler-{i}", self, FakeClock(lambda: self.now), alarm_at=self.now + i) for i in range(schedulers)
        ]
        self.ticks = 0
        self.wakes_lost = 0.0
        self.last_reach_at = self.now
        self.at_publish: list[Callable[[], None]] = []
        self.before_publish: dict[str, Any] | None = None
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._wakes = 0
        self._standing = self._current_ring()

    # Who is there.

    def add_node(self, *servers: Twin) -> Node:
        node = Node(f"node-{len(self.nodes)}", self, FakeClock(lambda: self.now))
        node.servers = servers
        node.alarm_at = self.now + self.rng.randrange(self.policy.poll_interval_ms)
        self.nodes.append(node)
        return node

    @property
    def machines(self) -> tuple[Machine, ...]:
        return (*self.rulers, *self.nodes)

    @property
    def leader(self) -> Ruler | None:
        return next((ruler for ruler in self.rulers if ruler.leads), None)

    def seeds(self, size: int) -> bytes:
        """A scheduler's chance: whatever it draws is a secret from now on, except nonces."""
        drawn = self.rng.randbytes(size)
        if size == 32:
            self.claims.secret(drawn)
        return drawn

    # Time.

    def run(self, duration_ms: int) -> None:
        self.run_until(self.now + duration_ms)

    def run_until(self, end_at: int) -> None:
        while True:
            machine = min((m for m in self.machines if not m.frozen), key=lambda m: m.alarm_at, default=None)
            planned_at = self._agenda[0][0] if self._agenda else end_at + 1
            alarm_at = machine.alarm_at if machine is not None else end_at + 1
            next_at = min(planned_at, alarm_at)
            if next_at > end_at:
                break
            self.now = max(self.now, next_at)
            self.claims.before()
            if planned_at <= alarm_at:
                heappop(self._agenda)[2]()
            elif machine is not None:
                self.ticks += 1
                machine.visit()
            self.claims.after()
            self._deliver_wakes()
        self.now = max(self.now, end_at)

    def wait_for(self, condition: Callable[[], bool], within_ms: int) -> None:
        """Let time pass until `condition` holds; it must within `within_ms`."""
        end_at = self.now + within_ms
        while not condition():
            next_at = min(m.alarm_at for m in self.machines)
            assert next_at <= end_at, f"did not come about within {within_ms} ms"
            self.run_until(next_at)

    def plan(self, in_ms: int, do: Callable[[], None]) -> None:
        heappush(self._agenda, (self.now + in_ms, next(self._order), do))

    def freeze(self, machine: Machine, duration_ms: int) -> None:
        """Stand `machine` still for a while, now, in the middle of whatever it does."""
        machine.frozen = True
        self.run_until(self.now + duration_ms)
        machine.frozen = False
        if not machine.up:
            raise Crash  # it was killed meanwhile

    def freeze_in(self, machine: Machine, effects: int, duration_ms: int) -> None:
        machine.hazard.freeze_at = machine.hazard.effects + effects
        machine.hazard.frozen = lambda: self.freeze(machine, duration_ms)

    def _deliver_wakes(self) -> None:
        wakes = self.store.ring(RING).wakes
        if wakes == self._wakes:
            return
        self._wakes = wakes
        for machine in self.machines:
            if not machine.cut and self.store_up and self.rng.random() >= self.wakes_lost:
                delay_ms = self.rng.randrange(1 + self.policy.store_timeout_ms)
                machine.alarm_at = min(machine.alarm_at, self.now + delay_ms)

    # The store.

    def _current_ring(self) -> str:
        window = self.store.ring(RING).window
        return "" if window is None else window.digest

    def look_for_publish(self) -> None:
        digest = self._current_ring()
        if digest == self._standing:
            return
        window = self.store.ring(RING).window
        assert window is not None
        self._standing = digest
        self.claims.published(window.window)
        for strike in self.at_publish:
            self.plan(0, strike)
        self.at_publish.clear()

    def keep_replica(self) -> None:
        """Remember what a replica has that will have missed the next write of a window."""
        self.before_publish = self.store.snapshot()

    def lose_write(self) -> None:
        """Fail over to the replica that missed the last write of a window, and all that came since."""
        self.put_back(self.before_publish or {})

    def put_back(self, snapshot: dict[str, Any]) -> None:
        """Let the store be as it once was."""
        self.store.restore(snapshot)
        self._standing, self._wakes = self._current_ring(), self.store.ring(RING).wakes
        self.claims.store_lost()

    def store_away(self) -> None:
        self._note_reach()
        self.store_up = False

    def store_back(self) -> None:
        self.store_up = True

    def cut(self, machine: Machine) -> None:
        self._note_reach()
        machine.cut = True

    def _note_reach(self) -> None:
        if self.reachable:
            self.last_reach_at = self.now

    @property
    def reachable(self) -> bool:
        """Whether any node can reach the store."""
        return self.store_up and any(not node.cut for node in self.nodes)

    def flush(self) -> None:
        """Let the store forget everything."""
        self.put_back({})

    # People.

    def ask(self, goal: Goal = Goal.ROTATE, *, drop_live_keys: bool = False) -> None:
        window = self.claims.newest
        request = Request(
            ring=RING,
            goal=goal,
            past_epoch=0 if window is None else window.epoch,
            drop_live_keys=drop_live_keys,
            who="op",
            reason="asked",
            made_at=self.now,
        )
        MemoryStore(RING, self.store).request(id=f"r{next(self._order)}", request=sign_request(request, self.operator))
