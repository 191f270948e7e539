"""
An nginx that is itself the client of a fleet: `proxy_ssl_session_reuse`, and a new connection for every request.

nginx keeps a session for each address that it was told. Told every node's own, it brings each its own ticket back; told
one address in front of them all, it brings any node the ticket of another. Of TLS 1.3 it offers a ticket once (OpenSSL
takes it out of use), and keeps the last that came.
"""

import http.client
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Lock

from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports
from keyrotd.tls.handshake import Version
from tests.resumption.balancer import balanced
from tests.resumption.load import come_steadily, threads
from tests.resumption.measure import KEYS, Plan, conduct
from tests.resumption.regimes import Kind, side_by_side
from tests.scenes import short_directory

#: What nginx was told of a fleet.
ONE_ADDRESS, EVERY_ADDRESS = "one address", "every node's"


@dataclass(frozen=True, slots=True)
class Reuse:
    """One connection of nginx's to a node; `connect_ms` with the handshake, by nginx's own clock."""

    resumed: bool
    connect_ms: float


@dataclass(kw_only=True)
class Route:
    """
    Requests that go through the proxy at `port` to one fleet, in one version and by one way, each after the other.

    Of two at once the second may find no ticket of TLS 1.3 with nginx, whoever made the keys.
    """

    port: int
    way: str
    regime: str
    version: Version
    peers: Sequence[int]
    reuses: list[Reuse] = field(default_factory=list, init=False)
    failed: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._under_way = Lock()

    def come(self) -> None:
        """Unless one is under way."""
        if self._under_way.acquire(blocking=False):
            try:
                self._request()
            finally:
                self._under_way.release()

    def prime(self) -> None:
        """Nothing of it counts."""
        for _ in range(_ROUNDS * len(self.peers)):
            self._request()
        self.reuses.clear()

    def _request(self) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        try:
            line.request("GET", "/")
            answer = line.getresponse()
            page = answer.read().decode()
            connect_s = float(answer.headers["X-Connect"])
            self.reuses.append(Reuse("resumed=1" in page, connect_s * 1000))
        except (OSError, http.client.HTTPException, TypeError, ValueError):
            self.failed += 1
        finally:
            line.close()

    @property
    def resumed_share(self) -> float:
        return statistics.mean(reuse.resumed for reuse in self.reuses)

    @property
    def connect_ms(self) -> float:
        """Median."""
        return statistics.median(reuse.connect_ms for reuse in self.reuses)


def measure(exe: Path, kind: Kind, plan: Plan) -> tuple[Route, ...]:
    """A route for each way and version and regime; nginx has been to every address before anything counts."""
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        _, regimes = stack.enter_context(side_by_side(directory, kind, plan.nodes, KEYS[plan.key]()))
        nodes = [[server.port for server in regime.servers] for regime in regimes]
        alone = [[port] for group in nodes for port in group]
        road = balanced([*nodes, *alone], one_way_ms=plan.one_way_ms, log=directory / "balancer.log")
        ports = iter(stack.enter_context(road))
        ways = {(ONE_ADDRESS, regime.name): [next(ports)] for regime in regimes}
        ways |= {(EVERY_ADDRESS, regime.name): [next(ports) for _ in regime.servers] for regime in regimes}
        targets = tuple(product(ways.items(), Version))
        routes = tuple(
            Route(port=port, way=way, regime=regime, version=version, peers=peers)
            for port, (((way, regime), peers), version) in zip(free_ports(len(targets)), targets, strict=True)
        )
        stack.enter_context(_proxied(exe, directory / "proxy", routes))
        pool = stack.enter_context(threads())
        for done in [pool.submit(route.prime) for route in routes]:
            done.result()
        come_steadily(pool, routes, rate_per_s=plan.rate_per_s, until=pool.submit(conduct, pool, regimes, plan))
        return routes


_TIMEOUT_S = 10.0

#: So often nginx comes to each address first, lest it come for the first time later.
_ROUNDS = 2


@contextmanager
def _proxied(exe: Path, home: Path, routes: Sequence[Route]) -> Iterator[None]:
    home.mkdir(mode=0o755)
    log, config = home / "error.log", home / "nginx.conf"
    config.write_text(_config(home, routes))
    child = start_child((str(exe), "-p", str(home), "-c", str(config), "-g", "daemon off;"), log=log)
    try:
        wait_until(lambda: child.poll() is not None or (home / "pid").exists(), "the proxy runs")
        assert child.poll() is None, log.read_text()[-2000:]
        yield
    finally:
        stop_child(child)


def _config(home: Path, routes: Sequence[Route]) -> str:
    servers = "".join(_server(number, route) for number, route in enumerate(routes))
    temps = "\n".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # One worker: each has sessions of its own.
    return f"""\
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log warn;
events {{ worker_connections 1000; }}
http {{
access_log off;
proxy_ssl_session_reuse on;
add_header X-Connect $upstream_connect_time;
{temps}
{servers}
}}
"""


def _server(number: int, route: Route) -> str:
    peers = " ".join(f"server 127.0.0.1:{port};" for port in route.peers)
    # An upstream of its own even for the same peers: nginx keeps sessions there.
    return f"""\
upstream fleet{number} {{ {peers} }}
server {{
    listen 127.0.0.1:{route.port};
    location / {{
        proxy_pass https://fleet{number};
        proxy_ssl_protocols TLSv{route.version.value};
    }}
}}
"""
