"""`keyrotd demo`: everything real on this machine, rotated under load while things go wrong. The exit code tells."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from keyrotd.core.errors import KeyrotdError, StoreUnavailable
from keyrotd.core.policy import words
from keyrotd.core.window import Window
from keyrotd.store.redis import RedisStore
from keyrotd.testing.children import wait_until
from keyrotd.testing.clients import Clients, Tally
from keyrotd.testing.fleet import RING, Fleet
from keyrotd.testing.kinds import KINDS
from keyrotd.testing.live import LiveServer
from keyrotd.tls.target import parse_target

_LEAST_ROTATIONS = 3
#: A rotation is due every 8 s here; whatever takes three times that is stuck.
_PATIENCE_S = 30.0
_LOOK_EVERY_S = 0.004
#: Of our own looks: a machine that is busy with the demo is no fault of the store's.
_STORE_TIMEOUT_MS = 10_000
_HAMMERS = 2
_MOST_NODES = 12


@click.command("demo")
@click.option(
    "--server",
    "kinds",
    type=click.Choice(tuple(KINDS)),
    multiple=True,
    default=("haproxy",),
    show_default=True,
    help="Which TLS server; several times for a mix, whose kinds the nodes take in turn.",
)
@click.option(
    "--nodes",
    type=click.IntRange(2, _MOST_NODES),
    show_default="3, or 2 of each kind",
    help="TLS servers, an agent each; at least two of each kind.",
)
@click.option(
    "--rotations",
    type=click.IntRange(_LEAST_ROTATIONS, 100),
    default=6,
    show_default=True,
    help="How many rotations to see, a scheduled one every 8 s.",
)
def demo(kinds: tuple[str, ...], nodes: int | None, rotations: int) -> None:
    r"""
    Start a real Valkey, two schedulers, and TLS servers with an agent each; rotate under load.

    On the way the leader is killed, a server reloaded, another restarted, an agent restarted and the store flushed,
    while clients hold tickets of every age up to T and resume them on random nodes of the same kind. Needs no
    configuration and no root, uses loopback only, takes about a minute and leaves nothing behind.

    \b
    keyrotd demo
    keyrotd demo --nodes 5 --rotations 10
    keyrotd demo --server haproxy --server envoy
    """
    kinds = tuple(dict.fromkeys(kinds))
    nodes = nodes or (3 if len(kinds) == 1 else 2 * len(kinds))
    if nodes < 2 * len(kinds):
        raise click.UsageError(f"--nodes {nodes} are too few for two of each: {', '.join(kinds)}")
    makers = [KINDS[kind].find() for kind in kinds]
    # A short path: a Unix socket's may have 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="keyrotd-demo-", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108
    try:
        fleet = Fleet(directory / "f", makers, nodes=nodes)
        try:
            clean = Demo(fleet, rotations).run()
        finally:
            fleet.close()
    finally:
        shutil.rmtree(directory)
    sys.exit(0 if clean else 1)


@dataclass
class Demo:
    """The scene. Every step waits for what it claims, and prints what it saw."""

    fleet: Fleet
    rotations: int
    started_s: float = field(default_factory=time.monotonic, init=False)
    rotated: int = field(default=0, init=False)
    spread_ms: list[int] = field(default_factory=list, init=False)
    moved_pids: list[str] = field(default_factory=list, init=False)

    def run(self) -> bool:
        fleet = self.fleet
        kinds = Counter(_title(server) for server in fleet.servers)
        nodes = " + ".join(f"{count} {title}" for title, count in kinds.items())
        self._say(f"starting a store, {fleet.schedulers} schedulers, {fleet.nodes} agents and {nodes} nodes")
        fleet.start()
        self.store = fleet.store(timeout_ms=_STORE_TIMEOUT_MS)
        self._until(lambda: fleet.in_step(self.store), "the first window is read back everywhere")
        window = self._window()
        self.lifetime_ms = window.ticket_lifetime_ms
        self.crowds = {server.kind: self._crowd(server.kind) for server in fleet.servers}
        self._say(f"window {window.epoch} is read back on all nodes; R 8s, T {words(self.lifetime_ms)}; clients begin")
        self.pids = {server.name: server.pid for server in fleet.servers}
        with self._watching(), ExitStack() as stack:
            for crowd in self.crowds.values():
                stack.enter_context(crowd.hammering(threads=max(_HAMMERS // len(self.crowds), 1)))
            self._scene()
        return self._summary()

    def _crowd(self, kind: str) -> Clients:
        """Those who visit the servers of one kind: a ticket opens wherever its kind of server runs."""
        return Clients(
            targets=[parse_target(server.address) for server in self.fleet.servers if server.kind == kind],
            ticket_lifetime_ms=self.lifetime_ms,
            trust=self.fleet.trust,
            sni="localhost",
            now=lambda: time.time_ns() // 1_000_000,
            rand=random.Random(),  # noqa: S311 - whom a client visits is no secret
        )

    def _scene(self) -> None:
        steps = [self._kill_leader, self._reload, self._restart, self._restart_agent, self._flush]
        self._scheduled_rotation()
        self._rotate_now()
        while steps or self.rotated < self.rotations:
            for step in steps[:2]:
                step()
            del steps[:2]
            self._scheduled_rotation()

    # What happens.

    def _scheduled_rotation(self) -> None:
        self._wait_rotated(self._window().epoch, "scheduled rotation")

    def _rotate_now(self) -> None:
        window = self._window()
        free_at = max((key.opens_until for key in window.previous), default=0)
        settled_at = window.published_at + window.ticket_lifetime_ms + 2_000
        self._until(lambda: time.time() * 1000 > min(free_at, settled_at), "old tickets have expired")
        argv = [sys.executable, "-m", "keyrotd", "rotate", "--now", "--ring", RING, "--reason", "demo"]
        environment = {**os.environ, "KEYROTD_CONFIG": str(self.fleet.config("s1"))}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=_PATIENCE_S)  # noqa: S603
        for line in (done.stdout + done.stderr).strip().splitlines():
            self._say(f"  $ keyrotd rotate --now | {line}")
        self._wait_rotated(window.epoch, "scheduled rotation" if done.returncode else "`keyrotd rotate --now`")

    def _wait_rotated(self, epoch: int, what: str) -> None:
        self._until(lambda: self.fleet.in_step(self.store, above=epoch), what)
        self.rotated += self._window().epoch - epoch
        for server in self.fleet.servers:
            if server.pid != self.pids[server.name]:
                self.moved_pids.append(server.name)
        self._say(f"{what}: window {self._window().epoch} is read back on all nodes")

    def _kill_leader(self) -> None:
        leader = self._leader()
        began_s = time.monotonic()
        self.fleet.kill(leader)
        self._until(lambda: self._leader() not in {leader, ""}, "another scheduler leads")
        self._say(f"killed {leader} (SIGKILL): {self._leader()} leads after {time.monotonic() - began_s:.1f} s")

    def _reload(self) -> None:
        for server in self.fleet.servers:
            outcome = KINDS[server.kind].reload
            if outcome is not None:
                server.reload()
                self.pids[server.name] = server.pid
                self._say(f"reloaded {_title(server)} {server.name}: {outcome}")
                return

    def _restart(self) -> None:
        server = self.fleet.servers[1]
        with self._drained(server):
            server.restart()
        self.pids[server.name] = server.pid
        self._say(f"restarted {_title(server)} {server.name} (out of the balancer meanwhile): its file had the keys")

    def _restart_agent(self) -> None:
        name = f"agent-{self.fleet.nodes}"
        last_word = self._counter(self.fleet.nodes)
        self.fleet.kill(name)
        self.fleet.start_agent(self.fleet.nodes)
        self._until(
            lambda: self._counter(self.fleet.nodes) > last_word and self.fleet.in_step(self.store),
            "the restarted agent is in step",
        )
        self._say(f"killed and started {name}: in step again")

    def _flush(self) -> None:
        epoch = self._window().epoch
        self.fleet.flush()
        self._until(lambda: self.fleet.in_step(self.store, above=epoch), "the store is mended")
        self._say(f"flushed the store (FLUSHALL): mended as window {self._window().epoch}, no key lost")

    # What is seen.

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Time every window from its publish to its last read-back, over a connection of its own."""
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            try:
                watch = pool.submit(self._watch, self.fleet.store(timeout_ms=_STORE_TIMEOUT_MS), stop)
                yield
            finally:
                stop.set()
            watch.result()

    def _watch(self, store: RedisStore, stop: threading.Event) -> None:
        timed = self._window().digest
        while not stop.wait(_LOOK_EVERY_S):
            try:
                window = self.fleet.window(store)
                if window is not None and window.digest != timed and self.fleet.in_step(store):
                    self.spread_ms.append(time.time_ns() // 1_000_000 - window.published_at)
                    timed = window.digest
            except StoreUnavailable:
                continue

    @contextmanager
    def _drained(self, server: LiveServer) -> Iterator[None]:
        """Take a node out of the balancer, as one does before a restart."""
        clients = self.crowds[server.kind]
        everybody = clients.targets
        clients.targets = [t for t in everybody if str(t) != server.address]
        # Whoever is on the way there arrives within a handshake's timeout; a handshake here takes milliseconds.
        handshakes = clients.tally.handshakes
        self._until(lambda: clients.tally.handshakes > handshakes + 2 * _HAMMERS, "clients go elsewhere")
        try:
            yield
        finally:
            clients.targets = everybody

    def _window(self) -> Window:
        window = self.fleet.window(self.store)
        if window is None:
            raise KeyrotdError("demo: the store has no window", hint="it was flushed and not mended yet?")
        return window

    def _counter(self, number: int) -> int:
        node = self.fleet.servers[number - 1].name
        return next((r.counter for r in self.fleet.reports(self.store) if r.node == node), 0)

    def _leader(self) -> str:
        leader = self.store.look().leader
        return next((n for n, child in self.fleet.processes.items() if f"-{child.pid}-" in leader), "")

    def _until(self, claim: Callable[[], bool], what: str) -> None:
        wait_until(claim, what, _PATIENCE_S)

    def _say(self, line: str) -> None:
        click.echo(f"{time.monotonic() - self.started_s:5.1f}s  {line}")

    def _summary(self) -> bool:
        tally = sum((crowd.tally for crowd in self.crowds.values()), Tally())
        median, worst = statistics.median(self.spread_ms), max(self.spread_ms)
        click.echo()
        click.echo(f"R {self.fleet.pace.rotation_interval}, T {words(self.lifetime_ms)}, {self.fleet.nodes} nodes")
        click.echo(f"rotations: {self.rotated} (and one mend)")
        click.echo(f"published to read back everywhere: median {median:.0f} ms, worst {worst} ms")
        click.echo(f"handshakes: {tally.handshakes}, resumed: {tally.resumed}")
        click.echo(f"failed connections: {tally.failed}")
        moved = f"changed on {', '.join(self.moved_pids)}" if self.moved_pids else "unchanged by every rotation"
        click.echo(f"{' and '.join(KINDS[kind].title for kind in self.crowds)} pids: {moved}")
        click.echo(f"orphan tickets: {tally.orphans}")
        return tally.orphans == 0 and tally.failed == 0 and not self.moved_pids


def _title(server: LiveServer) -> str:
    return KINDS[server.kind].title
