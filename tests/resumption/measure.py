"""One run over all regimes at once, so that whatever else this machine does hits them alike."""

import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from keyrotd.testing.certificates import LeafKey
from keyrotd.testing.live import LiveServer
from keyrotd.tls.handshake import Version
from tests.resumption.balancer import balanced
from tests.resumption.load import Crowd, Idlers, Visit, come_steadily, threads
from tests.resumption.regimes import Kind, Regime, side_by_side
from tests.scenes import short_directory

#: What a server signs a full handshake with: it costs a server more or less, and a resumed one needs none of it.
KEYS: Mapping[str, Callable[[], LeafKey]] = MappingProxyType(
    {"p256": lambda: generate_private_key(SECP256R1()), "rsa2048": lambda: rsa.generate_private_key(65537, 2048)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`rate_per_s` is of all regimes together; `every_s` between the beginnings of two rotations."""

    key: str = "p256"
    nodes: int = 3
    rotations: int = 6
    every_s: float = 8
    rate_per_s: float = 180
    one_way_ms: float = 20
    idle: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one regime's clients and servers. `failed` by their words; CPU of its servers alone, in ms."""

    regime: str
    visits: Sequence[Visit]
    failed: Mapping[str, int]
    cpu_ms: float
    idle: int
    idle_closed: int

    @property
    def offered(self) -> int:
        """How many had a ticket to offer."""
        return sum(visit.offered for visit in self.visits)

    @property
    def resumed(self) -> int:
        return sum(visit.resumed for visit in self.visits)

    @property
    def opened_share(self) -> float:
        """Of the tickets that were offered."""
        return self.resumed / self.offered

    def resumed_share(self, version: Version) -> float:
        """Of all handshakes, those included that had no ticket to offer."""
        return statistics.mean(visit.resumed for visit in self.visits if visit.version is version)

    @property
    def cpu_ms_each(self) -> float:
        """Per connection; as many seconds per thousand of them."""
        return self.cpu_ms / len(self.visits)

    def first_byte_ms(self, version: Version) -> tuple[float, float]:
        """Median and 95th percentile."""
        times = [visit.first_byte_ms for visit in self.visits if visit.version is version]
        return statistics.median(times), statistics.quantiles(times, n=20)[-1]


def measure(kind: Kind, plan: Plan, chance: random.Random) -> tuple[Found, ...]:
    """One for each regime, in their order."""
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        fleet, regimes = stack.enter_context(side_by_side(directory, kind, plan.nodes, KEYS[plan.key]()))
        groups = [[server.port for server in regime.servers] for regime in regimes]
        ports = stack.enter_context(balanced(groups, one_way_ms=plan.one_way_ms, log=directory / "balancer.log"))
        size = max(round(plan.rate_per_s / len(regimes) / len(Version)), 1)
        crowds = [Crowd(port, fleet.trust, size, random.Random(chance.random())) for port in ports]
        idlers = [Idlers(port, fleet.ca, plan.idle) for port in ports]
        for idle in idlers:
            stack.callback(idle.leave)
        pool = stack.enter_context(threads())
        for crowd in crowds:
            crowd.prime(pool)
        before_ms = [_cpu_ms(regime.servers) for regime in regimes]
        conducted = pool.submit(conduct, pool, regimes, plan, idlers)
        come_steadily(pool, crowds, rate_per_s=plan.rate_per_s, until=conducted)
        return tuple(
            Found(
                regime=regime.name,
                visits=tuple(crowd.visits),
                failed=crowd.failed,
                cpu_ms=_cpu_ms(regime.servers) - spent_ms,
                idle=plan.idle,
                idle_closed=idle.closed,
            )
            for regime, crowd, idle, spent_ms in zip(regimes, crowds, idlers, before_ms, strict=True)
        )


def conduct(pool: ThreadPoolExecutor, regimes: Sequence[Regime], plan: Plan, idlers: Sequence[Idlers] = ()) -> None:
    """All regimes rotate at the same moments; and no idle connection idles so long that it would be closed for that."""
    for _ in range(plan.rotations):
        over_s = time.monotonic() + plan.every_s
        for done in [pool.submit(regime.rotate) for regime in regimes]:
            done.result()
        for idle in idlers:
            _ = idle.closed
        time.sleep(max(over_s - time.monotonic(), 0))


_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _cpu_ms(servers: Sequence[LiveServer]) -> float:
    """
    Of these servers with all processes that they ever had, in user space and in the kernel.

    Each was started in a session of its own, which its children stay in; who has ended counts with who waited for it.
    """
    sessions = {os.getsid(server.pid) for server in servers}
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # From behind the command, which may have blanks: state is the first, session the fourth.
            columns = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if int(columns[3]) in sessions:
            ticks += sum(map(int, columns[11:15]))
    return ticks * 1000 / _TICKS_PER_S
