"""
How soon a new key is in use, on the last of two nodes, and what becomes of connections that were open and idle.

By keyrotd: from a window's publish (the instant in it) to the first ticket under its key. By what people do today: from
before the key files are written to that ticket, through the server's own reload.
"""

import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from keyrotd.core.errors import KeyrotdError
from keyrotd.core.keys import Keys
from keyrotd.servers import files
from keyrotd.servers.command import CommandDriver
from keyrotd.servers.files import Access
from keyrotd.servers.layouts import KEY_FILES
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.driver import rotated, some_keys
from keyrotd.testing.fleet import Fleet
from keyrotd.testing.kinds import KINDS
from keyrotd.testing.live import LiveServer, Maker
from keyrotd.testing.nginx import ByFiles, Nginx, find_nginx
from keyrotd.testing.trafficserver import TrafficServer, find_traffic_server
from keyrotd.tls.handshake import Handshake, Trust, Version, client_context, visit
from keyrotd.tls.target import Target, parse_target
from tests.bench.lines import Lines
from tests.scenes import HURRIED, Visitor, now_at, short_directory, started

_NODES = 2
_ROTATIONS = 20
#: Reloads are slow, and some never come to anything.
_RELOADS, _PATIENCE_S = 5, 10.0
_IDLE = 5

Write = Callable[[LiveServer, Keys], None]


def measure(lines: Lines) -> None:
    for kind in KINDS.values():
        _tell(lines, f"{kind.title}, by keyrotd", lambda kind=kind: _by_keyrotd(kind.find()))  # type: ignore[misc]
    _tell(lines, "nginx, by key files and a reload", lambda: _by_reload(_nginx(), _reload_nginx))
    _tell(lines, "Traffic Server, by a key file and a reload", lambda: _by_reload(_traffic_server(), _reload_traffic))


@dataclass
class Seen:
    """
    `delays_ms` of the keys that came into use, `alive` whose connection from before the first is open yet.

    `sightings` has for each node when a ticket under each key was seen first.
    """

    alive: list[Visitor]
    sightings: list[dict[bytes, int]]
    delays_ms: list[int] = field(default_factory=list)
    rotations: int = 0

    def note(self, name: bytes, began_at: int) -> None:
        """Wait until all seal with a key. Asking the idle also keeps their connections from ending by themselves."""
        with suppress(TimeoutError):
            wait_until(lambda: all(name in first_at for first_at in self.sightings), "all seal", _PATIENCE_S)
            self.delays_ms.append(max(first_at[name] for first_at in self.sightings) - began_at)
        self.rotations += 1
        self.alive = [visitor for visitor in self.alive if visitor.stays()]


def _tell(lines: Lines, what: str, look: Callable[[], Seen]) -> None:
    try:
        seen = look()
    except KeyrotdError as absent:
        lines.say(what, f"not here: {absent.hint or absent}")
        return
    if len(seen.delays_ms) < seen.rotations:
        lines.say(what, f"{len(seen.delays_ms)} of {seen.rotations} keys came into use within {_PATIENCE_S:.0f} s")
    if seen.delays_ms:
        lines.say(what, f"{statistics.median(seen.delays_ms):.0f} ms, worst {max(seen.delays_ms)} ms")
    lines.say("  open connections that it closed", f"{_NODES * _IDLE - len(seen.alive)} of {_NODES * _IDLE}")


def _by_keyrotd(maker: Maker) -> Seen:
    with (
        short_directory() as directory,
        started(Fleet(directory, (maker,), nodes=_NODES, pace=HURRIED)) as operator,
        _watched(operator.fleet.servers, operator.fleet.ca) as seen,
    ):
        for _ in range(_ROTATIONS):
            operator.rotate()
            window = operator.window
            seen.note(window.current.name, window.published_at)
    return seen


def _by_reload(maker: Maker, write: Write) -> Seen:
    with short_directory() as directory, ExitStack() as stack:
        directory.chmod(0o755)  # servers that leave root behind read what is in there
        ca, certificate = new_authority(datetime.now(UTC)).write(directory)
        nodes = [maker(name=name, directory=directory / name, certificate=certificate) for name in ("a", "b")]
        keys = some_keys(os.urandom, previous=1)
        for node in nodes:
            with suppress(KeyrotdError):
                write(node, keys)  # nobody is there yet who could reload
            stack.callback(node.stop)
            node.start()
        with _watched(nodes, ca) as seen:
            for _ in range(_RELOADS):
                keys, began_at = rotated(keys, os.urandom), now_at()
                for node in nodes:
                    write(node, keys)
                seen.note(keys.current.name, began_at)
        return seen


@contextmanager
def _watched(nodes: Sequence[LiveServer], ca: Path) -> Iterator[Seen]:
    """Visit every node without a pause, and hold idle connections to it."""
    stop, visitors = threading.Event(), [Visitor(node, ca) for node in nodes for _ in range(_IDLE)]
    seen = Seen([visitor for visitor in visitors if visitor.stays()], [{} for _ in nodes])

    def watch(target: Target, first_at: dict[bytes, int]) -> None:
        context = client_context(Version.TLS12, Trust(ca_file=str(ca)))
        while not stop.is_set():
            answer = visit(target, context, sni="localhost", timeout_ms=5_000)
            if isinstance(answer, Handshake) and answer.key_name is not None:
                first_at.setdefault(answer.key_name, now_at())

    targets = [parse_target(node.address) for node in nodes]
    with ThreadPoolExecutor(len(nodes)) as pool:
        try:
            watchers = [pool.submit(watch, *pair) for pair in zip(targets, seen.sightings, strict=True)]
            yield seen
        finally:
            stop.set()
        for watcher in watchers:
            watcher.result()
    for visitor in visitors:
        visitor.leave()


# What people do today.


def _nginx() -> Maker:
    return partial(Nginx, exe=find_nginx(), intake=ByFiles())


def _reload_nginx(node: LiveServer, keys: Keys) -> None:
    assert isinstance(node, Nginx)
    CommandDriver(
        name=node.name,
        key_file=node.key_file.with_name("{n}.key"),
        layout="nginx80-files",
        command=(*node.argv, "-s", "reload"),
        min_interval_ms=0,
    ).install(keys)


class WithoutPlugin(TrafficServer):
    """Its own way: a file of keys that is named in records.config, read anew on a reload of the configuration."""

    def _write_configuration(self) -> None:
        super()._write_configuration()
        (self.etc / "plugin.config").write_text(f"tslua.so {self.etc}/page.lua\n")
        with (self.etc / "records.config").open("a") as records:
            records.write(f"CONFIG proxy.config.ssl.server.ticket_key.filename STRING {self.key_file}\n")


def _traffic_server() -> Maker:
    return partial(WithoutPlugin, exe=find_traffic_server(), plugin=Path("/nowhere"))


def _reload_traffic(node: LiveServer, keys: Keys) -> None:
    assert isinstance(node, TrafficServer)
    (content,) = KEY_FILES["ats48"].encode(keys, None)
    files.write(node.key_file, content, Access(mode=0o640, group=node.group))
    if node.pid:
        node.control("config", "reload")
