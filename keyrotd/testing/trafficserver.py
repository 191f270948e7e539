"""Real Traffic Server 9.2 on loopback, for tests and `keyrotd demo`: started, reloaded, killed, restarted, stopped."""

import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.children import PATIENCE_S, start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports

#: Where Debian's Traffic Server has its plugins.
_MODULES = Path("/usr/lib/trafficserver/modules")

#: As whom it runs when we are root, for it refuses to be: Debian's own user, else whoever owns nothing.
_USERS = ("trafficserver", "nobody")


def find_traffic_server() -> Path:
    """The traffic_manager on PATH. Traffic Server 10 has none, and its configuration is another: it is not found."""
    found = shutil.which("traffic_manager")
    if found is None:
        raise KeyrotdError("demo: needs Traffic Server 9.2, there is none", hint="apt-get install trafficserver")
    return Path(found)


def user() -> pwd.struct_passwd | None:
    """As whom it runs; None: as we do, who are not root."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise KeyrotdError(f"traffic server: refuses to run as root, and there is no user {' or '.join(_USERS)}")


def build_plugin(source: Path, into: Path, *words: str) -> Path:
    """What `make` makes of deploy/trafficserver. Raises KeyrotdError with its last words."""
    argv = ["make", "-s", "-C", str(source), f"BUILD={into}", *words]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    if made.returncode:
        raise KeyrotdError(f"traffic server: the plugin was not built: {''.join(made.stderr.splitlines()[-1:])}")
    return into / "keyrotd.so"


@dataclass
class TrafficServer:
    """
    One Traffic Server: under its manager, as Debian runs it, where `exe` is traffic_manager; alone where it is itself.

    Alone it is up sooner, but nobody can nudge or reload it, and nobody starts it again when it is killed.
    `directory` is its own. `certificate` is the default one: its file's name must be the same on all nodes. `others`
    serve the names they were issued for. `plugin` is keyrotd.so; `polled`: the agent does not nudge it. `under`: words
    of a program that runs it, such as `env` with a variable.
    """

    name: str
    directory: Path
    certificate: Path
    exe: Path
    plugin: Path
    others: Sequence[Path] = ()
    poll_ms: int = 1000
    polled: bool = False
    under: Sequence[str] = ()
    kind: ClassVar[str] = "trafficserver"
    port: int = field(default=0, init=False)
    _main: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._user = user()
        for folder in (
            self.key_file.parent,
            self.etc,
            self.directory / "run",
            self.directory / "log",
            self.directory / "cache",
        ):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.ack_dir.mkdir(mode=0o755, exist_ok=True)
        (self.port,) = free_ports(1)
        self._write_configuration()
        if self._user is not None:
            _let_search(self.directory)
            _hand_over(self.directory, self._user)
            os.chown(self.key_file.parent, 0, 0)  # not to be written in by whom it is for

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def section(self) -> str:
        lines = [f'driver = "{self.kind}"', f'key_file = "{self.key_file}"', f'ack_dir = "{self.ack_dir}"']
        lines += [] if self.polled else [f'nudge = "{self.nudge}"']
        lines += [] if self.group is None else [f'group = "{self.group}"']
        return "".join(f"{line}\n" for line in [*lines, f'config_dir = "{self.etc}"'])

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def key_file(self) -> Path:
        return self.directory / "keys" / "tickets"

    @property
    def certificate_folder(self) -> Path:
        return self.directory / "certificates"

    @property
    def ack_dir(self) -> Path:
        return self.directory / "acks"

    @property
    def nudge(self) -> Path:
        """The management socket."""
        return self.directory / "run" / "mgmtapi.sock"

    @property
    def group(self) -> str | None:
        """Of the key file; None: our own."""
        return None if self._user is None else grp.getgrgid(self._user.pw_gid).gr_name

    @property
    def log(self) -> Path:
        return self.directory / "output.log"

    @property
    def said(self) -> str:
        """All that it and its plugin logged."""
        logs = sorted((self.directory / "log").glob("*.log*"))
        return "".join(path.read_text(errors="replace") for path in (self.log, *logs) if path.exists())

    def start(self) -> None:
        """Return once it takes connections. Raises KeyrotdError with the last words of its log if it ended."""
        argv, before = [str(self.exe), f"--run-root={self.directory}"], self.said.count(_READY)
        self._main = start_child([*self._as_user, *self.under, *argv], log=self.log)
        wait_until(
            lambda: self.said.count(_READY) > before or self._ended, f"Traffic Server {self.name} takes connections"
        )
        if self._ended:
            last = self.said.splitlines()[-1:]
            raise KeyrotdError(f"Traffic Server {self.name}: wants to start, ended with: {''.join(last)}")

    def stop(self) -> None:
        if self._main is not None:
            stop_child(self._main)
            self._main = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """What `systemctl reload` does, with files that really changed: the same process reads them anew."""
        before, asked_at = self.said.count(_RELOADED), -_HEARD_S

        def reloaded() -> bool:
            nonlocal asked_at
            if time.monotonic() - asked_at > _HEARD_S:
                (self.etc / "ssl_multicert.config").touch()
                self.control("config", "reload")
                asked_at = time.monotonic()
            return self.said.count(_RELOADED) > before

        wait_until(reloaded, f"Traffic Server {self.name} reloads its certificates", 2 * PATIENCE_S)

    def kill(self) -> None:
        """SIGKILL to the server; its manager notices by itself."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of the traffic_server, 0 while there is none."""
        if self._main is None:
            return 0
        if self.exe.name != "traffic_manager":
            return self._main.pid
        children = Path(f"/proc/{self._main.pid}/task/{self._main.pid}/children")
        try:
            return next((int(pid) for pid in children.read_text().split()), 0)
        except OSError:
            return 0

    def control(self, *words: str) -> str:
        """Say `traffic_ctl` something and return what it prints."""
        argv = [*self._as_user, "traffic_ctl", f"--run-root={self.directory}", *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout

    def statistics(self, wanted: Callable[[Mapping[str, int]], bool]) -> Mapping[str, int]:
        """`plugin.keyrotd.*` by its last word, once they are as `wanted`: Traffic Server shows them late."""
        found: dict[str, int] = {}

        def shown() -> bool:
            lines = self.control("metric", "match", r"plugin\.keyrotd").splitlines()
            pairs = (line.split() for line in lines if line)
            found.update({name.rpartition(".")[2]: int(value) for name, value in pairs})
            return wanted(found)

        wait_until(shown, f"Traffic Server {self.name} shows its statistics")
        return found

    @property
    def _as_user(self) -> tuple[str, ...]:
        if self._user is None:
            return ()
        # Whoever changes its user loses the signal that ends it with its parent, so it is asked for anew.
        ids = (f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups")
        return ("setpriv", *ids, "--pdeathsig=TERM", "--")

    @property
    def _ended(self) -> bool:
        return self._main is None or self._main.poll() is not None

    def _write_configuration(self) -> None:
        certificates = self.certificate_folder
        certificates.mkdir(mode=0o755, exist_ok=True)
        for certificate in (self.certificate, *self.others):
            shutil.copy(certificate, certificates)
        files = {
            self.directory / "runroot.yaml": _RUNROOT.format(root=self.directory, modules=_MODULES),
            self.etc / "records.config": _RECORDS.format(port=self.port, certificates=certificates),
            self.etc / "ssl_multicert.config": f"dest_ip=* ssl_cert_name={self.certificate.name}\n"
            + "".join(f"ssl_cert_name={other.name}\n" for other in self.others),
            self.etc / "plugin.config": f"tslua.so {self.etc}/page.lua\n"
            f"{self.plugin} --key-file={self.key_file} --ack-dir={self.ack_dir} --poll-ms={self.poll_ms}\n",
            self.etc / "page.lua": _PAGE.replace("NAME", self.name),
            self.etc / "ip_allow.yaml": _IP_ALLOW,
            self.etc / "storage.config": "",
            self.etc / "remap.config": "",
        }
        for path, text in files.items():
            path.write_text(text)


# The manager holds the port, so a connection proves nothing.
_READY = "Traffic Server is fully initialized"
_RELOADED = "ssl_multicert.config finished loading"
# 9.2 sometimes does not hear of a changed file (2 of 12 times); asked again it does.
_HEARD_S = 6.0

#: One key a line. What `traffic_layout` would write keeps Debian's /etc, /var and /run.
_RUNROOT = """\
prefix: {root}
exec_prefix: /usr
bindir: /usr/bin
sbindir: /usr/sbin
sysconfdir: {root}/etc
datadir: {root}/cache
includedir: /usr/include
libdir: /usr/lib/trafficserver
libexecdir: {modules}
localstatedir: {root}
runtimedir: {root}/run
logdir: {root}/log
cachedir: {root}/cache
"""

_PAGE = """\
local ffi = require("ffi")
ffi.cdef("int getpid(void);")
function do_global_read_request()
  ts.http.intercept(function()
    local page = "name=NAME pid=" .. ffi.C.getpid()
    ts.say("HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nContent-Length: " .. #page .. "\\r\\n\\r\\n" .. page)
  end)
end
"""

_IP_ALLOW = """\
ip_allow:
  - apply: in
    ip_addrs: 127.0.0.1
    action: allow
    methods: ALL
"""

# No session cache: whatever resumes, resumes by a ticket.
_RECORDS = """\
CONFIG proxy.config.http.server_ports STRING {port}:ssl:ip-in=127.0.0.1
CONFIG proxy.config.ssl.server.cert.path STRING {certificates}
CONFIG proxy.config.ssl.server.private_key.path STRING {certificates}
CONFIG proxy.config.ssl.session_cache INT 0
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.crash_log_helper STRING NULL
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 2
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 600
CONFIG proxy.config.raw_stat_sync_interval_ms INT 250
CONFIG proxy.config.remote_sync_interval_ms INT 250
CONFIG proxy.config.config_update_interval_ms INT 250
"""


def _let_search(directory: Path) -> None:
    """Let the server's user through to its files: temporary directories of root let nobody."""
    for parent in directory.parents:
        found = parent.stat()
        if not found.st_mode & stat.S_IXOTH:
            parent.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)


def _hand_over(directory: Path, to: pwd.struct_passwd) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, to.pw_uid, to.pw_gid)
