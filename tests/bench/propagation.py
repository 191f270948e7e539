"""From a window's publish (the instant in it, read before it is sealed) to the last node's read-back in the store."""

import multiprocessing
import random
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from multiprocessing import queues, synchronize
from pathlib import Path

import redis

from keyrotd.testing.clients import Clients, Tally
from keyrotd.testing.fleet import Fleet
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import LiveServer
from keyrotd.tls.handshake import Trust
from keyrotd.tls.target import Target
from tests.bench.lines import Lines, timed_ms
from tests.scenes import HURRIED, Operator, haproxies, now_at, short_directory, started

_ROTATIONS = 20
_HAMMERS = 2
_POLL = "1s"


def measure(lines: Lines) -> None:
    with _two_nodes() as operator:
        fleet = operator.fleet
        lines.spread("bare push and read-back over both sockets, one by one", _bare_pushes(haproxies(fleet)), "ms")
        calm = _rotations(operator)
        lines.judge("published to read back on 2 nodes, median", statistics.median(calm), "ms", most=50)
        lines.figure("  worst", max(calm), "ms")
        with _hammered(fleet):
            hammered = _rotations(operator)
        lines.judge("the same while clients hammer both, median", statistics.median(hammered), "ms", most=50)
        lines.figure("  worst", max(hammered), "ms")
    with _two_nodes(deaf=True) as operator:
        lines.spread(f"poll only (no wake-ups, a poll every {_POLL})", _rotations(operator), "ms")


def _rotations(operator: Operator) -> list[float]:
    return [operator.rotate() for _ in range(_ROTATIONS)]


@contextmanager
def _two_nodes(*, deaf: bool = False) -> Iterator[Operator]:
    with short_directory() as directory:
        if deaf:
            fleet: Fleet = DeafFleet(directory, nodes=2, pace=replace(HURRIED, poll_interval=_POLL))
        else:
            fleet = Fleet(directory, nodes=2, pace=HURRIED)
        with started(fleet) as operator:
            yield operator


@dataclass
class DeafFleet(Fleet):
    """Its agents log in as a user who may not listen to any channel: they poll, and nothing shortens their waits."""

    def start_store(self) -> None:
        super().start_store()
        with redis.Redis(unix_socket_path=self.store_url.removeprefix("unix://")) as store:
            store.execute_command("ACL", "SETUSER", "deaf", "on", ">deaf", "~*", "+@all", "resetchannels")

    def _configure(self, name: str, *, agent: LiveServer | None) -> Path:
        path = super()._configure(name, agent=agent)
        if agent is not None:
            password = path.with_name("store.password")
            password.write_text("deaf")
            password.chmod(0o600)
            deaf = self.store_url.replace("unix://", "unix://deaf@") + f"?password_file={password}"
            path.write_text(path.read_text().replace(f'"{self.store_url}"', f'"{deaf}"'))
        return path


@contextmanager
def _hammered(fleet: Fleet) -> Iterator[None]:
    """By a process of its own: whoever measures must not wait for the clients' interpreter lock."""
    spawn = multiprocessing.get_context("spawn")
    stop, results = spawn.Event(), spawn.SimpleQueue()
    clients = spawn.Process(target=_hammer, args=(fleet.targets, fleet.trust, stop, results), daemon=True)
    clients.start()
    assert results.get() is None  # they have begun
    try:
        yield
    finally:
        stop.set()
        tally = results.get()
        clients.join()
    assert isinstance(tally, Tally)
    assert (tally.orphans, tally.failed) == (0, 0), tally


def _hammer(
    targets: list[Target], trust: Trust, stop: synchronize.Event, results: "queues.SimpleQueue[Tally | None]"
) -> None:
    clients = Clients(
        targets=targets, ticket_lifetime_ms=500, trust=trust, sni="localhost", now=now_at, rand=random.Random(1)
    )
    with clients.hammering(threads=_HAMMERS):
        results.put(None)
        stop.wait()
    results.put(clients.tally)


def _bare_pushes(nodes: list[HAProxy]) -> list[float]:
    """The floor: one key into each node's ring and the ring read back, without any of keyrotd."""
    rings = {node.name: cycle(node.ring()) for node in nodes}

    def push() -> None:
        for node in nodes:
            node.ask(f"set ssl tls-key {node.key_file} {next(rings[node.name])};show tls-keys {node.key_file}")

    # A whole number of turns: the rings are left as they were found.
    return timed_ms(push, 30)
