"""Where a ring's store stands in a scenario: one server, a primary under sentinels, or a cluster. All of it real."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from redis import Redis

from keyrotd.store import embedded
from keyrotd.store.addresses import embedded_socket
from tests.contract import topologies

#: What its server wrote when it was told to save.
_DUMP = "dump.rdb"


class Stand(Protocol):
    """`url` is what the daemons' configuration says."""

    @property
    def url(self) -> str: ...


@dataclass
class Alone:
    """One server on a Unix socket; without a word of ours it writes nothing down."""

    exe: Path
    directory: Path
    _server: embedded.Embedded | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"unix://{embedded_socket(self.directory)}"

    @property
    def redis(self) -> Any:
        """A connection of whoever owns it, and may do anything; for one thread."""
        return Redis(unix_socket_path=str(embedded_socket(self.directory)), protocol=3)

    def start(self) -> None:
        self._server = embedded.start(runtime_dir=self.directory, data_dir=None, server=self.exe)

    def die(self) -> None:
        """SIGKILL: what it did not write down is gone."""
        if self._server is not None:
            self._server.child.kill()
            self._server.child.wait()
            self._server = None

    def flush(self) -> None:
        with self.redis as redis:
            redis.flushall()

    def save(self) -> bytes:
        """Return a snapshot, which is not kept where a restart would find it."""
        with self.redis as redis:
            redis.save()
        dump = self.directory / _DUMP
        content = dump.read_bytes()
        dump.unlink()
        return content

    def restore(self, snapshot: bytes) -> None:
        """What an operator does with yesterday's snapshot: stop, copy, start."""
        self.die()
        dump = self.directory / _DUMP
        dump.write_bytes(snapshot)
        self.start()
        dump.unlink()


@contextmanager
def alone(exe: Path, directory: Path) -> Iterator[Alone]:
    stand = Alone(exe, directory)
    stand.start()
    try:
        yield stand
    finally:
        stand.die()


@dataclass(frozen=True)
class Watched:
    parts: topologies.Watched

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.parts.sentinels)
        return f"redis+sentinel://{hosts}/{topologies.NAME}?sentinel_password_file={self.parts.password_file}"


@contextmanager
def watched(exe: Path, directory: Path) -> Iterator[Watched]:
    """A primary with two replicas and three sentinels: enough for two failovers."""
    with topologies.watched(exe, directory, replicas=2) as parts:
        parts.password_file.chmod(0o600)
        yield Watched(parts)


@dataclass(frozen=True)
class Clustered:
    parts: topologies.Clustered

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.parts.nodes)}"


@contextmanager
def clustered(exe: Path, directory: Path) -> Iterator[Clustered]:
    """Three primaries that share out the slots."""
    with topologies.clustered(exe, directory, nodes=3) as parts:
        yield Clustered(parts)
