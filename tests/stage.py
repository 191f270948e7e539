"""A ring on a stage: values by hand, and real daemons over twins that tick as the stage's own time passes."""

import hashlib
import random
from dataclasses import dataclass, field, replace

from keyrotd.cli.desk import Desk
from keyrotd.core.messages import Beat, NodeState, ProbeState, Report, ServerReport, ServerState
from keyrotd.core.policy import Interval, Policy
from keyrotd.core.stek import Stek
from keyrotd.core.window import Window, bootstrap, rotate
from keyrotd.daemon import agent, scheduler
from keyrotd.daemon.tending import Inline, Server
from keyrotd.seal.keyfiles import Kek, OperatorKey, SigningKey
from keyrotd.store.memory import MemoryServer as StoreServer
from keyrotd.store.memory import MemoryStore
from keyrotd.testing.clock import FakeClock
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.telemetry import SilentTelemetry
from keyrotd.testing.twins import MemoryServer

#: 2027-03-01T12:00:00Z
NOON = 1_803_902_400_000
MINUTE, HOUR = 60_000, 3_600_000

RING = "edge"
KEK = Kek(hashlib.sha256(b"kek").digest())
SIGNER = SigningKey(hashlib.sha256(b"signer").digest())
OPERATOR = OperatorKey(hashlib.sha256(b"operator").digest())

POLICY = Policy(
    schedule=Interval(4 * HOUR),
    ticket_lifetime_ms=2 * HOUR,
    max_seal_age_ms=8 * HOUR,
    overdue_after_ms=HOUR // 2,
    max_stranded_ms=100 * HOUR,
    previous_keys=None,
    node_ttl_ms=30_000,
    tick_interval_ms=1_000,
    lease_ttl_ms=10_000,
    poll_interval_ms=5_000,
    store_timeout_ms=1_000,
)


def stek(number: int) -> Stek:
    return Stek(hashlib.sha256(str(number).encode()).digest(), RING)


def window_at(published_at: int, *, epoch: int = 2, settled_at: int | None = None) -> Window:
    """A window that was bootstrapped and then rotated every four hours, the last time at `published_at`."""
    began_at = published_at - (epoch - 1) * 4 * HOUR
    window = bootstrap(
        ring=RING, epoch=1, barrier=0, fence=1, fresh=(stek(0), stek(1)), now_at=began_at, terms=POLICY.terms(began_at)
    )
    for count in range(2, epoch + 1):
        at = began_at + (count - 1) * 4 * HOUR
        window = rotate(window, fresh=stek(count), fence=1, now_at=at, terms=POLICY.terms(at), settled_at=settled_at)
    return window


def beat(window: Window, *, signed_at: int, confirmed_at: int | None) -> Beat:
    return Beat(ring=RING, epoch=window.epoch, digest=window.digest, confirmed_at=confirmed_at, signed_at=signed_at)


def report(
    node: str, window: Window, *, reported_at: int, state: NodeState = NodeState.IN_STEP, slots: int | None = None
) -> Report:
    """A node that has read `window` back, on one server."""
    server = ServerReport(
        name="haproxy",
        driver="haproxy",
        state=ServerState.IN_STEP,
        slots=slots,
        probe=ProbeState.RESUMED,
        fault="",
    )
    return Report(
        ring=RING,
        node=node,
        counter=1,
        reported_at=reported_at,
        state=state,
        steps=0,
        epoch=window.epoch,
        holds=window.digest,
        read_back=window.digest,
        floor=window.epoch,
        barrier=window.barrier,
        poll_interval_ms=5_000,
        servers=(server,),
    )


def failing(found: Report, fault: str) -> Report:
    """The same node, whose server does not take the keys."""
    broken = replace(found.servers[0], state=ServerState.FAILED, probe=ProbeState.NONE, fault=fault)
    return replace(found, state=NodeState.BEHIND, read_back=None, servers=(broken,))


@dataclass
class Stage:
    """Is also the Watch of whoever looks: a pause lets time pass, and the daemons tick as it does."""

    nodes: int = 2
    slots: int | None = None
    policy: Policy = POLICY
    now_at: int = NOON
    away: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        chance = random.Random(1)
        self.clock = FakeClock(lambda: self.now_at)
        self.storage = StoreServer(lambda: self.now_at)
        self.servers = {f"edge-{n}": MemoryServer(slots=self.slots) for n in range(1, self.nodes + 1)}
        trust = scheduler.Trust(
            signer=SIGNER, verifiers=(SIGNER.verify_key,), operators=(OPERATOR.verify_key,), keks=(KEK,)
        )
        self.scheduler = scheduler.RingScheduler(
            RING,
            "scheduler-1",
            self.policy,
            trust,
            scheduler.World(
                store=self.store(),
                state=MemoryFolder(),
                clock=self.clock,
                rand=chance.randbytes,
                telemetry=SilentTelemetry(),
            ),
        )
        self.agents = {
            node: agent.RingAgent(
                agent.Settings(ring=RING, node=node, poll_interval_ms=5_000, start_grace_ms=10_000),
                agent.Trust(verifiers=(SIGNER.verify_key,), keks=(KEK,)),
                agent.World(
                    store=self.store(),
                    servers=(Server(driver=server, prove=None),),
                    workers=Inline(),
                    runtime=MemoryFolder(),
                    state=MemoryFolder(),
                    clock=self.clock,
                    rand=chance.randbytes,
                    telemetry=SilentTelemetry(),
                ),
            )
            for node, server in self.servers.items()
        }
        self._due = dict.fromkeys(["scheduler-1", *self.agents], self.now_at)
        self._booted_at = self.now_at

    def store(self) -> MemoryStore:
        return MemoryStore(RING, self.storage)

    def desk(self, *, kek: bool = True) -> Desk:
        return Desk(
            ring=RING,
            policy=self.policy,
            store=self.store(),
            verifiers=(SIGNER.verify_key,),
            keks=(KEK,) if kek else None,
        )

    def wall_ms(self) -> int:
        return self.clock.wall_ms()

    def boot_ms(self) -> int:
        return self.clock.boot_ms()

    def pause(self, duration_ms: int) -> None:
        """Every daemon ticks when it is due, those in `away` excepted; polls come on time, to the millisecond."""
        until = self.now_at + duration_ms
        while True:
            name = min(self._due, key=self._due.__getitem__)
            if self._due[name] > until:
                break
            self.now_at = max(self.now_at, self._due[name])
            wait_ms = 1_000
            if name not in self.away:
                wait_ms = self.scheduler.tick() if name == "scheduler-1" else self.agents[name].tick()
            self._due[name] = self.now_at + wait_ms
        self.now_at = until
