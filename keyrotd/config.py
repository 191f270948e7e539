"""
The configuration file as a value, or every fault of it at once. The only place where rings, daemons and drivers meet.

`SECTIONS` and the drivers' catalogue say which keys there are; config.example.toml shows each with its default.
"""

import os
import re
import socket
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, assert_never

from keyrotd.core.errors import ConfigError
from keyrotd.core.peers import Network
from keyrotd.core.policy import SEVEN_DAYS_MS, Interval, Policy, Schedule, impossible
from keyrotd.daemon.schedule import cron
from keyrotd.seal.messages import MAX_SERVERS
from keyrotd.sections import Fault, Mismatch, located, read, unknown
from keyrotd.servers.catalogue import COMMON, DRIVERS, Field, Type
from keyrotd.servers.port import Driver
from keyrotd.store import addresses
from keyrotd.store.addresses import Address
from keyrotd.tls.target import Target, parse_server_name, parse_target

#: `ring.edge` is a section, `` the top of the file.
Written: TypeAlias = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """`address` is what `url` means: it names files, and holds no password itself."""

    url: str
    address: Address
    namespace: str
    timeout_ms: int
    wait_replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsConfig:
    """Paths of key files. Which of them a host must have depends on its role: see `needs`."""

    signing_key_file: Path | None
    verify_key_file: Path
    operator_key_file: Path | None
    operator_verify_key_file: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RingConfig:
    name: str
    kek_file: Path
    policy: Policy


@dataclass(frozen=True, slots=True)
class Listen:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """`listen` None: off."""

    tick_interval_ms: int
    lease_ttl_ms: int
    node_ttl_ms: int
    listen: Listen | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """`listen` None: off. `peer_probes` 0: no peer is asked, and none is outside `peer_networks`."""

    node: str
    poll_interval_ms: int
    start_grace_ms: int
    listen: Listen | None
    peer_probes: int
    peer_interval_ms: int
    peer_networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """
    `probe` None: no handshakes. `sni` None: the probed host's name. `ca_file` None: any certificate will do.

    `advertise` None: peers offer it no tickets.
    """

    name: str
    ring: str
    driver: Driver
    probe: Target | None
    sni: str | None
    ca_file: Path | None
    advertise: Target | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    format: Literal["json", "console"]
    level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """
    All of one file and its fragments, every relation between values checked; `path` is how its reader called it.

    `written` is what stands there, by section: what a reload tells its differences by.
    """

    path: Path
    fragments: tuple[Path, ...]
    written: Written = field(repr=False, compare=False)
    runtime_dir: Path
    state_dir: Path
    store: StoreConfig
    secrets: SecretsConfig
    rings: tuple[RingConfig, ...]
    scheduler: SchedulerConfig
    agent: AgentConfig
    servers: tuple[ServerConfig, ...]
    log: LogConfig

    def servers_of(self, ring: str) -> tuple[ServerConfig, ...]:
        return tuple(server for server in self.servers if server.ring == ring)


#: The keys of each section; "" is the top of the file. A default of None is worked out from other values.
SECTIONS: Final[Mapping[str, Mapping[str, Field]]] = MappingProxyType(
    {
        "": {
            "runtime_dir": Field(type=Type.PATH, says="tmpfs: key files, sealed cache", default=Path("/run/keyrotd")),
            "state_dir": Field(type=Type.PATH, says="disk: floor and barrier", default=Path("/var/lib/keyrotd")),
        },
        "store": {
            "url": Field(type=Type.TEXT, says="redis://, rediss://, unix:// or embedded:"),
            "namespace": Field(type=Type.TEXT, says="begins every key in the store", default="keyrotd"),
            "timeout": Field(type=Type.DURATION, says="of one operation with its retries", default=1000),
            "wait_replicas": Field(type=Type.COUNT, says="replicas that must have a window", default=0),
        },
        "secrets": {
            "verify_key_file": Field(type=Type.PATH, says="every host has one: `keyrotd init` makes it"),
            "signing_key_file": Field(type=Type.PATH, says="schedulers only", default=None),
            "operator_verify_key_file": Field(type=Type.PATH, says="schedulers only", default=None),
            "operator_key_file": Field(type=Type.PATH, says="operators only", default=None),
        },
        "ring": {
            "name": Field(type=Type.TEXT, says="lower-case letters, digits, `.`, `_` and `-`"),
            "kek_file": Field(type=Type.PATH, says="the ring's own: `keyrotd init` makes it"),
            "rotation_interval": Field(type=Type.DURATION, says="R: how long a key seals", default=4 * 3_600_000),
            "rotation_cron": Field(type=Type.TEXT, says="in place of it, in UTC", default=None),
            "ticket_lifetime": Field(type=Type.DURATION, says="T: how long a ticket opens", default=2 * 3_600_000),
            "max_seal_age": Field(type=Type.DURATION, says="2 x rotation_interval", default=None),
            "overdue_after": Field(type=Type.DURATION, says="rotation_interval / 8", default=None),
            "max_stranded": Field(type=Type.DURATION, says="7d less V", default=None),
            "previous_keys": Field(type=Type.COUNT, says="at most so many, at the cost of resumptions", default=None),
        },
        "scheduler": {
            "tick_interval": Field(type=Type.DURATION, says="between looks", default=1000),
            "lease_ttl": Field(type=Type.DURATION, says="a dead leader is succeeded after it", default=10_000),
            "node_ttl": Field(type=Type.DURATION, says="a node silent for so long is not live", default=30_000),
            "listen": Field(type=Type.TEXT, says="metrics and health, or off", default="127.0.0.1:9754"),
        },
        "agent": {
            "node": Field(type=Type.TEXT, says="the host's name", default=None),
            "poll_interval": Field(type=Type.DURATION, says="between looks", default=5000),
            "start_grace": Field(type=Type.DURATION, says="before keys of one's own", default=10_000),
            "listen": Field(type=Type.TEXT, says="metrics and health, or off", default="127.0.0.1:9755"),
            "peer_probes": Field(type=Type.COUNT, says="peers that are offered each server's tickets", default=0),
            "peer_interval": Field(type=Type.DURATION, says="between two rounds of that", default=5 * 60_000),
            "peer_networks": Field(type=Type.WORDS, says="the only ones that peers are asked in", default=None),
        },
        "log": {
            "format": Field(
                type=Type.CHOICE, says="for machines or people", default="json", choices=("json", "console")
            ),
            "level": Field(
                type=Type.CHOICE,
                says="least that is said",
                default="info",
                choices=("debug", "info", "warning", "error"),
            ),
        },
    }
)

#: A node's rounds are to be no load, to its peers nor to whoever a node that lies may name.
MAX_PEER_PROBES = 16
MIN_PEER_INTERVAL_MS = 10_000

DRIVER = Field(type=Type.CHOICE, says=f"one of {', '.join(DRIVERS)}", choices=tuple(DRIVERS))

#: Larger than a fleet's worth of servers in one file.
MAX_FILE_BYTES: Final = 1 << 20

#: Beside the file: each `*.toml` in it has [[server]] sections, as if they stood at the file's end, in order of names.
FRAGMENTS: Final = "conf.d"
MAX_FRAGMENTS: Final = 256

RING_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SERVER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]/]+)):([0-9]{1,5})")


def load(path: Path, *, now_at: int | None = None, environ: Mapping[str, str] | None = os.environ) -> Config:
    """
    Read the file at `path` and its fragments. Raises ConfigError with every fault.

    Cron's gaps are judged from `now_at`, None: now. Paths have the variables of `environ`, None: they keep the names.
    """
    # Not resolve(): what lies beside a link to the file is meant, in Kubernetes above all.
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100
    place = partial(located, folder=folder, environ=environ)
    reading = _Reading(path, place, now_at=time.time_ns() // 1_000_000 if now_at is None else now_at)
    config = reading.config(_toml(path))
    if reading.faults or config is None:
        raise ConfigError(list(dict.fromkeys(reading.faults)))
    return config


Role: TypeAlias = Literal["scheduler", "agent", "standalone", "operator"]


def needs(config: Config, role: Role) -> tuple[Fault, ...]:
    """What `config` lacks to run as `role`; it says nothing of the files that it names."""
    match role:
        case "scheduler":
            return tuple(_lacking(config, "a scheduler", "signing_key_file", "operator_verify_key_file"))
        case "agent":
            return _no_server(config)
        case "standalone":
            return needs(config, "scheduler") + needs(config, "agent")
        case "operator":
            return tuple(_lacking(config, "an operator", "operator_key_file"))
        case _:
            assert_never(role)


def _lacking(config: Config, who: str, *keys: str) -> Iterator[Fault]:
    for key in keys:
        if getattr(config.secrets, key) is None:
            name = key.removesuffix("_file").replace("_key", ".key").replace("_", "-")
            yield f"{config.path}: secrets.{key}: {who} needs it", f"`keyrotd init` makes it as secrets/{name}"


def _no_server(config: Config) -> tuple[Fault, ...]:
    if config.servers:
        return ()
    return ((f"{config.path}: server: an agent needs one", f"add [[server]] with a driver: {', '.join(DRIVERS)}"),)


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError([(f"{path}: is over {MAX_FILE_BYTES} bytes", "is this the file you meant?")])
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        words = (error.strerror or type(error).__name__).lower()
        hint = "`keyrotd init DIR` writes one" if isinstance(error, FileNotFoundError) else None
        raise ConfigError([(f"{path}: cannot be read: {words}", hint)]) from error
    except UnicodeDecodeError:
        raise ConfigError([(f"{path}: is not UTF-8", "is this the file you meant?")]) from None
    except RecursionError:
        raise ConfigError([(f"{path}: is nested too deeply", "is this the file you meant?")]) from None
    except tomllib.TOMLDecodeError as error:
        words = str(error)
        raise ConfigError([(f"{path}: is not TOML: {words[:1].lower()}{words[1:]}", None)]) from None


def _fragments(path: Path) -> tuple[Path, ...]:
    """The fragments of the file at `path`, by name; hidden ones are somebody's drafts, or Kubernetes' own."""
    folder = path.parent / FRAGMENTS
    try:
        # Not glob(): it finds nothing where it may not look.
        found = sorted(each for each in folder.iterdir() if each.suffix == ".toml" and not each.name.startswith("."))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ConfigError([(f"{folder}: cannot be read: {(error.strerror or str(error)).lower()}", None)]) from error
    if len(found) > MAX_FRAGMENTS:
        raise ConfigError([(f"{folder}: has {len(found)} fragments, {MAX_FRAGMENTS} are enough", None)])
    return tuple(found)


class _Reading:
    """One file being read: what it says becomes values, what is wrong with it gathers in `faults`."""

    def __init__(self, path: Path, place: Callable[[str], Path], *, now_at: int) -> None:
        self.faults: list[Fault] = []
        self._path, self._place, self._now_at = path, place, now_at

    def config(self, toml: dict[str, Any]) -> Config | None:
        known = {*SECTIONS[""], *SECTIONS, "server"} - {""}
        self.faults += [unknown(key, sorted(known), at=f"{self._path}: ") for key in toml if key not in known]
        top = self._read({key: toml[key] for key in SECTIONS[""] if key in toml}, SECTIONS[""], "")
        store, secrets, scheduler, agent, log = (
            self._table(toml, name) for name in ("store", "secrets", "scheduler", "agent", "log")
        )
        self._settle_top(top)
        self._settle_store(store, top)
        self._settle(scheduler, "listen", "scheduler.", _listen)
        self._settle_agent(agent)
        rings = [self._ring(*found) for found in self._tables(toml, "ring")]
        servers = [self._server(*found) for found in self._tables(toml, "server")]
        fragments = list(self._fragments())
        servers += [server for fragment in fragments for server in fragment.servers]
        if not rings:
            self._fault("ring: there is none", "add [[ring]] with a name and a kek_file")
        self._refuse_twins(rings, servers)
        daemons = {
            "node_ttl_ms": scheduler.get("node_ttl"),
            "tick_interval_ms": scheduler.get("tick_interval"),
            "lease_ttl_ms": scheduler.get("lease_ttl"),
            "poll_interval_ms": agent.get("poll_interval"),
            "store_timeout_ms": store.get("timeout"),
        }
        built = [self._policed(ring, daemons, servers) for ring in rings]
        if self.faults:
            return None
        return Config(
            path=self._path,
            fragments=tuple(fragment.path for fragment in fragments),
            written=_written(toml, fragments),
            **top,
            store=StoreConfig(**_timed(store)),
            secrets=SecretsConfig(**secrets),
            rings=tuple(ring for ring in built if ring is not None),
            scheduler=SchedulerConfig(**_timed(scheduler)),
            agent=AgentConfig(**_timed(agent)),
            servers=tuple(
                ServerConfig(**{key: value for key, value in server.items() if key != "file"}) for server in servers
            ),
            log=LogConfig(**log),
        )

    def _fragments(self) -> Iterator["_Fragment"]:
        """A path in a fragment means what it means here, so that sections may move from one to the other."""
        try:
            paths = _fragments(self._path)
        except ConfigError as error:
            self.faults += error.faults
            return
        for path in paths:
            part = _Reading(path, self._place, now_at=self._now_at)
            try:
                yield part._fragment(_toml(path), main=self._path)
            except ConfigError as error:
                self.faults += error.faults
            self.faults += part.faults

    def _fragment(self, toml: dict[str, Any], *, main: Path) -> "_Fragment":
        for key in toml:
            if key != "server":
                self._fault(f"{key}: has no place in a fragment", f"only [[server]] has; the rest stands in {main}")
        tables = list(self._tables(toml, "server"))
        return _Fragment(self._path, [self._server(*found) for found in tables], [table for table, _ in tables])

    def _fault(self, words: str, hint: str | None) -> None:
        self.faults.append((f"{self._path}: {words}", hint))

    def _read(self, found: Mapping[str, object], fields: Mapping[str, Field], at: str) -> dict[str, Any]:
        section = read(found, fields, at=f"{self._path}: {at}", place=self._place)
        self.faults += section.faults
        return dict(section.values)

    def _table(self, toml: dict[str, Any], name: str) -> dict[str, Any]:
        found = toml.get(name, {})
        if not isinstance(found, dict):
            self._fault(f"{name}: want a section, found something else", f"write [{name}]")
            return {}
        return self._read(found, SECTIONS[name], f"{name}.")

    def _tables(self, toml: dict[str, Any], name: str) -> Iterator[tuple[dict[str, Any], str]]:
        """Every table of a list with what faults call it: by its name where it has one, else by its place."""
        found = toml.get(name, [])
        if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
            self._fault(
                f"{name}: want a list of sections, found something else", f"write [[{name}]], in double brackets"
            )
            return
        for place, table in enumerate(found, start=1):
            called = table.get("name")
            named = isinstance(called, str) and called.isprintable() and called != ""
            yield table, f'{name} "{called}": ' if named else f"{name} {place}: "

    def _settle(self, values: dict[str, Any], key: str, at: str, parse: Callable[[Any], object]) -> None:
        """Put what `parse` makes of a value in its place; a value that it refuses is a fault and goes."""
        if values.get(key) is None:
            return
        try:
            values[key] = parse(values[key])
        except ConfigError as error:
            del values[key]
            for words, hint in error.faults:
                self._fault(f"{at}{key}: {words}", hint)

    def _settle_top(self, top: dict[str, Any]) -> None:
        if "runtime_dir" in top and top["runtime_dir"] == top.get("state_dir"):
            self._fault("state_dir: is runtime_dir too", "sealed keys belong on tmpfs, floor and barrier on a disk")

    def _settle_store(self, store: dict[str, Any], top: dict[str, Any]) -> None:
        self._settle(store, "namespace", "store.", _shaped(_NAMESPACE, "letters, digits and `._:-`, at most 64"))
        # Without a runtime_dir there is a fault already; any folder does to look at the url.
        runtime_dir = top.get("runtime_dir", Path("/run/keyrotd"))
        store["address"] = None
        if "url" not in store:
            return
        try:
            address = addresses.parse(store["url"], runtime_dir=runtime_dir)
            if address.password is not None:
                self._fault(
                    "store.url: holds a password, which belongs into no configuration",
                    "write it to a file of mode 0600, and name that: ?password_file=FILE",
                )
            store["address"] = addresses.placed(address, self._place)
        except ConfigError as error:
            self.faults += [(f"{self._path}: {words}", hint) for words, hint in error.faults]
        except Mismatch as mismatch:
            self._fault(f"store.url: {mismatch}", mismatch.hint)

    def _settle_agent(self, agent: dict[str, Any]) -> None:
        self._settle(agent, "listen", "agent.", _listen)
        if "node" in agent and agent["node"] is None:
            agent["node"] = socket.gethostname()
        self._settle(agent, "peer_networks", "agent.", _networks)
        if agent.get("peer_networks", ()) is None:
            agent["peer_networks"] = ()
            if agent.get("peer_probes"):
                hint = 'addresses are other nodes\' word: name your own, peer_networks = ["10.0.0.0/8"]'
                self._fault("agent.peer_networks: is missing beside peer_probes", hint)
        if agent.get("peer_probes", 0) > MAX_PEER_PROBES:
            self._fault(f"agent.peer_probes: is over {MAX_PEER_PROBES}", "a few of each node make many of a fleet")
        if agent.get("peer_interval", MIN_PEER_INTERVAL_MS) < MIN_PEER_INTERVAL_MS:
            least = f"{MIN_PEER_INTERVAL_MS // 1000}s"
            self._fault(f"agent.peer_interval: is below {least}", "peers have clients of their own to serve")
        self._settle(agent, "node", "agent.", _shaped(_NODE_NAME, "a host's name: letters, digits and `._-`"))

    def _ring(self, found: dict[str, Any], at: str) -> dict[str, Any]:
        ring = self._read(found, SECTIONS["ring"], at)
        shape = "lower-case letters, digits and `._-`, at most 63"
        self._settle(ring, "name", at, _shaped(RING_NAME, shape))
        self._settle(ring, "rotation_cron", at, lambda text: cron(text, now_at=self._now_at))
        if "rotation_interval" in found and "rotation_cron" in found:
            hint = "an interval counts from the last rotation, cron by the calendar"
            self._fault(f"{at}rotation_cron: stands beside rotation_interval", f"{hint}; delete one")
            ring.pop("rotation_cron", None)
        return {**ring, "at": at}

    def _server(self, found: dict[str, Any], at: str) -> dict[str, Any]:
        driver = self._read({k: v for k, v in found.items() if k == "driver"}, {"driver": DRIVER}, at).get("driver")
        fields = DRIVERS[driver].fields if driver else {}
        rest = {key: value for key, value in found.items() if key != "driver" and (driver or key in COMMON)}
        values = self._read(rest, {**COMMON, **fields}, at)
        server = {"file": self._path, **{key: values[key] for key in COMMON if key in values}}
        self._settle(server, "name", at, _shaped(_SERVER_NAME, "letters, digits and `._-`, at most 64"))
        self._settle(server, "probe", at, _target)
        self._settle(server, "sni", at, _host_name)
        self._settle(server, "advertise", at, _advertised)
        for key in ("sni", "ca_file"):
            if key in rest and "probe" not in rest:
                self._fault(f"{at}{key}: there is no probe that it could serve", "add probe, or delete it")
        if driver and values.keys() >= fields.keys() and "name" in server:
            try:
                given = {key: values[key] for key in fields}
                server["driver"] = DRIVERS[driver].build(server["name"], given)
            except ConfigError as error:
                for words, hint in error.faults:
                    self._fault(at + words.removeprefix(f"server {server['name']}: "), hint)
        return server

    def _refuse_twins(self, rings: list[dict[str, Any]], servers: list[dict[str, Any]]) -> None:
        for kind, tables in (("ring", rings), ("server", servers)):
            for name in _twins(table.get("name") for table in tables):
                files = dict.fromkeys(str(table.get("file", "")) for table in tables if table.get("name") == name)
                where = f", in {' and '.join(files)}" if len(files) > 1 else ""
                self._fault(f'{kind} "{name}": there are two of this name{where}', "give each its own")
        for path in _twins(ring.get("kek_file") for ring in rings):
            self._fault(f"kek_file {path}: two rings share it", "a node of one could read the keys of the other")
        for path in _twins(path for server in servers for path in key_files(server.get("driver"))):
            self._fault(f"key_file {path}: two servers share it", "each would undo what the other wrote")
        for name, count in Counter(server.get("ring") for server in servers).items():
            if count > MAX_SERVERS:
                self._fault(
                    f'ring "{name}": has {count} servers on this node, and a report tells of {MAX_SERVERS} at most',
                    "run another agent for the rest, with a node name, runtime_dir and state_dir of its own",
                )
        names = {ring["name"] for ring in rings if "name" in ring}
        for server in servers:
            if names and "ring" in server and server["ring"] not in names:
                found = f'server "{server.get("name", "?")}": ring: there is no ring "{server["ring"]}"'
                self.faults.append((f"{server['file']}: {found}", f"known: {', '.join(sorted(names))}"))

    def _policed(
        self, ring: dict[str, Any], daemons: dict[str, int | None], servers: list[dict[str, Any]]
    ) -> RingConfig | None:
        """Build a ring whose promise can be kept by the daemons and servers of this file."""
        # A value with a fault is not there; what depends on it cannot be judged.
        if None in daemons.values() or not ring.keys() >= SECTIONS["ring"].keys():
            return None
        policy = _policy(ring, {name: number for name, number in daemons.items() if number is not None})
        drivers = [server["driver"] for server in servers if server.get("ring") == ring["name"] and "driver" in server]
        slots = min((d.facts.min_slots for d in drivers if d.facts.min_slots is not None), default=None)
        notice_delay_ms = max((driver.facts.notice_delay_ms for driver in drivers), default=0)
        for words, hint in impossible(policy, slots=slots, notice_delay_ms=notice_delay_ms):
            self._fault(ring["at"] + words, hint)
        return RingConfig(name=ring["name"], kek_file=ring["kek_file"], policy=policy)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """A file of [[server]] sections: what they come to, and what they were read from."""

    path: Path
    servers: list[dict[str, Any]]
    tables: list[dict[str, Any]]


def _written(toml: dict[str, Any], fragments: Iterable[_Fragment]) -> Written:
    tables = {name: toml.get(name, {}) for name in SECTIONS if name not in {"", "ring"}}
    rings = {f"ring.{ring['name']}": ring for ring in toml["ring"]}
    tables_of_servers = chain(toml.get("server", []), *(fragment.tables for fragment in fragments))
    servers = {f"server.{server['name']}": server for server in tables_of_servers}
    return {"": {key: toml[key] for key in SECTIONS[""] if key in toml}, **tables, **rings, **servers}


def _policy(ring: dict[str, Any], daemons: dict[str, int]) -> Policy:
    schedule: Schedule = ring["rotation_cron"] or Interval(ring["rotation_interval"])
    policy = Policy(
        schedule=schedule,
        ticket_lifetime_ms=ring["ticket_lifetime"],
        max_seal_age_ms=ring["max_seal_age"] or 2 * schedule.longest_ms,
        overdue_after_ms=ring["overdue_after"] or 0,
        max_stranded_ms=ring["max_stranded"] or 0,
        previous_keys=ring["previous_keys"],
        **daemons,
    )
    if not ring["overdue_after"]:
        policy = replace(policy, overdue_after_ms=_overdue_after_ms(policy))
    if not ring["max_stranded"]:
        policy = replace(policy, max_stranded_ms=max(0, SEVEN_DAYS_MS - policy.worst_ms))
    return policy


def _overdue_after_ms(policy: Policy) -> int:
    """R / 8, or the most that breaks no promise which a smaller one would keep."""
    r_ms, shortest_ms = policy.rotation_interval_ms, policy.schedule.shortest_ms
    most_ms = min(r_ms // 8, policy.max_seal_age_ms - r_ms - policy.eps_ms, shortest_ms)
    # For servers with few slots. Not only where there is one: all hosts of a ring must come to the same value.
    spare_ms = shortest_ms - policy.ticket_lifetime_ms - policy.eps_ms
    return max(0, min(most_ms, spare_ms) if spare_ms >= policy.node_ttl_ms else most_ms)


def _timed(values: dict[str, Any]) -> dict[str, Any]:
    """`values` with the unit at the end of every duration's name."""
    return {f"{key}_ms" if key in _DURATIONS else key: value for key, value in values.items()}


_DURATIONS = {key for fields in SECTIONS.values() for key, field in fields.items() if field.type is Type.DURATION}


def key_files(driver: Driver | None) -> tuple[Path, ...]:
    """Where a driver writes keys; a `{n}` in a name counts files."""
    found = getattr(driver, "key_file", ())
    return (found,) if isinstance(found, Path) else tuple(found)


def _twins(names: Iterable[Any]) -> list[Any]:
    return [name for name, count in Counter(name for name in names if name is not None).items() if count > 1]


def _shaped(shape: re.Pattern[str], want: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not shape.fullmatch(text):
            raise ConfigError([(f"want {want}, found {text!r}", None)])
        return text

    return parse


def _listen(text: str) -> Listen | None:
    if text == "off":
        return None
    found = _LISTEN.fullmatch(text)
    if found is None or not 0 < int(found[3]) < 2**16:
        hint = "127.0.0.1:9754, [::1]:9754 or, for all the world to see, 0.0.0.0:9754"
        raise ConfigError([(f"want HOST:PORT or off, found {text!r}", hint)])
    return Listen(found[1] or found[2], int(found[3]))


def _networks(words: Iterable[str]) -> tuple[Network, ...]:
    found: list[Network] = []
    for word in words:
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ConfigError([(str(error), "10.0.0.0/8, 2001:db8::/32 or a single address")]) from None
    return tuple(found)


def _advertised(text: str) -> Target:
    """Without a host, this one's own: `:443`."""
    target = _target(f"{socket.gethostname()}{text}" if text.startswith(":") else text)
    if target.port is None:
        raise ConfigError([(f"want HOST:PORT, found {text!r}", "no peer reaches a Unix socket of this host")])
    return target


def _host_name(text: str) -> str:
    try:
        return parse_server_name(text)
    except ValueError as error:
        raise ConfigError([(str(error), None)]) from None


def _target(text: str) -> Target:
    try:
        return parse_target(text)
    except ValueError as error:
        raise ConfigError([(str(error), None)]) from None
