"""
One store, one real scheduler, and as many simulated agents as asked for, each on one connection.

The agents share the machine with what they load, so what they took of it stands beside every figure; where they cannot
poll as often as they should, the store's share at the nominal rate is its measured time per poll times that rate.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from redis import Redis

from keyrotd.core.messages import Goal
from keyrotd.core.policy import JITTER_PERCENT
from keyrotd.daemon.agent import Trust
from keyrotd.durations import parse as parse_ms
from keyrotd.seal.messages import read_beat
from keyrotd.testing.children import wait_until
from keyrotd.testing.fleet import RING, Fleet, Pace
from tests.bench.crowd import Plan, Tally, host
from tests.bench.footprint import cpu_s, status_mib
from tests.bench.lines import Lines
from tests.scenes import Operator, short_directory, started

#: The defaults of a configuration; nothing is due while anybody looks.
USUAL = Pace(
    rotation_interval="4h",
    ticket_lifetime="2h",
    overdue_after="30m",
    tick_interval="1s",
    lease_ttl="10s",
    node_ttl="30s",
    poll_interval="5s",
    store_timeout="1s",
    start_grace="10s",
)
_PATIENCE_S = 300.0
#: Schedulers, people and the bench itself.
_BESIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """From the window's publish to the last report, and what that took beyond rest, in seconds of CPU."""

    took_ms: int
    store_s: float
    agents_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one size of fleet showed. Shares are of one core."""

    agents: int
    polls_a_s: float
    nominal_polls_a_s: float
    commands_a_s: float
    bytes_a_s: float
    store_share: float
    agents_share: float
    scheduler_share: float
    rotations: list[Rotation]
    connections: int
    status_s: float
    scheduler_mib: float
    store_mib: float
    faults: int

    @property
    def store_us_a_poll(self) -> float:
        """All that the store did meanwhile, the leader's reading included."""
        return 1e6 * self.store_share / self.polls_a_s

    @property
    def computed_share(self) -> float:
        return self.store_us_a_poll * self.nominal_polls_a_s / 1e6


def main(words: list[str]) -> int:
    """Run as `./dev bench scale` with options; the exit code tells whether every target was met."""
    parser = argparse.ArgumentParser(prog="./dev bench scale", description=__doc__)
    parser.add_argument(
        "--agents", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes of the fleet, rising"
    )
    parser.add_argument("--seconds", type=float, default=30, help="how long to watch each fleet at rest")
    parser.add_argument("--rotations", type=int, default=3, help="how many to time at each size")
    parser.add_argument("--workers", type=int, default=4, help="processes that the agents share")
    parser.add_argument("--markdown", action="store_true", help="print the table of README")
    asked = parser.parse_args(words)
    lines = Lines("scale")
    found = list(measure(lines, asked.agents, seconds=asked.seconds, rotations=asked.rotations, workers=asked.workers))
    if asked.markdown:
        print("\n".join(markdown(found)))
    print(f"\ntargets missed: {lines.missed}")
    return 1 if lines.missed else 0


def measure(
    lines: Lines, sizes: list[int], *, seconds: float, rotations: int, workers: int, pace: Pace = USUAL
) -> Iterator[Found]:
    _allow_files(max(sizes) + _BESIDE)
    with short_directory() as directory:
        fleet = Fleet(directory, makers=(), nodes=0, schedulers=1, pace=pace)
        with started(fleet) as operator, _crowd(fleet, workers) as crowd:
            with _owner(fleet) as owner:
                owner.config_set("maxclients", max(sizes) + _BESIDE)
            rate, ping_us = _pings(fleet)
            lines.say("a bare PING to the same store", f"{rate:.0f} a second, {ping_us:.1f} us of its CPU each")
            for size in sizes:
                found = _look(operator, crowd, size, seconds, rotations)
                tell(lines, found)
                yield found


def tell(lines: Lines, found: Found) -> None:
    lines.say(
        f"{found.agents} agents", f"{found.polls_a_s:.0f} polls a second of {found.nominal_polls_a_s:.0f} nominal"
    )
    lines.figure("  commands to the store", found.commands_a_s, "a second")
    lines.figure("  bytes in and out", found.bytes_a_s / 1000, "kB a second")
    lines.figure("  store, measured at that rate", 100 * found.store_share, "% of a core")
    lines.figure("  store, each poll (the leader's reading included)", found.store_us_a_poll, "us of CPU")
    share = 100 * found.computed_share
    lines.judge("  store, computed: time per poll x nominal rate", share, "% of a core", most=25)
    lines.figure("  agents themselves, all of them", 100 * found.agents_share, "% of a core")
    lines.figure("  scheduler", 100 * found.scheduler_share, "% of a core")
    lines.judge("  scheduler, resident at its highest", found.scheduler_mib, "MiB", most=150)
    lines.figure("  store, resident", found.store_mib, "MiB")
    said, took_s = "  publish to last report, worst", max(rotation.took_ms for rotation in found.rotations) / 1000
    if found.agents <= 1_000:  # above that, these cores are the agents' own bound
        lines.judge(said, took_s, "s", most=2)
    else:
        lines.figure(said, took_s, "s")
    lines.figure("    agents meanwhile, polls included", max(each.agents_s for each in found.rotations), "core-s")
    lines.judge("  store, a rotation beyond rest, worst", max(r.store_s for r in found.rotations), "core-s", most=1)
    lines.figure("  connections to the store", found.connections, "")
    lines.judge("  keyrotd status, median, agents held", found.status_s, "s", most=1)
    lines.figure("  faults of the store that agents met", found.faults, "")


def markdown(found: list[Found]) -> Iterator[str]:
    """The table of README, a column for each size."""
    rows: dict[str, Callable[[Found], str]] = {
        "polls a second, achieved of nominal": lambda f: f"{f.polls_a_s:.0f} of {f.nominal_polls_a_s:.0f}",
        "commands a second": lambda f: f"{f.commands_a_s:.0f}",
        "kB a second, in and out": lambda f: f"{f.bytes_a_s / 1000:.0f}",
        "store, measured at that rate": lambda f: f"{f.store_share:.1%} of a core",
        "store, computed at the nominal rate": lambda f: f"{f.computed_share:.1%} of a core",
        "simulated agents, all of them": lambda f: f"{f.agents_share:.0%} of a core",
        "scheduler": lambda f: f"{f.scheduler_share:.1%} of a core",
        "scheduler, resident at its highest": lambda f: f"{f.scheduler_mib:.0f} MiB",
        "publish to last report, median": lambda f: f"{statistics.median(r.took_ms for r in f.rotations) / 1000:.2f} s",
        "publish to last report, worst": lambda f: f"{max(r.took_ms for r in f.rotations) / 1000:.2f} s",
        "store, each rotation, worst": lambda f: f"{max(r.store_s for r in f.rotations):.2f} core-s",
        "`keyrotd status`, agents held still": lambda f: f"{f.status_s:.2f} s",
    }
    yield f"| agents | {' | '.join(f'{each.agents:,}' for each in found)} |"
    yield f"|---|{'---:|' * len(found)}"
    for title, cell in rows.items():
        yield f"| {title} | {' | '.join(map(cell, found))} |"


# A fleet, and everybody in it.


class _Crowds:
    """The workers, spoken to as one."""

    def __init__(self, orders: list[Connection], pids: list[int]) -> None:
        self._orders, self._pids = orders, pids
        self._agents = 0

    def grow(self, size: int) -> None:
        share = (size - self._agents + len(self._orders) - 1) // len(self._orders)
        starts = range(self._agents, size, max(1, share))
        for order, start in zip(self._orders, starts, strict=False):
            order.send(range(start, min(start + share, size)))
        for order, _ in zip(self._orders, starts, strict=False):
            order.recv()
        self._agents = size

    def tally(self) -> Tally:
        for order in self._orders:
            order.send("tally")
        return sum((order.recv() for order in self._orders), Tally())

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold all agents: a fleet's own hosts take no time of the one where a person looks."""
        try:
            for pid in self._pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in self._pids:
                os.kill(pid, signal.SIGCONT)


@contextmanager
def _crowd(fleet: Fleet, workers: int) -> Iterator[_Crowds]:
    plan = Plan(
        directory=fleet.directory,
        store_url=fleet.store_url,
        ring=RING,
        trust=Trust(verifiers=fleet.verifiers, keks=fleet.keks),
        poll_interval_ms=parse_ms(fleet.pace.poll_interval),
        timeout_ms=parse_ms(fleet.pace.store_timeout),
    )
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        orders, pids = [], []
        for _ in range(workers):
            ours, theirs = spawn.Pipe()
            child = spawn.Process(target=host, args=(plan, theirs), daemon=True)
            child.start()
            stack.callback(child.join)
            stack.callback(ours.send, None)
            orders.append(ours)
            assert child.pid is not None
            pids.append(child.pid)
        yield _Crowds(orders, pids)


# Measuring.


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    store_s: float
    scheduler_s: float
    commands: int
    carried: int
    connections: int
    tally: Tally


def _look(operator: Operator, crowd: _Crowds, size: int, seconds: float, rotations: int) -> Found:
    fleet = operator.fleet
    crowd.grow(size)
    _settled(operator, crowd, size, operator.window.epoch, joined=True)
    time.sleep(parse_ms(fleet.pace.poll_interval) / 1000)
    before = _sample(fleet, crowd)
    time.sleep(seconds)
    after = _sample(fleet, crowd)
    took_s = after.at_s - before.at_s
    rest = (after.store_s - before.store_s) / took_s
    rotated = [_rotate(operator, crowd, size, before, after) for _ in range(rotations)]
    with crowd.still():
        status_s = statistics.median(_status_s(fleet) for _ in range(3))
    return Found(
        agents=size,
        polls_a_s=(after.tally.polls - before.tally.polls) / took_s,
        nominal_polls_a_s=size / (parse_ms(fleet.pace.poll_interval) / 1000 * (1 + JITTER_PERCENT / 200)),
        commands_a_s=(after.commands - before.commands) / took_s,
        bytes_a_s=(after.carried - before.carried) / took_s,
        store_share=rest,
        agents_share=(after.tally.cpu_s - before.tally.cpu_s) / took_s,
        scheduler_share=(after.scheduler_s - before.scheduler_s) / took_s,
        rotations=rotated,
        connections=after.connections,
        status_s=status_s,
        scheduler_mib=status_mib(fleet.processes["scheduler-1"].pid)["VmHWM"],
        store_mib=status_mib(fleet.store_pid)["VmRSS"],
        faults=crowd.tally().faults,
    )


def _rotate(operator: Operator, crowd: _Crowds, size: int, before: _Sample, after: _Sample) -> Rotation:
    """`before` and `after` are what a fleet at rest takes."""
    fleet = operator.fleet
    wait_until(lambda: _confirmed(operator, operator.window.epoch), "the last one is over", patience_s=_PATIENCE_S)
    epoch, began = operator.window.epoch + 1, _sample(fleet, crowd)
    operator.ask(Goal.ROTATE, epoch - 1)
    wait_until(lambda: operator.window.epoch >= epoch, "the window is published", patience_s=_PATIENCE_S)
    published_at = operator.window.published_at
    last_at = _settled(operator, crowd, size, epoch)
    ended = _sample(fleet, crowd)
    rest = (ended.at_s - began.at_s) / (after.at_s - before.at_s)
    return Rotation(
        took_ms=last_at - published_at,
        store_s=ended.store_s - began.store_s - rest * (after.store_s - before.store_s),
        agents_s=ended.tally.cpu_s - began.tally.cpu_s,
    )


def _settled(operator: Operator, crowd: _Crowds, size: int, epoch: int, *, joined: bool = False) -> int:
    """Wait until every agent reported the epoch, and the leader confirmed it; when the last one had, in Unix ms."""
    told: list[tuple[int, int]] = []

    def reported() -> bool:
        told.append(crowd.tally().epochs.get(epoch, (0, 0)))
        return told[-1][0] >= size

    wait_until(reported, f"{size} agents report epoch {epoch}", patience_s=_PATIENCE_S)
    if not joined:
        wait_until(lambda: _confirmed(operator, epoch), "the leader confirms it", patience_s=_PATIENCE_S)
    return told[-1][1]


def _confirmed(operator: Operator, epoch: int) -> bool:
    data = operator.store.look().beat
    beat = None if data is None else read_beat(data, verifiers=operator.fleet.verifiers, ring=RING)
    return beat is not None and beat.epoch == epoch and beat.confirmed_at is not None


def _sample(fleet: Fleet, crowd: _Crowds) -> _Sample:
    with _owner(fleet) as owner:
        stats, clients = owner.info("stats"), owner.info("clients")
    return _Sample(
        at_s=time.monotonic(),
        store_s=cpu_s(fleet.store_pid),
        scheduler_s=cpu_s(fleet.processes["scheduler-1"].pid),
        commands=stats["total_commands_processed"],
        carried=stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
        connections=clients["connected_clients"],
        tally=crowd.tally(),
    )


def _owner(fleet: Fleet) -> Redis:
    return Redis(unix_socket_path=fleet.store_url.removeprefix("unix://"))


def _status_s(fleet: Fleet) -> float:
    began_s = time.monotonic()
    argv = [sys.executable, "-m", "keyrotd", "status", "--config", str(fleet.config("s1"))]
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.monotonic() - began_s


def _pings(fleet: Fleet, seconds: float = 1.0) -> tuple[float, float]:
    """How many a second, one by one over one connection, and what each costs the store in microseconds of CPU."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(fleet.store_url.removeprefix("unix://"))
        count, began_s, spent_s = 0, time.monotonic(), cpu_s(fleet.store_pid)
        while (took_s := time.monotonic() - began_s) < seconds:
            line.sendall(b"PING\r\n")
            assert line.recv(64) == b"+PONG\r\n"
            count += 1
    return count / took_s, 1e6 * (cpu_s(fleet.store_pid) - spent_s) / count


def _allow_files(count: int) -> None:
    """Store and workers inherit it: a connection is a file on either side, and each process has some others."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = count + 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (want if hard == resource.RLIM_INFINITY else min(want, hard), hard))
