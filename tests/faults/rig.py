"""
A small ring to be broken: the real daemons tick in this thread over a real store, and time is what a test says.

Only the store's own clock is real, and it only counts leases: a test that wants one to run out ends it (`end_lease`).
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from redis import Redis
from structlog.testing import LogCapture

from keyrotd.core.errors import CorruptWindow
from keyrotd.core.policy import Interval, Policy
from keyrotd.core.window import Window
from keyrotd.daemon import agent, scheduler
from keyrotd.daemon.state import DiskFolder
from keyrotd.daemon.telemetry import Reporter
from keyrotd.daemon.tending import Inline, Server, Workers
from keyrotd.seal.keyfiles import Kek, OperatorKey, OperatorVerifyKey, SigningKey, VerifyKey, make_secrets, parse
from keyrotd.seal.messages import read_beat
from keyrotd.seal.window import open_window
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.port import Driver
from keyrotd.store.addresses import Address
from keyrotd.store.redis import RedisStore
from keyrotd.testing.clock import FakeClock
from keyrotd.testing.haproxy_twin import HAProxyTwin
from tests.contract.stores import fresh_namespace

RING = "edge"
STEP_MS = 250
POLICY = Policy(
    schedule=Interval(30_000),
    ticket_lifetime_ms=6_000,
    max_seal_age_ms=60_000,
    overdue_after_ms=3_750,
    max_stranded_ms=600_000,
    previous_keys=None,
    node_ttl_ms=3_000,
    tick_interval_ms=STEP_MS,
    lease_ttl_ms=10_000,
    poll_interval_ms=2 * STEP_MS,
    store_timeout_ms=250,
)
GRACE_MS = 1_000
#: How long a daemon of the rig really waits for a store that does not answer.
STORE_TIMEOUT_MS = 400


class Recorder(Reporter):
    """The daemons' own telemetry; what it would write to the log is kept instead."""

    def __init__(self) -> None:
        super().__init__()
        self._capture = LogCapture()
        self._log = structlog.wrap_logger(
            None, processors=[self._capture], wrapper_class=structlog.make_filtering_bound_logger(0)
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self._capture.entries if entry["event"] == name]

    def said(self, key: str) -> list[tuple[str, str]]:
        """Every (text, hint) that was said of a fault, in order."""
        found = [entry for entry in self.events("fault.found") if entry["fault"] == f"{RING}: {key}"]
        return [(entry["text"], entry["hint"] or "") for entry in found]

    def said_once(self, key: str) -> tuple[str, str]:
        """The one thing said of a fault, which must have a hint."""
        (found,) = self.said(key)
        assert found[1], f"said without a hint: {found[0]}"
        return found

    def forget(self) -> None:
        """What was said so far belongs to the beginning."""
        self._capture.entries.clear()

    def standing(self) -> list[str]:
        """What is said and not yet taken back."""
        return [key.removeprefix(f"{RING}: ") for key in self._faults]

    def value(self, metric: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"keyrotd_{metric}", labels) or 0.0


@dataclass
class Node:
    """One node: an agent, and the drivers of its servers."""

    name: str
    drivers: tuple[Driver, ...]
    clock: FakeClock
    runtime: Path
    state: Path
    telemetry: Recorder
    agent: agent.RingAgent
    wait_ms: int = 0
    due_at: int = 0

    def is_ready(self) -> bool:
        return not self.agent.unready()


@dataclass
class Desk:
    """One scheduler. `away`: its process does not run just now."""

    name: str
    clock: FakeClock
    state: Path
    telemetry: Recorder
    scheduler: scheduler.RingScheduler
    away: bool = False


@dataclass
class Rig:
    """`directory` must be short: HAProxy's sockets go there."""

    address: Address
    directory: Path
    policy: Policy = POLICY
    namespace: str = field(default_factory=fresh_namespace)
    nodes: list[Node] = field(default_factory=list, init=False)
    desks: list[Desk] = field(default_factory=list, init=False)
    twins: list[HAProxyTwin] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.now_at = time.time_ns() // 1_000_000  # near the store's own clock, as honest machines are
        secrets = make_secrets(RING, os.urandom)
        self.signer = parse(secrets["signing.key"], SigningKey, "signing.key")[0]
        self.operator = parse(secrets["operator.key"], OperatorKey, "operator.key")[0]
        self.verifiers = parse(secrets["verify.key"], VerifyKey, "verify.key")
        self.keks = parse(secrets[f"{RING}.kek"], Kek, f"{RING}.kek")
        operators = parse(secrets["operator-verify.key"], OperatorVerifyKey, "operator-verify.key")
        self.trust = scheduler.Trust(signer=self.signer, verifiers=self.verifiers, operators=operators, keks=self.keks)
        self._stores: list[RedisStore] = []
        self.peek = self.store()  # the test's own connection

    def close(self) -> None:
        for twin in self.twins:
            twin.stop()
        for store in self._stores:
            store.close()

    # Building.

    def store(self, *, ring: str = RING) -> RedisStore:
        store = RedisStore(self.address, ring=ring, namespace=self.namespace, timeout_ms=STORE_TIMEOUT_MS)
        self._stores.append(store)
        return store

    def clock(self) -> FakeClock:
        return FakeClock(lambda: self.now_at)

    def add_twin(self) -> HAProxyTwin:
        twin = HAProxyTwin(self.directory / f"h{len(self.twins) + 1}")
        self.twins.append(twin)
        return twin

    def add_node(
        self,
        *drivers: Driver,
        store: Any = None,
        workers: Workers | None = None,
        runtime: Path | None = None,
        state: Path | None = None,
    ) -> Node:
        """A node of these servers; what is not given is made for it."""
        name = f"node-{len(self.nodes) + 1}"
        home = self.directory / name
        runtime, state = runtime or home / "run", state or home / "state"
        for folder in (runtime, state):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        clock = self.clock()
        made, telemetry = self._agent(name, drivers, store or self.store(), workers or Inline(), runtime, state, clock)
        node = Node(name, drivers, clock, runtime, state, telemetry, made)
        self.nodes.append(node)
        return node

    def _agent(  # noqa: PLR0917 - parts, each of another kind
        self,
        name: str,
        drivers: tuple[Driver, ...],
        store: Any,
        workers: Workers,
        runtime: Path,
        state: Path,
        clock: FakeClock,
    ) -> tuple[agent.RingAgent, Recorder]:
        telemetry = Recorder()
        settings = agent.Settings(
            ring=RING, node=name, poll_interval_ms=self.policy.poll_interval_ms, start_grace_ms=GRACE_MS
        )
        world = agent.World(
            store=store,
            servers=tuple(Server(driver=driver, prove=None) for driver in drivers),
            workers=workers,
            runtime=DiskFolder(runtime),
            state=DiskFolder(state),
            clock=clock,
            rand=os.urandom,
            telemetry=telemetry,
        )
        return agent.RingAgent(settings, agent.Trust(verifiers=self.verifiers, keks=self.keks), world), telemetry

    def restart(self, node: Node) -> None:
        """The agent's process dies, whenever that is, and another one starts over what it left."""
        node.agent, node.telemetry = self._agent(
            node.name, node.drivers, self.store(), Inline(), node.runtime, node.state, node.clock
        )
        node.due_at = 0

    def start(self, *, nodes: int = 1, desks: int = 1) -> Window:
        """A ring in order: every node with a HAProxy twin, and the first window confirmed."""
        for _ in range(desks):
            self.add_desk()
        for _ in range(nodes):
            self.add_node(driver_of(self.add_twin()))
        for node, twin in zip(self.nodes, self.twins, strict=True):
            self.start_twin(node, twin)
        return self.begin()

    def begin(self) -> Window:
        """Wait until all is in order; what was said on the way there is forgotten."""
        window = self.settle()
        self.pass_time(2 * self.policy.poll_interval_ms)
        for telemetry in (*(node.telemetry for node in self.nodes), *(desk.telemetry for desk in self.desks)):
            telemetry.forget()
        return window

    def start_twin(self, node: Node, twin: HAProxyTwin) -> None:
        """HAProxy starts once there is a file to start from."""
        self.pass_until(twin.key_file.exists, f"the agent of {node.name} writes its key file")
        twin.start()

    def add_desk(self, *, store: Any = None, clock: FakeClock | None = None, state: Path | None = None) -> Desk:
        name = f"scheduler-{len(self.desks) + 1}"
        state = state or self.directory / name
        state.mkdir(mode=0o700, exist_ok=True)
        telemetry, clock, store = Recorder(), clock or self.clock(), store or self.store()
        world = scheduler.World(store=store, state=DiskFolder(state), clock=clock, rand=os.urandom, telemetry=telemetry)
        made = scheduler.RingScheduler(RING, name, self.policy, self.trust, world)
        desk = Desk(name, clock, state, telemetry, made)
        self.desks.append(desk)
        return desk

    # Time.

    def pass_time(self, duration_ms: int) -> None:
        """Every daemon ticks when it is due."""
        until = self.now_at + duration_ms
        while self.now_at < until:
            self.now_at += STEP_MS
            self.tick()

    def tick(self) -> None:
        for desk in self.desks:
            if not desk.away:
                desk.scheduler.tick()
        for node in self.nodes:
            if node.due_at <= self.now_at:
                node.wait_ms = node.agent.tick()
                node.due_at = self.now_at + node.wait_ms

    def pass_until(self, claim: Callable[[], bool], what: str, *, at_most_ms: int = 60_000) -> int:
        """Let time pass until `claim` holds; return how much did."""
        began_at = self.now_at
        while not claim():
            assert self.now_at - began_at < at_most_ms, f"within {at_most_ms} ms: {what}"
            self.pass_time(STEP_MS)
        return self.now_at - began_at

    def settle(self, *, above: int = 0) -> Window:
        """Let time pass until every node has read the window in the store back and the leader confirmed it."""
        self.pass_until(lambda: self._settled(above), f"a window above {above} is confirmed")
        window = self.window()
        assert window is not None
        return window

    def _settled(self, above: int) -> bool:
        look = self.peek.look()
        if look.window is None or look.beat is None:
            return False
        try:
            beat = read_beat(look.beat, verifiers=self.verifiers, ring=RING)
        except CorruptWindow:
            return False
        read_back = [node.agent._read_back() for node in self.nodes]
        return (
            beat.confirmed_at is not None
            and beat.epoch > above
            and beat.digest == look.digest
            and set(read_back) <= {beat.digest, None}
            and all(read_back)
        )

    # Looking, and meddling.

    def window(self) -> Window | None:
        found = self.peek.window()
        if found is None:
            return None
        return open_window(found[1], verifiers=self.verifiers, keks=self.keks, ring=RING)

    def owner(self) -> Any:
        """Whoever owns the store, and may put anything anywhere."""
        return Redis(unix_socket_path=self.address.path, protocol=3)

    def key(self, name: str) -> str:
        return f"{self.namespace}:{{{RING}}}:{name}"

    def hang_up(self) -> None:
        """Every connection to the store breaks."""
        for store in self._stores:
            store.close()

    def end_lease(self) -> None:
        with self.owner() as owner:
            owner.delete(self.key("lease"))

    @property
    def leader(self) -> str:
        return self.peek.look().leader


def driver_of(server: Any, *, name: str = "haproxy", timeout_ms: int = 2_000) -> HAProxyDriver:
    """A driver for a HAProxy or its twin."""
    return HAProxyDriver(name=name, socket=(server.socket,), key_file=(server.key_file,), timeout_ms=timeout_ms)


def filled(directory: Path) -> Callable[[], None]:
    """Leave no room on the small file system `directory`; the returned function makes some again."""
    filler = directory / "filler"
    with suppress(OSError):
        filler.write_bytes(bytes(65_536))
    return filler.unlink


def names_in(twin: HAProxyTwin) -> list[str]:
    """The names of the keys in memory, oldest first; the last but one seals."""
    return [key[:16].hex() for key in twin.rings[str(twin.key_file)]]


def sealing(twin: HAProxyTwin) -> str:
    return names_in(twin)[-2]
