"""Real nginx on loopback, for tests and `keyrotd demo`, whichever way its keys come in."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports

#: Where Debian's nginx has what it was not built with.
MODULES = Path("/usr/lib/nginx/modules")
LUA_MODULES = (MODULES / "ndk_http_module.so", MODULES / "ngx_http_lua_module.so")


def find_nginx() -> Path:
    """The nginx on PATH, or where Debian puts it."""
    on_path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if on_path is None:
        raise KeyrotdError("demo: needs an nginx, there is none", hint="on Debian: apt-get install nginx")
    return Path(on_path)


class Intake(Protocol):
    """How keys come into an nginx: what its configuration, and the agent's, say of it. `home` is the nginx's own."""

    @property
    def kind(self) -> str:
        """The driver's word in the catalogue."""

    def key_file(self, home: Path) -> Path:
        """The file that must be there before a start, in a directory where agents alone write."""

    def main(self, home: Path) -> str:
        """Lines for the main context."""

    def servers(self, home: Path) -> str:
        """Lines for http, and again for stream."""

    def http(self, home: Path) -> str:
        """Lines for http alone."""

    def section(self, nginx: "Nginx") -> str:
        """What [[server]] says."""


@dataclass(frozen=True)
class ByModule:
    """The C module of deploy/nginx, built."""

    module: Path
    poll_ms: int = 100

    kind = "nginx"

    def key_file(self, home: Path) -> Path:
        return home / "keys" / "tickets"

    def main(self, home: Path) -> str:
        return f"""\
load_module {self.module};
keyrotd_key_file {self.key_file(home)};
keyrotd_ack_dir {home}/acks;
keyrotd_poll_interval {self.poll_ms}ms;
"""

    def servers(self, home: Path) -> str:  # noqa: ARG002 - nothing more is to be said
        return ""

    http = servers

    def section(self, nginx: "Nginx") -> str:
        return _in_process(self.key_file(nginx.directory), nginx.directory / "acks")


@dataclass(frozen=True)
class ByLua:
    """The Lua of deploy/nginx/lua, in an nginx that has Lua's modules or `loads` them."""

    lua: Path
    loads: tuple[Path, ...] = LUA_MODULES
    poll_ms: int = 100

    kind = "nginx"

    def key_file(self, home: Path) -> Path:
        return home / "keys" / "tickets"

    def main(self, home: Path) -> str:  # noqa: ARG002 - the same for all
        return "".join(f"load_module {module};\n" for module in self.loads)

    def servers(self, home: Path) -> str:
        # With a key configured nginx has a place for keys in each of its servers; this one is wiped at once.
        cold = home / "cold.key"
        if not cold.exists():
            cold.touch(mode=0o600)
            cold.write_bytes(os.urandom(80))
        return f"ssl_session_ticket_key {cold};"

    def http(self, home: Path) -> str:
        return f"""\
lua_package_path "{self.lua}/?.lua;;";
init_worker_by_lua_block {{
    require("keyrotd").start {{
        key_file = "{self.key_file(home)}", ack_dir = "{home}/acks", poll = {self.poll_ms / 1000},
    }}
}}"""

    def section(self, nginx: "Nginx") -> str:
        return _in_process(self.key_file(nginx.directory), nginx.directory / "acks")


@dataclass(frozen=True)
class ByFiles:
    """nginx's own key files, and a reload: what any nginx can."""

    slots: int = 3

    kind = "command"

    def key_file(self, home: Path) -> Path:
        return home / "keys" / "0.key"

    def main(self, home: Path) -> str:  # noqa: ARG002 - nothing to be said
        return ""

    http = main

    def servers(self, home: Path) -> str:
        return "\n".join(f"ssl_session_ticket_key {home}/keys/{n}.key;" for n in range(self.slots))

    def section(self, nginx: "Nginx") -> str:
        words = ", ".join(f'"{word}"' for word in (*nginx.argv, "-s", "reload"))
        return f"""\
driver = "command"
key_file = "{nginx.directory}/keys/{{n}}.key"
layout = "nginx80-files"
slots = {self.slots}
command = [{words}]
min_interval = "1s"
timeout = "5s"
"""


@dataclass
class Nginx:
    """
    One nginx of two workers, whose servers all show one page.

    Two of them are on `port`, one more on the second of `ports`, and one of stream on the third: that says the same
    without being asked. `directory` is its own; workers run as whoever starts it, or as `user` if that is root. As a
    `daemon` it obeys USR2: a master whose parent lives takes itself for a new binary. `amend` has the last word
    on its configuration.
    """

    name: str
    directory: Path
    certificate: Path
    exe: Path
    intake: Intake
    user: str = "root"
    daemon: bool = False
    amend: Callable[[str], str] = field(default=lambda text: text)
    ports: tuple[int, ...] = field(default_factory=lambda: free_ports(3), init=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # Workers look in the one, and write in the other.
        for folder, owner in (self.directory, None), (self.key_file.parent, None), (self.ack_dir, self.user):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if owner is not None and os.geteuid() == 0:
                shutil.chown(folder, owner)

    @property
    def kind(self) -> str:
        return self.intake.kind

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def key_file(self) -> Path:
        return self.intake.key_file(self.directory)

    @property
    def ack_dir(self) -> Path:
        return self.directory / "acks"

    @property
    def section(self) -> str:
        return self.intake.section(self)

    @property
    def log(self) -> Path:
        return self.directory / "error.log"

    @property
    def argv(self) -> tuple[str, ...]:
        # -e: what it says before it knows its configuration goes to the same place.
        paths = ("-p", str(self.directory), "-c", str(self.directory / "nginx.conf"), "-e", str(self.log))
        return (str(self.exe), *paths)

    @property
    def config(self) -> str:
        http, stream = (servers.format(ports=self.ports, name=self.name) for servers in (_HTTP, _STREAM))
        temps = "\n".join(f"{kind}_temp_path {self.directory}/{kind};" for kind in _TEMPS)
        return f"""\
{"".join(f"load_module {module};" for module in self._modules)}
{f"user {self.user};" if os.geteuid() == 0 else ""}
worker_processes {_WORKERS};
daemon {"on" if self.daemon else "off"};
pid {self.directory}/pid;
error_log {self.log} notice;
{self.intake.main(self.directory)}
events {{ worker_connections 1000; }}
http {{
{_TLS.format(certificate=self.certificate)}
{self.intake.servers(self.directory)}
{self.intake.http(self.directory)}
{temps}
{http}
}}
stream {{
{_TLS.format(certificate=self.certificate)}
{self.intake.servers(self.directory)}
{stream}
}}
"""

    def start(self) -> None:
        (self.directory / "nginx.conf").write_text(self.amend(self.config))
        # Else an address that still lies there from a former daemon would be taken for this one's.
        (self.directory / "pid").unlink(missing_ok=True)
        self._child = start_child(self.argv, log=self.log)
        wait_until(lambda: self._serves or self._failed, f"nginx {self.name} serves")
        if self._failed:
            last = self.log.read_text(errors="replace").splitlines()[-1:]
            raise KeyrotdError(f"nginx {self.name}: wants to start, ended with: {''.join(last)}")

    def reload(self) -> None:
        """Return once none but new workers are there."""
        before = set(self.workers)
        self.signal(signal.SIGHUP)
        wait_until(
            lambda: len(self.workers) == _WORKERS and not before & set(self.workers), f"nginx {self.name} has reloaded"
        )

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        """Whoever is its master now."""
        if self._child is None:
            return
        master = self.master
        if self.daemon and master:
            os.kill(master, signal.SIGTERM)
            wait_until(lambda: not Path(f"/proc/{master}").exists(), f"nginx {self.name} ends")
        stop_child(self._child)
        self._child = None

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        os.kill(self.master, number)

    @property
    def master(self) -> int:
        """0 while none runs."""
        try:
            return int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return 0

    @property
    def pid(self) -> int:
        """A reload replaces the workers: it is the first of them."""
        return next(iter(self.workers), 0)

    @property
    def workers(self) -> tuple[int, ...]:
        """Those of the master's children that serve, by their pids: not the managers of caches."""
        try:
            text = Path(f"/proc/{self.master}/task/{self.master}/children").read_text("ascii")
        except OSError:
            return ()
        return tuple(sorted(pid for pid in map(int, text.split()) if _is_worker(pid)))

    def said(self, words: str) -> int:
        """How often its log has them."""
        return self.log.read_text(errors="replace").count(words)

    @property
    def _modules(self) -> tuple[Path, ...]:
        told = subprocess.run((str(self.exe), "-V"), capture_output=True, text=True, check=True).stderr
        return (MODULES / "ngx_stream_module.so",) if "--with-stream=dynamic" in told else ()

    @property
    def _serves(self) -> bool:
        with socket.socket() as line:
            return len(self.workers) == _WORKERS and line.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def _failed(self) -> bool:
        assert self._child is not None
        code = self._child.poll()
        return code is not None and not (self.daemon and code == 0)


def _is_worker(pid: int) -> bool:
    try:
        return b"worker process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _in_process(key_file: Path, ack_dir: Path) -> str:
    return f"""\
driver = "nginx"
key_file = "{key_file}"
ack_dir = "{ack_dir}"
mode = "0640"
timeout = "2s"
"""


_WORKERS = 2
_TEMPS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
# No session cache: whatever resumes, resumes by a ticket.
_TLS = """\
ssl_certificate {certificate};
ssl_certificate_key {certificate};
ssl_protocols TLSv1.2 TLSv1.3;
ssl_session_cache off;
ssl_session_timeout 1h;
map $ssl_session_reused $resumed {{ r 1; default 0; }}"""
# reuseport, so that the kernel gives each of two workers its share; both ask for it or neither has the port.
_HTTP = """\
access_log off;
keepalive_timeout 60s;
keepalive_requests 1000000;
server {{
    listen 127.0.0.1:{ports[0]} ssl reuseport;
    server_name localhost;
    return 200 "name={name} resumed=$resumed pid=$pid";
}}
server {{
    listen 127.0.0.1:{ports[0]} ssl;
    server_name other.test;
    return 200 "name={name} resumed=$resumed pid=$pid";
}}
server {{
    listen 127.0.0.1:{ports[1]} ssl reuseport;
    server_name localhost;
    return 200 "name={name} resumed=$resumed pid=$pid";
}}"""
_STREAM = """\
server {{
    listen 127.0.0.1:{ports[2]} ssl reuseport;
    return "name={name} resumed=$resumed pid=$pid";
}}"""
