"""Real Traffic Servers for tests: the plugin built once, nodes started, windows written as the agent writes them."""

import atexit
import os
import shutil
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Scheme, Stek
from keyrotd.daemon.clock import SystemClock
from keyrotd.servers import acks, files
from keyrotd.servers.acks import Ack
from keyrotd.servers.files import Access
from keyrotd.servers.keyfile import KeyFile, digest
from keyrotd.servers.layouts import ATS48
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.trafficserver import TrafficServer, build_plugin
from keyrotd.tls.handshake import Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from tests import servers_found
from tests.scenes import now_at

CLOCK = SystemClock()

SOURCE = Path(__file__).parents[1] / "deploy" / "trafficserver"

#: Served by the default certificate, and by another.
NAMES = ("localhost", "other.test")


@cache
def plugin(*words: str) -> Path:
    """keyrotd.so, built once for all tests of a run, where whoever runs servers may read it; `words` are for make."""
    servers_found.traffic_server()
    folder = Path(mkdtemp(prefix="keyrotd-plugin-"))
    atexit.register(shutil.rmtree, folder)
    folder.chmod(0o755)
    return build_plugin(SOURCE, folder, *words)


@dataclass
class Stage:
    """Nodes behind one name, and what a client and an agent need. Every window that it makes is newer than the last."""

    nodes: Sequence[TrafficServer]
    ca: Path
    epoch: int = field(default=0, init=False)

    @property
    def node(self) -> TrafficServer:
        return self.nodes[0]

    def window(self, *steks: Stek, seals_until_ms: int | None = None, opens_until_ms: int | None = None) -> KeyFile:
        self.epoch += 1
        keys = tuple(stek.secrets(Scheme.AES128) for stek in steks or some_steks(2))
        tenure = Tenure(
            boot_id=CLOCK.boot_id,
            epoch=self.epoch,
            step=0,
            seals_until_ms=seals_until_ms,
            opens_until_ms=opens_until_ms,
        )
        return KeyFile(layout=ATS48, keys=keys, tenure=tenure)

    def install(self, window: KeyFile) -> None:
        """Write it for every node, and wait until each acknowledged it without a nudge."""
        for node in self.nodes:
            write(node, window.encode())
        for node in self.nodes:
            wait_until(lambda: ack(node).digest == digest(window.encode()), f"{node.name} installs")  # noqa: B023

    def context(self, version: Version) -> ssl.SSLContext:
        return client_context(version, Trust(ca_file=str(self.ca)))

    def visit(self, node: TrafficServer, version: Version = Version.TLS12, sni: str = "localhost") -> Handshake:
        seen = visit(Target("127.0.0.1", node.port), self.context(version), sni=sni, timeout_ms=10_000)
        assert isinstance(seen, Handshake), seen
        return seen

    def resumes(self, ticket: Handshake, node: TrafficServer, sni: str = "localhost") -> bool:
        assert ticket.session is not None
        target = Target("127.0.0.1", node.port)
        seen = resume(target, ticket.context, ticket.session, sni=sni, timeout_ms=10_000)
        assert isinstance(seen, Handshake), seen
        return seen.resumed


@contextmanager
def running(
    count: int,
    *,
    poll_ms: int = 100,
    window: bool = True,
    alone: bool = False,
    built: Sequence[str] = (),
    under: Sequence[str] = (),
) -> Iterator[Stage]:
    """
    So many nodes, each with a first window unless told otherwise; `built`: words for another build of the plugin.

    `alone`: without their manager. They are up sooner, and cannot be nudged.
    """
    with TemporaryDirectory(prefix="keyrotd") as name:  # a Unix socket's path must be short
        directory = Path(name)
        authority = new_authority(datetime.now(UTC))
        ca, certificate = authority.write(directory)
        other = directory / "other.pem"
        other.write_bytes(authority.issue(NAMES[1]))
        stage = Stage(
            [
                TrafficServer(
                    name=name,
                    exe=servers_found.traffic_server().with_name("traffic_server" if alone else "traffic_manager"),
                    plugin=plugin(*built),
                    directory=directory / name,
                    certificate=certificate,
                    others=(other,),
                    poll_ms=poll_ms,
                    under=under,
                )
                for name in "abc"[:count]
            ],
            ca,
        )
        first = stage.window().encode()
        try:
            for node in stage.nodes:
                if window:
                    write(node, first)
                node.start()
            yield stage
        finally:
            for node in stage.nodes:
                node.stop()


def some_steks(count: int) -> list[Stek]:
    return [Stek(os.urandom(32), "edge") for _ in range(count)]


def write(node: TrafficServer, content: bytes) -> None:
    """As the agent does it."""
    files.write(node.key_file, content, Access(mode=0o640, group=node.group))


def ack(node: TrafficServer) -> Ack:
    """What the one living process says; waits for its first word."""
    found: list[Ack] = []

    def told() -> bool:
        found[:] = acks.living(node.ack_dir, now_at())
        return len(found) == 1

    wait_until(told, f"{node.name} acknowledges")
    return found[0]
