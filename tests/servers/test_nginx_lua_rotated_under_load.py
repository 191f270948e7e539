"""Two nginx with the Lua reader, rotated under hammering clients of both TLS versions: nothing is lost or noticed."""

import http.client
import random
import ssl
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from keyrotd.testing.clients import Clients
from keyrotd.tls.target import Target
from tests.nginx_lua import Stage, staged
from tests.nginx_sites import new_window
from tests.scenes import now_at

pytestmark = pytest.mark.debian

_TICKET_LIFETIME_MS = 500

#: A worker takes one window a poll (100 ms), so that a key is among these for longer than any ticket lives.
_KEYS = 12


@pytest.fixture
def stage() -> Iterator[Stage]:
    with staged() as stage:
        yield stage


@pytest.mark.parametrize("rotations", [10, pytest.param(100, marks=pytest.mark.long)])
def test_rotations_under_load_orphan_no_ticket_and_touch_no_connection(stage: Stage, rotations: int) -> None:
    """Tickets of every age up to T resume on both nodes; the same workers serve, and open connections live on."""
    window = new_window()
    sites = [stage.started(name, window) for name in ("a", "b")]
    # A ticket of http is none for stream: nginx binds each to its own kind.
    crowds = [
        _clients(stage, [target for site in sites for target in site.targets[:2]]),
        _clients(stage, [site.targets[2] for site in sites]),
    ]
    with ExitStack() as stack:
        visitors = [Visitor(site.nginx.port, stage.ca) for site in sites]
        for visitor in visitors:
            stack.callback(visitor.leave)
        before = [
            (site.nginx.master, site.workers, visitor.pid()) for site, visitor in zip(sites, visitors, strict=True)
        ]
        took_ms = []
        for crowd in crowds:
            stack.enter_context(crowd.hammering())
        for _ in range(rotations):
            window = window.rotated(keep=_KEYS)
            began_at = now_at()
            for site in sites:
                site.write(window.content)
            for site in sites:
                site.wait_for(window)
            took_ms.append(now_at() - began_at)
            after = [
                (site.nginx.master, site.workers, visitor.pid()) for site, visitor in zip(sites, visitors, strict=True)
            ]
            assert after == before

    print(f"\nwritten to installed in all workers: median {statistics.median(took_ms)} ms, worst {max(took_ms)}")
    for crowd in crowds:
        print(crowd.tally)
        assert crowd.orphans == []
        assert crowd.stories == []
        assert (crowd.tally.orphans, crowd.tally.failed) == (0, 0)
        assert crowd.tally.resumed > 5 * rotations


def _clients(stage: Stage, targets: list[Target]) -> Clients:
    return Clients(
        targets=targets,
        ticket_lifetime_ms=_TICKET_LIFETIME_MS,
        trust=stage.trust,
        sni="localhost",
        now=now_at,
        rand=random.Random(len(targets)),
    )


class Visitor:
    """A client whose one connection stays open, and is never opened again."""

    def __init__(self, port: int, ca: Path) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._line = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
        self._line.connect()
        self._line.auto_open = 0

    def pid(self) -> int:
        """Who answers, by its own word."""
        self._line.request("GET", "/")
        page = self._line.getresponse().read().decode()
        return int(page.split("pid=")[1].split()[0])

    def leave(self) -> None:
        self._line.close()
