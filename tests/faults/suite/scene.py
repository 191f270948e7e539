"""
A whole fleet of real parts on some stand, clients that come back with tickets of every age, and the three claims.

Orphans: no ticket younger than T was answered with a full handshake. Bounds: no key sealed beyond what was signed.
Healed: in the end every node has read back the window that the leader confirms, and keys go on moving. How long that
took is measured and never judged.
"""

import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Generic, TypeVar

from keyrotd.config import load
from keyrotd.core.errors import CorruptWindow, StoreUnavailable
from keyrotd.core.messages import Goal
from keyrotd.core.policy import Policy
from keyrotd.daemon.state import decode_cache
from keyrotd.seal.messages import read_beat
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import start_child, wait_until
from keyrotd.testing.clients import Clients, Tally
from keyrotd.testing.fleet import RING, Fleet, Pace
from keyrotd.testing.haproxy import HAProxy
from tests.faults.suite import fated
from tests.faults.suite.stands import Stand
from tests.faults.suite.watch import Watch
from tests.scenes import Operator, now_at

#: R is short, and yet a machine that stalls for some seconds is neither dead (node_ttl, lease_ttl) nor overdue.
PACE = Pace(
    rotation_interval="12s",
    ticket_lifetime="3s",
    overdue_after="6s",
    tick_interval="250ms",
    lease_ttl="4s",
    node_ttl="8s",
    poll_interval="250ms",
    store_timeout="250ms",
    start_grace="1s",
)
#: Where many periods have to pass: nobody leads meanwhile, so that little depends on who is alive.
BRISK = Pace(
    rotation_interval="6s",
    ticket_lifetime="1500ms",
    overdue_after="2500ms",
    tick_interval="200ms",
    lease_ttl="3s",
    node_ttl="3s",
    poll_interval="200ms",
    store_timeout="200ms",
    start_grace="1s",
)
NODES = 3
SCHEDULERS = 2
#: Whatever takes longer than this is stuck, however busy the machine is.
PATIENCE_S = 60.0
#: Fewer resumptions than this, and the clients have not tried.
_LEAST_RESUMED = 100

S = TypeVar("S", bound=Stand)


@dataclass
class StandingFleet(Fleet):
    """A fleet whose store is somebody else's affair."""

    url: str = field(default="", kw_only=True)

    @property
    def store_url(self) -> str:
        return self.url

    def start_store(self) -> None:
        pass

    def start_schedulers(self) -> None:
        for number in range(1, self.schedulers + 1):
            self.start_scheduler(number)

    def kill_schedulers(self) -> None:
        for number in range(1, self.schedulers + 1):
            self.kill(f"scheduler-{number}")

    def freeze(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Whoever is frozen goes on as if nothing had been."""
        for child in self.processes.values():
            child.send_signal(signal.SIGCONT)

    def start_fated(self, number: int, step: str, count: int) -> None:
        """Start an agent that dies the `count`th time that it has done `step` since it heard of a new window."""
        config = self._configure(f"a{number}", agent=self.servers[number - 1])
        argv = [sys.executable, str(fated.__file__), step, str(count), "--config", str(config)]
        name = f"agent-{number}"
        self.processes[name] = start_child(argv, log=self.directory / f"{name}.log")

    def died(self, number: int) -> bool:
        """Whether the agent was killed; False while it lives."""
        return self.processes[f"agent-{number}"].poll() == -signal.SIGKILL

    def lose_power(self) -> None:
        """Everything ends, and what lay in memory is gone; what was on disk is as it was."""
        for name in list(self.processes):
            self.kill(name)
        for server in self.servers:
            server.stop()
            server.key_file.unlink()
        for home in self.directory.glob("[as]?/run"):
            shutil.rmtree(home)


@dataclass
class Scene(Generic[S]):
    """
    What a scenario plays on. `blows` are the times to heal, in milliseconds.

    `beyond` says what sealed beyond its bound, `faults` whatever else was claimed and did not hold.
    """

    stand: S
    fleet: StandingFleet
    store: RedisStore
    blows: list[int] = field(default_factory=list, init=False)
    beyond: list[str] = field(default_factory=list, init=False)
    faults: list[str] = field(default_factory=list, init=False)
    tally: Tally = field(default=Tally(), init=False)
    keys: set[bytes] = field(default_factory=set, init=False)
    remarks: list[str] = field(default_factory=list, init=False)
    _clients: Clients | None = field(default=None, init=False)

    # What happens.

    def rotate(self) -> None:
        """One rotation by request, as soon as it would drop no live key, until every node has read it back."""
        before = self.ask_rotation()
        self.until(
            lambda: self.rotated(before) and self.fleet.in_step(self.store), "the rotation is read back everywhere"
        )

    def ask_rotation(self) -> int:
        """Ask for one as soon as it is free; return the epoch before it."""
        asked: list[int] = []

        def ask() -> bool:
            epoch = self.ask_if_free()
            asked.extend([] if epoch is None else [epoch])
            return epoch is not None

        self.until(ask, "a rotation is free")
        return asked[0]

    def ask_if_free(self) -> int | None:
        """Ask for one that would drop no live key, and return the epoch before it; None if it would."""
        if not self.operator.free():
            return None
        epoch = self.epoch
        self.operator.ask(Goal.ROTATE, epoch)
        return epoch

    def publish(self) -> None:
        """Ask for a rotation, and return at the instant at which the store has it: perhaps nobody else yet."""
        before = self.ask_rotation()
        self.until(lambda: self.rotated(before), "it is published")

    def strike(self, blow: Callable[[], object]) -> None:
        """Deal a blow, and wait until all is well again by what was said since."""
        struck_at = now_at()
        blow()
        self.heal(struck_at)

    def heal(self, struck_at: int) -> None:
        self.until(lambda: self.whole(struck_at), "every node is in step again with what the leader confirms")
        self.blows.append(now_at() - struck_at)

    def meanwhile(self, duration_ms: int) -> None:
        """Let the fleet live for a while, under its clients."""
        until = now_at() + duration_ms
        wait_until(lambda: now_at() >= until, "time passes", PATIENCE_S + duration_ms / 1000)

    # What is seen.

    def whole(self, since: int) -> bool:
        """Whether leader and nodes say, after `since`, that everyone has the window that stands."""
        look = self.store.look()
        if look.beat is None or not look.leader:
            return False
        beat = read_beat(look.beat, verifiers=self.fleet.verifiers, ring=RING)
        fresh = beat.signed_at > since and all(r.reported_at > since for r in self.fleet.reports(self.store))
        return fresh and beat.confirmed_at is not None and beat.digest == look.digest and self.fleet.in_step(self.store)

    def heard(self) -> bool:
        """Whether every node knows, by its cache, that all have the window that it holds."""
        folders = (self.fleet.directory / f"a{number}" / "run" for number in range(1, self.fleet.nodes + 1))
        return all(decode_cache((folder / f"agent-{RING}.cache").read_bytes()).confirmed_at for folder in folders)

    def rotated(self, past_epoch: int) -> bool:
        """Whether keys moved on since: a mend raises the epoch too, but only a rotation brings a new `next`."""
        return self.operator.window.next.born > past_epoch

    @property
    def epoch(self) -> int:
        return self.operator.window.epoch

    @property
    def leader(self) -> str:
        """The name of the process that holds the lease, '' while none does."""
        holder = self.store.look().leader
        return next((name for name, child in self.fleet.processes.items() if f"-{child.pid}-" in holder), "")

    def said(self, process: str, event: str) -> int:
        """How often a daemon's log tells of `event`."""
        return (self.fleet.directory / f"{process}.log").read_text().count(f'"event": "{event}"')

    @cached_property
    def operator(self) -> Operator:
        return Operator(self.fleet)

    @cached_property
    def policy(self) -> Policy:
        return load(self.fleet.config("s1")).rings[0].policy

    def until(self, claim: Callable[[], bool], what: str) -> None:
        """Wait for a condition. A store that is away, or shows what nobody signed, is not what was waited for."""

        def holds() -> bool:
            try:
                return claim()
            except (StoreUnavailable, CorruptWindow):
                return False

        wait_until(holds, what, PATIENCE_S)

    # Clients.

    @contextmanager
    def traffic(self) -> Iterator[None]:
        """Clients come and come back within the block, and every ticket is looked at; then all claims are judged."""
        lifetime_ms = self.policy.ticket_lifetime_ms
        clients = Clients(
            targets=self.fleet.targets,
            ticket_lifetime_ms=lifetime_ms,
            trust=self.fleet.trust,
            sni="localhost",
            now=now_at,
            rand=random.Random(),
        )
        watch = Watch(self.fleet, self.policy.eps_ms)
        try:
            with watch.watching(), clients.hammering():
                self.meanwhile(lifetime_ms)  # the oldest tickets are as old as they get
                yield
                self.meanwhile(lifetime_ms)
        finally:
            self._judge(clients, watch)

    def _judge(self, clients: Clients, watch: Watch) -> None:
        tally = clients.tally
        self.tally += tally
        self.keys.update(watch.sealed)
        self.beyond += watch.beyond()
        if tally.orphans:
            first = clients.orphans[0]
            name = (first.key_name or b"").hex()[:8]
            words = f"{first.issuer} to {first.taker}, {first.age_ms} ms old, sealed with {name}"
            self.faults.append(f"{tally.orphans} orphan tickets, the first from {words}")
        if tally.resumed < _LEAST_RESUMED:
            self.faults.append(f"only {tally.resumed} tickets were resumed: the clients have not tried")


@contextmanager
def set_up(stand: S, directory: Path, haproxy_exe: Path, pace: Pace) -> Iterator[Scene[S]]:
    """A fleet that has rotated once; whatever is frozen is thawed before it is ended."""
    makers = (partial(HAProxy, exe=haproxy_exe),)
    fleet = StandingFleet(directory, makers, nodes=NODES, schedulers=SCHEDULERS, pace=pace, url=stand.url)
    with ExitStack() as stack:
        stack.callback(fleet.close)
        stack.callback(fleet.thaw)
        fleet.start()
        store = fleet.store()
        stack.callback(store.close)
        scene = Scene(stand, fleet, store)
        stack.callback(scene.operator.store.close)
        scene.until(lambda: scene.whole(0), "the first window is confirmed")
        yield scene
