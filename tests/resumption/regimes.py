"""Three ways to live with ticket keys behind one balancer, each on nodes of its own, all under one certificate."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from keyrotd.core.stek import Scheme, Secrets, Stek
from keyrotd.servers.layouts import HAPROXY80, NGINX80, encode_lines
from keyrotd.servers.ring import USUAL_SLOTS
from keyrotd.testing.certificates import LeafKey, new_authority
from keyrotd.testing.fleet import Fleet, Pace
from keyrotd.testing.haproxy import HAProxy
from keyrotd.testing.live import LiveServer, Maker
from keyrotd.testing.nginx import ByFiles, ByLua, Nginx
from tests.scenes import Operator, started

#: Rotations come by request, for all regimes at the same moment, and are free every T + eps: about six seconds.
PACE = Pace(
    rotation_interval="60s",
    ticket_lifetime="4s",
    overdue_after="2s",
    tick_interval="250ms",
    lease_ttl="3s",
    node_ttl="4s",
    poll_interval="500ms",
    store_timeout="250ms",
    start_grace="500ms",
)

#: Between two nodes of a cron job: what it takes to copy a file and to log in once more.
APART_S = 0.5


class Regime(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def servers(self) -> Sequence[LiveServer]: ...

    def rotate(self) -> None:
        """Return once the new key seals on all nodes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What a server of some kind is under each regime.

    `own` makes its keys for itself, `filed` reads them from its key file at a start or reload, `driven` is for an
    agent. `write` puts these keys, oldest first, where `filed` looks for them: all that it has room for.
    """

    title: str
    own: Maker
    filed: Maker
    driven: Maker
    write: Callable[[LiveServer, Sequence[Secrets]], None]


@dataclass(frozen=True, slots=True)
class OwnKeys:
    """Each node has random keys of its own, as it makes them when it starts. Nobody does anything."""

    servers: Sequence[LiveServer]

    name = "per-node keys"

    def rotate(self) -> None:
        pass


@dataclass
class CronReload:
    """A job makes a key, copies the files and reloads: one node after the other, as its server's manual wants it."""

    servers: Sequence[LiveServer]
    kind: Kind
    _keys: list[Secrets] = field(init=False)

    name = "cron and reload"

    def __post_init__(self) -> None:
        self._keys = [_fresh() for _ in range(USUAL_SLOTS)]
        for server in self.servers:
            self.kind.write(server, self._keys)

    def rotate(self) -> None:
        self._keys = [*self._keys[1:], _fresh()]
        for place, server in enumerate(self.servers):
            if place:
                time.sleep(APART_S)
            self.kind.write(server, self._keys)
            server.reload()


@dataclass(frozen=True, slots=True)
class Keyrotd:
    operator: Operator

    name = "keyrotd"

    @property
    def servers(self) -> Sequence[LiveServer]:
        return self.operator.fleet.servers

    def rotate(self) -> None:
        self.operator.rotate()


@contextmanager
def side_by_side(directory: Path, kind: Kind, nodes: int, key: LeafKey) -> Iterator[tuple[Fleet, tuple[Regime, ...]]]:
    """All three, serving with a certificate of that key; the fleet is keyrotd's, its authority everybody's."""
    with ExitStack() as stack:
        fleet = Fleet(directory, (kind.driven,), nodes=nodes, schedulers=1, pace=PACE)
        new_authority(datetime.now(UTC)).write(directory, key=key)

        def made(word: str, make: Maker) -> list[LiveServer]:
            places = [(f"{word}-{n}", directory / f"{word}{n}") for n in range(1, nodes + 1)]
            return [make(name=name, directory=place, certificate=fleet.certificate) for name, place in places]

        own, cron = OwnKeys(made("own", kind.own)), CronReload(made("cron", kind.filed), kind)
        for server in (*own.servers, *cron.servers):
            stack.callback(server.stop)
            server.start()
        yield fleet, (own, cron, Keyrotd(stack.enter_context(started(fleet))))


class _HAProxyByItself(HAProxy):
    @property
    def config(self) -> str:
        return super().config.replace(f" tls-ticket-keys {self.key_file}", "")


def haproxy(exe: Path) -> Kind:
    """Its file's last key but one seals, so that with keys in this order all open a key before any seals with it."""

    def write(server: LiveServer, keys: Sequence[Secrets]) -> None:
        _write(server.key_file, encode_lines(HAPROXY80, keys))

    same = partial(HAProxy, exe=exe)
    return Kind(title="HAProxy", own=partial(_HAProxyByItself, exe=exe), filed=same, driven=same, write=write)


class _NoIntake(ByFiles):
    """Nobody gives it keys."""

    def servers(self, home: Path) -> str:  # noqa: ARG002 - nothing to be said
        return ""


def nginx(exe: Path) -> Kind:
    """The first of its files seals: a node that has not reloaded opens no ticket of one that has."""

    def write(server: LiveServer, keys: Sequence[Secrets]) -> None:
        for number, key in enumerate(reversed(keys)):
            _write(server.key_file.with_name(f"{number}.key"), NGINX80.encode(key))

    return Kind(
        title="nginx",
        own=partial(Nginx, exe=exe, intake=_NoIntake()),
        filed=partial(Nginx, exe=exe, intake=ByFiles(USUAL_SLOTS)),
        driven=partial(Nginx, exe=exe, intake=ByLua(_LUA, poll_ms=1000)),
        write=write,
    )


_LUA = Path(__file__).parents[2] / "deploy" / "nginx" / "lua"


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _fresh() -> Secrets:
    return Stek(os.urandom(32), "cron").secrets(Scheme.AES256)
