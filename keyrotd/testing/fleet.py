"""A whole fleet on this machine, all of it real: store, schedulers, agents, TLS servers behind one certificate."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path

from keyrotd.core.errors import CorruptWindow, KeyrotdError
from keyrotd.core.messages import Report
from keyrotd.core.window import Window
from keyrotd.seal.keyfiles import Kek as KekFile
from keyrotd.seal.keyfiles import Keks, VerifyKey, make_secrets, parse
from keyrotd.seal.messages import read_report
from keyrotd.seal.window import open_window
from keyrotd.store import addresses, embedded
from keyrotd.store.redis import RedisStore
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.haproxy import HAProxy, find_haproxy
from keyrotd.testing.live import LiveServer, Maker
from keyrotd.tls.handshake import Trust
from keyrotd.tls.target import Target, parse_target

RING = "demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a small fleet lives; durations as the configuration writes them."""

    rotation_interval: str = "8s"
    ticket_lifetime: str = "4s"
    overdue_after: str = "1s"
    tick_interval: str = "250ms"
    lease_ttl: str = "2s"
    node_ttl: str = "2s"
    poll_interval: str = "500ms"
    store_timeout: str = "250ms"
    start_grace: str = "1s"


@dataclass
class Fleet:
    """
    `directory` must be short (Unix sockets) and is the caller's to remove. `close` ends every process it started.

    Each node's server is made by the next of `makers` in turn; without any, by the HAProxy that this machine has.
    Schedulers are numbered from 1, agents and nodes likewise. `amend` has the last word on each configuration, given
    its name (`s1`, `a1`) and its text.
    """

    directory: Path
    makers: Sequence[Maker] = field(default_factory=lambda: (partial(HAProxy, exe=find_haproxy()),))
    nodes: int = 3
    schedulers: int = 2
    pace: Pace = field(default_factory=Pace)
    store_exe: Path | None = None
    amend: Callable[[str, str], str] = field(default=lambda _name, text: text)
    servers: list[LiveServer] = field(default_factory=list, init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._secrets = make_secrets(RING, os.urandom)
        for name, text in self._secrets.items():
            path = self.directory / name
            path.touch(mode=0o600)
            path.write_text(text)
        self.ca, self.certificate = new_authority(datetime.now(UTC)).write(self.directory)
        self.servers = [
            make(name=f"node-{n}", directory=self.directory / f"n{n}", certificate=self.certificate)
            for n, make in zip(range(1, self.nodes + 1), cycle(self.makers), strict=False)
        ]
        self._store: embedded.Embedded | None = None

    # Starting and ending.

    def start(self) -> None:
        """Store, schedulers and agents first: the agents write the key files that servers need to start."""
        self.start_store()
        for number in range(1, self.schedulers + 1):
            self.start_scheduler(number)
        for number in range(1, self.nodes + 1):
            self.start_agent(number)
        for server in self.servers:
            self._until(server.key_file.exists, f"agent of {server.name} writes its key file")
            server.start()

    def start_store(self) -> None:
        self._store = embedded.start(runtime_dir=self.directory, data_dir=self.directory / "db", server=self.store_exe)

    def stop_store(self) -> None:
        if self._store is not None:
            self._store.stop()
            self._store = None

    def start_scheduler(self, number: int) -> None:
        config = self._configure(f"s{number}", agent=None)
        self._spawn(f"scheduler-{number}", "scheduler", config)

    def start_agent(self, number: int) -> None:
        config = self._configure(f"a{number}", agent=self.servers[number - 1])
        self._spawn(f"agent-{number}", "agent", config)

    def kill(self, name: str) -> None:
        """SIGKILL, as when a machine is lost."""
        child = self.processes.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> None:
        stop_child(self.processes.pop(name))

    def close(self) -> None:
        for server in self.servers:
            server.stop()
        for name in reversed(list(self.processes)):
            self.stop(name)
        self.stop_store()

    def flush(self) -> None:
        """FLUSHALL, said as a person with a socket would."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(addresses.embedded_socket(self.directory)))
            line.sendall(b"FLUSHALL\r\n")
            if line.recv(64) != b"+OK\r\n":
                raise KeyrotdError("the store refused FLUSHALL")

    # Looking.

    @property
    def targets(self) -> list[Target]:
        return [parse_target(server.address) for server in self.servers]

    @property
    def trust(self) -> Trust:
        return Trust(ca_file=str(self.ca))

    @property
    def verifiers(self) -> tuple[VerifyKey, ...]:
        return parse(self._secrets["verify.key"], VerifyKey, "verify.key")

    @property
    def keks(self) -> Keks:
        return parse(self._secrets[f"{RING}.kek"], KekFile, f"{RING}.kek")

    @property
    def store_pid(self) -> int:
        assert self._store is not None
        return self._store.pid

    @property
    def store_url(self) -> str:
        return f"unix://{addresses.embedded_socket(self.directory)}"

    def store(self, *, timeout_ms: int = 1000) -> RedisStore:
        """A connection of the caller's own."""
        address = addresses.parse(self.store_url, runtime_dir=self.directory)
        return RedisStore(address, ring=RING, namespace="keyrotd", timeout_ms=timeout_ms)

    def config(self, name: str) -> Path:
        """Where the configuration of `s1`, `a1` and so on lies."""
        return self.directory / name / "keyrotd.toml"

    def window(self, store: RedisStore) -> Window | None:
        found = store.window()
        if found is None:
            return None
        return open_window(found[1], verifiers=self.verifiers, keks=self.keks, ring=RING)

    def reports(self, store: RedisStore) -> list[Report]:
        reports = []
        for data in store.reports().values():
            try:
                reports.append(read_report(data, keks=self.keks, ring=RING))
            except CorruptWindow:
                continue
        return reports

    def in_step(self, store: RedisStore, *, above: int = 0) -> bool:
        """Whether every node has read the window in the store back, and its epoch is above `above`."""
        window = self.window(store)
        if window is None or window.epoch <= above:
            return False
        reports = self.reports(store)
        return len(reports) == self.nodes and all(report.read_back == window.digest for report in reports)

    def _until(self, claim: Callable[[], bool], what: str) -> None:
        def ended() -> str | None:
            return next((name for name, child in self.processes.items() if child.poll() is not None), None)

        wait_until(lambda: claim() or ended() is not None, what)
        gone = ended()
        if gone is not None:
            last = (self.directory / f"{gone}.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise KeyrotdError(f"{gone}: ended by itself: {''.join(last)}")

    # Configuration.

    def _spawn(self, name: str, command: str, config: Path) -> None:
        argv = [sys.executable, "-m", "keyrotd", command, "--config", str(config)]
        self.processes[name] = start_child(argv, log=self.directory / f"{name}.log")

    def _configure(self, name: str, *, agent: LiveServer | None) -> Path:
        home, pace = self.directory / name, self.pace
        home.mkdir(mode=0o700, exist_ok=True)
        text = f"""\
runtime_dir = "{home}/run"
state_dir = "{home}/state"
[store]
url = "{self.store_url}"
timeout = "{pace.store_timeout}"
[secrets]
signing_key_file = "{self.directory}/signing.key"
verify_key_file = "{self.directory}/verify.key"
operator_key_file = "{self.directory}/operator.key"
operator_verify_key_file = "{self.directory}/operator-verify.key"
[[ring]]
name = "{RING}"
kek_file = "{self.directory}/{RING}.kek"
rotation_interval = "{pace.rotation_interval}"
ticket_lifetime = "{pace.ticket_lifetime}"
overdue_after = "{pace.overdue_after}"
[scheduler]
tick_interval = "{pace.tick_interval}"
lease_ttl = "{pace.lease_ttl}"
node_ttl = "{pace.node_ttl}"
listen = "off"
[agent]
node = "{name if agent is None else agent.name}"
poll_interval = "{pace.poll_interval}"
start_grace = "{pace.start_grace}"
listen = "off"
"""
        if agent is not None:
            text += f"""\
[[server]]
name = "{agent.kind}"
ring = "{RING}"
{agent.section}\
probe = "{agent.address}"
sni = "localhost"
ca_file = "{self.ca}"
"""
        path = home / "keyrotd.toml"
        path.write_text(self.amend(name, text))
        return path
