"""Two nodes of every kind rotated under hammering clients of both TLS versions: nothing is lost, nobody notices."""

import random
import statistics
from contextlib import ExitStack

import pytest

from keyrotd.testing.clients import Clients
from keyrotd.testing.fleet import Fleet
from keyrotd.testing.live import Maker
from keyrotd.tls.handshake import Version
from tests.scenes import HURRIED, Visitor, now_at, short_directory, started

_HAMMERS = 2


@pytest.mark.parametrize(
    "rotations",
    [10, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(400)])],
)
def test_rotations_under_load_orphan_no_ticket_and_touch_no_connection(rotations: int, maker: Maker) -> None:
    """Tickets of every age up to T resume on both nodes; the same processes serve, and open connections live on."""
    with ExitStack() as stack:
        directory = stack.enter_context(short_directory())
        operator = stack.enter_context(started(Fleet(directory, (maker,), nodes=2, pace=HURRIED)))
        fleet = operator.fleet
        visitors = {node.name: Visitor(node, fleet.ca) for node in fleet.servers}
        for visitor in visitors.values():
            stack.callback(visitor.leave)
        workers = {name: visitor.pid() for name, visitor in visitors.items()}
        pids = {node.name: node.pid for node in fleet.servers}
        first = operator.window
        clients = Clients(
            targets=fleet.targets,
            ticket_lifetime_ms=first.ticket_lifetime_ms,
            trust=fleet.trust,
            sni="localhost",
            now=now_at,
            rand=random.Random(rotations),
            versions=(Version.TLS12, Version.TLS13),
        )

        spreads_ms = []
        with clients.hammering(threads=_HAMMERS):
            for _ in range(rotations):
                spreads_ms.append(operator.rotate())
                assert {name: visitor.pid() for name, visitor in visitors.items()} == workers

        print(
            f"\npublished to read back everywhere: median {statistics.median(spreads_ms)} ms, worst {max(spreads_ms)}"
        )
        print(clients.tally)
        assert operator.window.epoch >= first.epoch + rotations
        assert clients.orphans == []
        assert clients.stories == []
        assert (clients.tally.orphans, clients.tally.failed) == (0, 0)
        assert clients.tally.resumed > 10 * rotations
        assert {node.name: node.pid for node in fleet.servers} == pids
