"""What this machine takes for the things that all else is made of."""

import socket
from functools import partial

from keyrotd.store import addresses
from keyrotd.testing.fleet import Fleet
from keyrotd.tls.handshake import Handshake, Version, client_context, resume, visit
from tests.bench.lines import Lines, timed_ms
from tests.scenes import HURRIED, short_directory, started

_TIMES = 300
_TIMEOUT_MS = 5000


def measure(lines: Lines) -> None:
    with (
        short_directory() as directory,
        started(Fleet(directory, nodes=1, schedulers=1, pace=HURRIED)) as operator,
    ):
        fleet = operator.fleet
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(addresses.embedded_socket(fleet.directory)))
            lines.spread("a bare PING to the store", timed_ms(partial(_ping, line), _TIMES), "ms")
        for version in Version:
            _handshakes(lines, fleet, version)


def _ping(line: socket.socket) -> None:
    line.sendall(b"PING\r\n")
    assert line.recv(64) == b"+PONG\r\n"


def _handshakes(lines: Lines, fleet: Fleet, version: Version) -> None:
    (target,) = fleet.targets
    context = client_context(version, fleet.trust)

    def full() -> Handshake:
        seen = visit(target, context, sni="localhost", timeout_ms=_TIMEOUT_MS)
        assert isinstance(seen, Handshake), seen
        return seen

    def resumed() -> None:
        assert first.session is not None
        seen = resume(target, context, first.session, sni="localhost", timeout_ms=_TIMEOUT_MS)
        assert isinstance(seen, Handshake), seen
        assert seen.resumed

    first = full()
    lines.spread(f"TLS {version.value} handshake, resumed", timed_ms(resumed, _TIMES), "ms")
    lines.spread(f"TLS {version.value} handshake, full", timed_ms(full, _TIMES), "ms")
