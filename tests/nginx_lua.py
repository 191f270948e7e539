"""Real nginx processes that take their keys by keyrotd's Lua reader, and windows to give them."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from keyrotd.core.keys import Tenure
from keyrotd.core.stek import Stek
from keyrotd.servers import acks, files, keyfile, layouts
from keyrotd.testing.certificates import new_authority
from keyrotd.testing.children import wait_until
from keyrotd.testing.live import free_ports
from keyrotd.testing.nginx import LUA_MODULES, ByLua, Nginx
from keyrotd.tls.handshake import Fault, Handshake, Trust, Version, client_context, resume, visit
from keyrotd.tls.target import Target
from tests.scenes import now_at, short_directory
from tests.servers_found import debian_nginx_lua

LUA = Path(__file__).parents[1] / "deploy" / "nginx" / "lua"

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
class Reader:
    """The Lua in an nginx's configuration (an Intake), with whatever a test wants said around it."""

    options: str = ""
    cold_key: bool = True
    before: str = ""
    after: str = ""
    poll_ms: int = POLL_MS
    locations: str = ""
    ports: tuple[int, ...] = field(default_factory=lambda: free_ports(2))

    kind = "nginx"

    def key_file(self, home: Path) -> Path:
        return home / "keys" / "tickets"

    def main(self, home: Path) -> str:  # noqa: ARG002 - the same for all
        if OTHER_NGINX is None:
            return "".join(f"load_module {module};\n" for module in LUA_MODULES)
        return "env LUA_PATH; # a binary upgrade would forget it\n"

    def servers(self, home: Path) -> str:
        if not self.cold_key:
            return ""
        cold = home / "cold.key"
        if not cold.exists():
            cold.write_bytes(os.urandom(80))
        return f"ssl_session_ticket_key {cold};"

    def http(self, home: Path) -> str:
        plain = f"server {{ listen 127.0.0.1:{self.ports[1]}; {self.locations} }}" if self.locations else ""
        # A cache has helper processes, which run init_worker too and serve nobody.
        return f"""\
proxy_cache_path {home}/cache keys_zone=cache:1m;
lua_package_path "{LUA}/?.lua;;";
init_worker_by_lua_block {{
    {self.before}
    require("keyrotd").start {{
        key_file = "{self.key_file(home)}", ack_dir = "{home}/acks", poll = {self.poll_ms / 1000}, {self.options}
    }}
    {self.after}
}}
server {{
    listen 127.0.0.1:{self.ports[0]} ssl reuseport;
    server_name own.test;
    return 200 "pid=$pid";
}}
{plain}"""

    def section(self, nginx: Nginx) -> str:
        return ByLua(LUA).section(nginx)


@dataclass
class Site:
    """One nginx with the Lua reader in it, and its key file in our hands."""

    nginx: Nginx
    reader: Reader

    @property
    def targets(self) -> tuple[Target, ...]:
        """http, http on another port, stream."""
        return tuple(Target("127.0.0.1", port) for port in self.nginx.ports)

    @property
    def own_target(self) -> Target:
        """A server called own.test, alone on its port."""
        return Target("127.0.0.1", self.reader.ports[0])

    @property
    def plain_port(self) -> int:
        """Without TLS, for `locations`."""
        return self.reader.ports[1]

    @property
    def key_file(self) -> Path:
        return self.nginx.key_file

    def start(self) -> None:
        """Return once every worker has looked."""
        self.nginx.start()
        wait_until(lambda: len(self.acks()) == WORKERS, f"{self.nginx.name} has {WORKERS} workers")

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
            lambda: [ack.digest for ack in self.acks()] == [window.digest] * WORKERS,
            f"{self.nginx.name} has epoch {window.epoch}",
        )

    def wait_for_fault(self, fault: str | None) -> None:
        wait_until(lambda: [ack.fault for ack in self.acks()] == [fault] * WORKERS, f"{self.nginx.name} says {fault}")

    def wait_for_polls(self) -> None:
        """Three more of each worker."""
        since = {ack.pid: ack.touched_at for ack in self.acks()}
        wait_until(
            lambda: all(ack.touched_at >= since[ack.pid] + 3 * ack.poll_ms for ack in self.acks()), "three more polls"
        )

    def acks(self) -> tuple[acks.Ack, ...]:
        """What processes that exist have said."""
        found = acks.living(self.nginx.ack_dir, now_at())
        return tuple(ack for ack in found if Path(f"/proc/{ack.pid}").exists())

    @property
    def workers(self) -> tuple[int, ...]:
        """Who has said something."""
        return tuple(ack.pid for ack in self.acks())


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
            self.directory, "localhost", "other.test", "own.test", "127.0.0.1"
        )

    def site(self, name: str, window: Window | None = None, *, options: str = "", cold_key: bool = True) -> Site:
        """One more, not started yet; with a window in its key file if one is given."""
        reader = Reader(options=options, cold_key=cold_key)
        # Workers of a user that is not the master's, as in production.
        nginx = Nginx(name, self.directory / name, self.certificate, _find_nginx(), reader, user="www-data")
        site = Site(nginx, reader)
        if window is not None:
            site.write(window.content)
        self.sites.append(site)
        return site

    def started(self, name: str, window: Window | None = None, *, options: str = "", cold_key: bool = True) -> Site:
        site = self.site(name, window, options=options, cold_key=cold_key)
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
                site.nginx.stop()
        for site in stage.sites:
            assert _accidents(site.nginx.log) == []


def _find_nginx() -> Path:
    return debian_nginx_lua() if OTHER_NGINX is None else Path(OTHER_NGINX)


def _accidents(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    # Whoever kills a worker means it.
    return [
        line
        for line in lines
        if ("[alert]" in line and "exited on signal 9" not in line) or "the reader itself failed" in line
    ]


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
