"""Real nginx processes that take their keys by keyrotd's Lua reader, and windows to give them."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Stek
from keyrotd.servers import acks, files, keyfile, layouts
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from tests.scenes import now_at, short_directory
from tests.servers_found import debian_nginx_lua

LUA = Path(__file__).parents[1] / "deploy" / "nginx" / "lua"

_MODULES = [
    Path("/usr/lib/nginx/modules", f"{name}.so")
    for name in ("ndk_http_module", "ngx_http_lua_module", "ngx_stream_module")
]

#: Another nginx than Debian's, to learn whether its version may be let in: see deploy/nginx/README.md.
OTHER_NGINX = os.environ.get("KEYROTD_TEST_NGINX")

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

WORKERS = 2
POLL_MS = 100

BOTH_VERSIONS = (Version.TLS12, Version.TLS13)


@dataclass(frozen=True)
class Window:
    """A key file to be: `keys[0]` seals, all open. Bounds are ms of the boot clock."""

    keys: tuple[Stek, ...]
    epoch: int = 1
    step: int = 0
    seals_until_ms: int | None = None
    opens_until_ms: int | None = None
    boot_id: str = BOOT_ID

    def rotated(self, keep: int = 3) -> "Window":
        """The next window: the second key seals, a fresh one comes second, and `keep` keys are left in all."""
        first, second, *previous = self.keys
        keys = (second, new_key(), first, *previous)
        return replace(self, keys=keys[:keep], epoch=self.epoch + 1)

    def bounded(self, *, seals_ms: int, opens_ms: int) -> "Window":
        """The same keys, with so long to seal and to open from now on."""
        now_ms = boot_ms()
        return replace(self, seals_until_ms=now_ms + seals_ms, opens_until_ms=now_ms + opens_ms)

    @property
    def names(self) -> set[bytes]:
        return {key.name for key in self.keys}

    @property
    def content(self) -> bytes:
        layout = layouts.NGINX80
        tenure = Tenure(
            boot_id=self.boot_id,
            epoch=self.epoch,
            step=self.step,
            seals_until_ms=self.seals_until_ms,
            opens_until_ms=self.opens_until_ms,
        )
        secrets = tuple(key.secrets(layout.scheme) for key in self.keys)
        return keyfile.KeyFile(layout=layout, keys=secrets, tenure=tenure).encode()

    @property
    def digest(self) -> str:
        return keyfile.digest(self.content)


def boot_ms() -> int:
    """What the key file counts in."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def new_key() -> Stek:
    return Stek(os.urandom(32), "test")


def new_window() -> Window:
    return Window((new_key(), new_key()))


@dataclass
class Site:
    """One nginx: two TLS ports of http and one of stream, several servers, all under one certificate."""

    name: str
    directory: Path
    certificate: Path
    options: str = ""
    cold_key: bool = True
    before: str = ""
    after: str = ""
    locations: str = ""
    poll_ms: int = POLL_MS
    daemon: bool = False
    ports: tuple[int, ...] = field(default_factory=lambda: free_ports(5), init=False)
    _master: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o755)
        self.acks_directory.mkdir(mode=0o755)
        if os.geteuid() == 0:
            shutil.chown(self.acks_directory, "www-data", "www-data")
        self._cold = self.directory / "cold.key"
        self._cold.write_bytes(os.urandom(80))

    @property
    def key_file(self) -> Path:
        return self.directory / "tickets.keys"

    @property
    def acks_directory(self) -> Path:
        return self.directory / "acks"

    @property
    def log(self) -> Path:
        return self.directory / "error.log"

    @property
    def targets(self) -> tuple[Target, ...]:
        """http, http on another port, stream."""
        return tuple(Target("127.0.0.1", port) for port in self.ports[:3])

    @property
    def own_target(self) -> Target:
        """A server called own.test, alone on its port."""
        return Target("127.0.0.1", self.ports[3])

    @property
    def plain_port(self) -> int:
        """Without TLS, for `locations`."""
        return self.ports[4]

    @property
    def config(self) -> str:
        # Debian's modules are files of their own; another nginx has them built in.
        loads = "\n".join(f"load_module {module};" for module in _MODULES if OTHER_NGINX is None)
        user = "user www-data;" if os.geteuid() == 0 else ""
        tls = f"""\
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.certificate};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_timeout 1h;
    ssl_session_cache off;
    {f"ssl_session_ticket_key {self._cold};" if self.cold_key else ""}"""
        temps = "\n".join(
            f"    {kind}_temp_path {self.directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # reuseport: else one worker may take every connection that a test makes.
        return f"""\
{loads}
{user}
env LUA_PATH; # of another nginx; a binary upgrade would forget it
worker_processes {WORKERS};
pid {self.directory}/pid;
error_log {self.log} notice;
events {{ worker_connections 500; }}
http {{
    access_log off;
    keepalive_timeout 60s;
    proxy_cache_path {self.directory}/cache keys_zone=cache:1m; # has helper processes, which run init_worker too
{temps}
{tls}
    lua_package_path "{LUA}/?.lua;;";
    init_worker_by_lua_block {{
        {self.before}
        require("keyrotd").start {{
            key_file = "{self.key_file}", ack_dir = "{self.acks_directory}",
            poll = {self.poll_ms / 1000}, {self.options}
        }}
        {self.after}
    }}
    server {{
        listen 127.0.0.1:{self.ports[0]} ssl reuseport;
        server_name localhost;
        return 200 "name={self.name} resumed=$ssl_session_reused pid=$pid\\n";
    }}
    server {{
        listen 127.0.0.1:{self.ports[0]} ssl;
        server_name other.test;
        return 200 "name={self.name} resumed=$ssl_session_reused pid=$pid\\n";
    }}
    server {{
        listen 127.0.0.1:{self.ports[1]} ssl reuseport;
        server_name second.test;
        return 200 "name={self.name} resumed=$ssl_session_reused pid=$pid\\n";
    }}
    {f"server {{ listen 127.0.0.1:{self.plain_port}; {self.locations} }}" if self.locations else ""}
    server {{
        listen 127.0.0.1:{self.ports[3]} ssl reuseport;
        server_name own.test;
        return 200 "name={self.name} resumed=$ssl_session_reused pid=$pid\\n";
    }}
}}
stream {{
{tls}
    server {{
        listen 127.0.0.1:{self.ports[2]} ssl reuseport;
        return "name={self.name} resumed=$ssl_session_reused pid=$pid\\n";
    }}
}}
"""

    def start(self) -> None:
        """Return once every worker has said what it holds."""
        self.launch()
        wait_until(lambda: len(self.acks()) == WORKERS or self._master_ended, f"{self.name} has {WORKERS} workers")
        assert not self._master_ended, self.log.read_text()[-2000:]

    def launch(self) -> None:
        """Return once it takes connections."""
        config = self.directory / "nginx.conf"
        config.write_text(self.config)
        # Only a daemon obeys USR2: a master whose parent lives takes itself for a new binary.
        daemon = "on" if self.daemon else "off"
        paths = ["-c", str(config), "-p", str(self.directory), "-e", str(self.log)]
        argv = [str(_find_nginx()), *paths, "-g", f"daemon {daemon};"]
        self._master = start_child(argv, log=self.log)
        wait_until(lambda: _listens(self.ports[0]) or self._master_ended, f"{self.name} listens")

    def stop(self) -> None:
        if self._master is not None:
            stop_child(self._master)
            self._master = None
        with suppress(OSError, ValueError):  # a daemon is nobody's child
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: not (self.directory / "pid").exists(), f"{self.name} ends")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The master's."""
        return int((self.directory / "pid").read_text())

    def install(self, window: Window) -> int:
        """Write it and wait for every worker; how long the last one took, in ms."""
        began_at = now_at()
        self.write(window.content)
        self.wait_for(window)
        return now_at() - began_at

    def write(self, content: bytes, mode: int = 0o644) -> None:
        files.write(self.key_file, content, files.Access(mode=mode))

    def wait_for(self, window: Window) -> None:
        wait_until(
            lambda: [ack.digest for ack in self.acks()] == [window.digest] * WORKERS, f"{self.name} has the window"
        )

    def wait_for_fault(self, fault: str | None) -> None:
        wait_until(lambda: [ack.fault for ack in self.acks()] == [fault] * WORKERS, f"{self.name} says {fault}")

    def acks(self) -> tuple[acks.Ack, ...]:
        """What processes that exist have said."""
        found = acks.living(self.acks_directory, now_at())
        return tuple(ack for ack in found if Path(f"/proc/{ack.pid}").exists())

    @property
    def workers(self) -> tuple[int, ...]:
        return tuple(ack.pid for ack in self.acks())

    def said(self, words: str) -> int:
        """How often its log has them."""
        return self.log.read_text(errors="replace").count(words)

    @property
    def _master_ended(self) -> bool:
        return not self.daemon and (self._master is None or self._master.poll() is not None)


@dataclass
class Client:
    """One client: visits a server for a ticket, and offers it elsewhere."""

    trust: Trust
    version: Version

    def __post_init__(self) -> None:
        self._context = client_context(self.version, self.trust)

    def visit(self, target: Target, sni: str = "localhost") -> Handshake:
        return _shaken(visit(target, self._context, sni=sni, timeout_ms=5000))

    def sealed_by(self, target: Target, sni: str = "localhost") -> bytes | None:
        """The name of the key that sealed its ticket."""
        return self.visit(target, sni).key_name

    def resumes(self, shake: Handshake, target: Target, sni: str = "localhost") -> bool:
        return self.resume(shake, target, sni).resumed

    def resume(self, shake: Handshake, target: Target, sni: str = "localhost") -> Handshake:
        assert shake.session is not None, "no ticket came"
        return _shaken(resume(target, self._context, shake.session, sni=sni, timeout_ms=5000))


@dataclass
class Stage:
    """Sites in one directory, under one certificate, and clients who trust it."""

    directory: Path
    sites: list[Site] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.chmod(0o755)
        self.ca, self.certificate = new_authority(datetime.now(UTC)).write(
            self.directory, "localhost", "other.test", "second.test", "own.test", "127.0.0.1"
        )

    def site(self, name: str, *, window: Window | None = None, options: str = "", cold_key: bool = True) -> Site:
        """One more, not started yet; with a window in its key file if one is given."""
        site = Site(name, self.directory / name, self.certificate, options=options, cold_key=cold_key)
        if window is not None:
            site.write(window.content)
        self.sites.append(site)
        return site

    def started(self, name: str, window: Window | None = None, *, options: str = "", cold_key: bool = True) -> Site:
        site = self.site(name, window=window, options=options, cold_key=cold_key)
        site.start()
        return site

    @property
    def trust(self) -> Trust:
        return Trust(ca_file=str(self.ca))

    def client(self, version: Version) -> Client:
        return Client(self.trust, version)


@contextmanager
def staged() -> Iterator[Stage]:
    """An empty stage; whatever was started on it ends with the block, and must not have crashed."""
    _find_nginx()
    with short_directory() as directory:
        stage = Stage(directory)
        try:
            yield stage
        finally:
            for site in stage.sites:
                site.stop()
        for site in stage.sites:
            assert _accidents(site) == []


def _find_nginx() -> Path:
    return debian_nginx_lua() if OTHER_NGINX is None else Path(OTHER_NGINX)


def _accidents(site: Site) -> list[str]:
    lines = site.log.read_text(errors="replace").splitlines() if site.log.exists() else []
    # Whoever kills a worker means it.
    return [
        line
        for line in lines
        if ("[alert]" in line and "exited on signal 9" not in line) or "the reader itself failed" in line
    ]


def _listens(port: int) -> bool:
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == 0


def _shaken(answer: Handshake | Fault) -> Handshake:
    assert isinstance(answer, Handshake), answer
    return answer


def memory(pid: int) -> bytes:
    """All that a process can read and write."""
    return b"".join(content for _, content in mappings(pid))


def mappings(pid: int) -> Iterator[tuple[str, bytes]]:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(at, 16) for at in span.split("-"))
                yield span, os.pread(memory.fileno(), end - start, start)
