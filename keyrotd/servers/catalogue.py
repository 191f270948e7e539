"""Every driver by its word in `[[server]] driver = ...`, and what else its section may say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from keyrotd.servers.command import CommandDriver
from keyrotd.servers.envoy import EnvoyDriver
from keyrotd.servers.haproxy import HAProxyDriver
from keyrotd.servers.inprocess import NginxDriver
from keyrotd.servers.layouts import KEY_FILES
from keyrotd.servers.port import Driver
from keyrotd.servers.trafficserver import TrafficServerDriver


class Type(Enum):
    """What a field's text in the configuration means, and as what a driver takes it."""

    TEXT = "text"  # str
    PATH = "path"  # Path
    PATHS = "path, or list of paths"  # tuple[Path, ...]
    WORDS = "list of words"  # tuple[str, ...]
    DURATION = "duration"  # int, milliseconds
    MODE = "file mode"  # int; written in octal, "0640"
    COUNT = "count"  # int
    CHOICE = "one of"  # str


class _Required(Enum):
    REQUIRED = "required"


REQUIRED = _Required.REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a section. `into`: the driver's parameter, where it has another name; `default` is the driver's."""

    type: Type
    says: str
    default: object = REQUIRED
    into: str | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    make: Callable[..., Driver]
    says: str
    fields: Mapping[str, Field]

    def build(self, name: str, values: Mapping[str, object]) -> Driver:
        """`values` by key of the section, converted as each Field.type says. Raises ConfigError with all faults."""
        return self.make(name=name, **{self.fields[key].into or key: value for key, value in values.items()})


#: What every section may say, besides `driver`; not the driver's affair.
COMMON: Mapping[str, Field] = MappingProxyType(
    {
        "name": Field(type=Type.TEXT, says="what logs and `status` call it"),
        "ring": Field(type=Type.TEXT, says="whose keys it gets"),
        "probe": Field(type=Type.TEXT, says="host:port for a real handshake after each install", default=None),
        "sni": Field(type=Type.TEXT, says="the name to ask for in that handshake", default=None),
        "ca_file": Field(type=Type.PATH, says="whom to trust in it; without one, tickets alone count", default=None),
        "advertise": Field(type=Type.TEXT, says="host:port where peers may offer it their tickets", default=None),
    }
)

_ACCESS: Mapping[str, Field] = MappingProxyType(
    {
        "mode": Field(type=Type.MODE, says="of the key files", default=0o600),
        "owner": Field(type=Type.TEXT, says="of the key files", default=None),
        "group": Field(type=Type.TEXT, says="of the key files", default=None),
    }
)

_IN_PROCESS: Mapping[str, Field] = MappingProxyType(
    {
        "key_file": Field(type=Type.PATH, says="which its processes read, in a directory that they may not write in"),
        "ack_dir": Field(type=Type.PATH, says="where they acknowledge; a directory that they may write in"),
        "timeout": Field(type=Type.DURATION, says="for all of them to take keys up", default=3_000, into="timeout_ms"),
        **_ACCESS,
        "mode": Field(type=Type.MODE, says="of the key file", default=0o640),
    }
)

DRIVERS: Mapping[str, Entry] = MappingProxyType(
    {
        "haproxy": Entry(
            HAProxyDriver,
            "HAProxy's runtime socket: no reload",
            MappingProxyType(
                {
                    "socket": Field(type=Type.PATHS, says="the `stats socket`, level admin"),
                    "key_file": Field(type=Type.PATHS, says="as `tls-ticket-keys` on the bind line says"),
                    "timeout": Field(type=Type.DURATION, says="for each answer", default=2_000, into="timeout_ms"),
                    "slots": Field(type=Type.COUNT, says="TLS_TICKETS_NO of a build of one's own", default=3),
                    **_ACCESS,
                }
            ),
        ),
        "envoy": Entry(
            EnvoyDriver,
            "Envoy's SDS file: no reload",
            MappingProxyType(
                {
                    "key_file": Field(type=Type.PATH, says="as `path` in its sds_config, in a directory of its own"),
                    "secret": Field(type=Type.TEXT, says="as `name` beside sds_config", default="stek"),
                    "admin": Field(type=Type.TEXT, says="http://HOST:PORT on loopback, or a socket", default=None),
                    "timeout": Field(
                        type=Type.DURATION,
                        says="for each answer, and to take keys up",
                        default=2_000,
                        into="timeout_ms",
                    ),
                    **_ACCESS,
                }
            ),
        ),
        "nginx": Entry(NginxDriver, "nginx or OpenResty, by Lua or by C module: no reload", _IN_PROCESS),
        "trafficserver": Entry(
            TrafficServerDriver,
            "Traffic Server's plugin: no reload",
            MappingProxyType(
                {
                    **_IN_PROCESS,
                    "nudge": Field(type=Type.PATH, says="its mgmtapi.sock or jsonrpc20.sock", default=None),
                    "config_dir": Field(type=Type.PATH, says="its records.config; for check, doctor", default=None),
                }
            ),
        ),
        "command": Entry(
            CommandDriver,
            "key files and a command: a reload, rate limited",
            MappingProxyType(
                {
                    "key_file": Field(type=Type.PATH, says="where the server reads its keys; {n} counts files"),
                    "layout": Field(type=Type.CHOICE, says="how it wants them", choices=tuple(KEY_FILES)),
                    "command": Field(type=Type.WORDS, says="a program and its arguments; no shell"),
                    "slots": Field(type=Type.COUNT, says="how many keys the server reads", default=None),
                    "min_interval": Field(
                        type=Type.DURATION, says="at most one run in this time", default=60_000, into="min_interval_ms"
                    ),
                    "timeout": Field(type=Type.DURATION, says="for one run", default=30_000, into="timeout_ms"),
                    **_ACCESS,
                }
            ),
        ),
    }
)
