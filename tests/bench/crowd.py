"""
Thousands of agents in one process: the real tick and the real store adapter, one connection each, and servers of air.

A daemon has a thread that ticks and one that listens; here one thread serves all in turn, whoever is due or hinted at.
"""

import heapq
import os
import random
import resource
import select
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

from keyrotd.core.policy import JITTER_PERCENT
from keyrotd.daemon.agent import RingAgent, Settings, Trust, World
from keyrotd.daemon.clock import SystemClock
from keyrotd.daemon.tending import Inline, Server
from keyrotd.store import addresses
from keyrotd.store.redis import Listening, RedisStore
from keyrotd.testing.folder import MemoryFolder
from keyrotd.testing.telemetry import SilentTelemetry
from keyrotd.testing.twins import MemoryServer

#: Between two looks at who was hinted at.
_TURNS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where the store is, and as whom and how often the agents poll it."""

    directory: Path
    store_url: str
    ring: str
    trust: Trust
    poll_interval_ms: int
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """`epochs`: how many agents reported that epoch read back, and when the last of them had, in Unix ms."""

    agents: int = 0
    polls: int = 0
    faults: int = 0
    cpu_s: float = 0.0
    epochs: dict[int, tuple[int, int]] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        epochs = dict(self.epochs)
        for epoch, (count, last_at) in other.epochs.items():
            before, before_at = epochs.get(epoch, (0, 0))
            epochs[epoch] = before + count, max(before_at, last_at)
        return Tally(
            agents=self.agents + other.agents,
            polls=self.polls + other.polls,
            faults=self.faults + other.faults,
            cpu_s=self.cpu_s + other.cpu_s,
            epochs=epochs,
        )


def host(plan: Plan, orders: Connection) -> None:
    """Serve `orders`: a range of numbers adds agents, None ends, and everything is answered with the tally."""
    crowd = _Crowd(plan, orders)
    while crowd.turn():
        pass


class _Telemetry(SilentTelemetry):
    epoch = 0
    faults = 0

    def gauge(self, metric: str, value: float, **labels: str) -> None:
        _ = labels
        if metric == "epoch":
            self.epoch = int(value)

    def count(self, metric: str, **labels: str) -> None:
        _ = labels
        self.faults += metric == "store_errors_total"


@dataclass
class _Node:
    agent: RingAgent
    store: RedisStore
    heard: Listening
    telemetry: _Telemetry
    due_s: float
    watched: int = -1
    epoch: int = 0


class _Crowd:
    def __init__(self, plan: Plan, orders: Connection) -> None:
        self._plan, self._orders = plan, orders
        self._nodes: list[_Node] = []
        self._due: list[tuple[float, int]] = []
        self._by_fileno: dict[int, int] = {}
        self._said = select.epoll()
        self._said.register(orders.fileno(), select.EPOLLIN)
        self._clock = SystemClock()
        self._tally = Tally()

    def turn(self) -> bool:
        """Listen, then tick some of those who are due. False: it is over."""
        pause_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        for fileno, _ in self._said.poll(pause_s):
            if fileno == self._orders.fileno():
                if not self._obey():
                    return False
            else:
                self._hint(self._by_fileno[fileno])
        for _ in range(_TURNS):
            if not self._due or self._due[0][0] > time.monotonic():
                break
            due_s, number = heapq.heappop(self._due)
            if self._nodes[number].due_s == due_s:  # else it was hinted at, and stands there once more
                self._tick(number)
        return True

    def _obey(self) -> bool:
        order = self._orders.recv()
        if order is None:
            for node in self._nodes:
                node.store.close()
        elif isinstance(order, range):
            for number in order:
                self._add(number)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        faults = sum(node.telemetry.faults for node in self._nodes)
        self._orders.send(replace(self._tally, cpu_s=usage.ru_utime + usage.ru_stime, faults=faults))
        return order is not None

    def _add(self, number: int) -> None:
        plan, telemetry = self._plan, _Telemetry()
        address = addresses.parse(plan.store_url, runtime_dir=plan.directory)
        store = RedisStore(address, ring=plan.ring, namespace="keyrotd", timeout_ms=plan.timeout_ms)
        agent = RingAgent(
            Settings(
                ring=plan.ring,
                node=f"node-{number:05}",
                poll_interval_ms=plan.poll_interval_ms,
                start_grace_ms=plan.poll_interval_ms,
            ),
            plan.trust,
            World(
                store=store,
                servers=(Server(driver=MemoryServer(), prove=None),),
                workers=Inline(),
                runtime=MemoryFolder(),
                state=MemoryFolder(),
                clock=self._clock,
                rand=os.urandom,
                telemetry=telemetry,
            ),
        )
        heard = store.listen(schedules=False, changed=lambda: None)
        due_s = time.monotonic() + random.random() * plan.poll_interval_ms / 1000
        self._nodes.append(_Node(agent, store, heard, telemetry, due_s))
        heapq.heappush(self._due, (due_s, len(self._nodes) - 1))
        self._tally = replace(self._tally, agents=len(self._nodes))

    def _hint(self, number: int) -> None:
        node = self._nodes[number]
        node.heard.listen()
        hint_s = node.heard.ear.hint_s
        if hint_s is not None and hint_s < node.due_s:
            node.due_s = hint_s
            heapq.heappush(self._due, (hint_s, number))
        self._watch(number)

    def _tick(self, number: int) -> None:
        node = self._nodes[number]
        node.heard.ear.take_hint()
        pause_s = node.agent.tick() / 1000
        node.due_s = time.monotonic() + pause_s * (1 + random.random() * JITTER_PERCENT / 100)
        heapq.heappush(self._due, (node.due_s, number))
        self._tally = replace(self._tally, polls=self._tally.polls + 1)
        if node.telemetry.epoch != node.epoch:
            node.epoch = node.telemetry.epoch
            count, _ = self._tally.epochs.get(node.epoch, (0, 0))
            self._tally.epochs[node.epoch] = count + 1, time.time_ns() // 1_000_000
        self._hint(number)

    def _watch(self, number: int) -> None:
        node = self._nodes[number]
        fileno = node.heard.fileno
        if fileno != node.watched:
            # A number that was closed has left by itself, and may be another's by now.
            if fileno >= 0:
                self._said.register(fileno, select.EPOLLIN)
                self._by_fileno[fileno] = number
            node.watched = fileno
