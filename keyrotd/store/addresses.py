"""Store URLs, parsed strictly into values whose words never show a password."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from keyrotd.core.errors import ConfigError

#: `sockaddr_un` takes 108 bytes with the final zero.
SOCKET_PATH_BYTES: Final = 107
#: Sentinels, or nodes of a cluster to start from: more than any fleet runs or needs.
HOSTS: Final = 16

_PORT = 6379
_SENTINEL_PORT = 26379
_TLS = {"ca_file", "cert_file", "key_file"}
_SENTINEL = {"password_file", "db", "sentinel_username", "sentinel_password_file"}
#: What may stand after the `?` of each scheme.
_OPTIONS: Final = {
    "redis": {"password_file"},
    "rediss": {"password_file"} | _TLS,
    "unix": {"password_file", "db"},
    "redis+sentinel": _SENTINEL,
    "rediss+sentinel": _SENTINEL | _TLS,
    "redis+cluster": {"password_file"},
    "rediss+cluster": {"password_file"} | _TLS,
}
_HINT = (
    "redis://[USER@]HOST[:PORT][/DB], redis+sentinel://[USER@]HOST,HOST/NAME, "
    "redis+cluster://[USER@]HOST,HOST, rediss for TLS (and ?ca_file=, cert_file=, key_file=), "
    "unix:///PATH or embedded:; each takes ?password_file="
)
_UNREADABLE = "its host or port cannot be read; `/`, `@`, `?` and `#` in a password are %2F, %40, ..."


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows where the primary called `name` listens: each with credentials of its own."""

    nodes: tuple["Address", ...]
    name: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Some nodes of a cluster, by host and port, that know all others."""

    seeds: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    Where a store listens, and as whom we speak: at a Unix socket's `path`, at `host` and `port`, or `through` others.

    `password_file` is read anew for each connection, so that a password can change under a running daemon.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    through: Sentinels | Cluster | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.host, self.path, self.through))) != 1:
            raise ValueError("an address is a host, a path or the way to one")

    def at(self, host: str, port: int) -> "Address":
        """Return the address of a node that was found through others: whom we speak as stays."""
        return replace(self, host=host, port=port, through=None)

    def __str__(self) -> str:
        scheme = "rediss" if self.tls else "redis"
        db = f"?db={self.db}" if self.db else ""
        match self.through:
            case Sentinels():
                hosts = _joined((node.host, node.port) for node in self.through.nodes)
                return f"{scheme}+sentinel://{hosts}/{self.through.name}{db}"
            case Cluster():
                return f"{scheme}+cluster://{_joined(self.through.seeds)}"
        if self.path:
            return f"unix://{self.path}{db}"
        return f"{scheme}://{_joined([(self.host, self.port)])}/{self.db}"


def _joined(hosts: Iterable[tuple[str, int]]) -> str:
    return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)


def parse(url: str, *, runtime_dir: Path) -> Address:
    """Read a store URL; `embedded:` is the private store's socket in `runtime_dir`. Raises ConfigError."""
    if url == "embedded:":
        return _unix(str(embedded_socket(runtime_dir)), {}, None, None)
    scheme = url.partition(":")[0]
    if scheme not in _OPTIONS:
        raise _fault("it begins with no scheme that keyrotd knows")
    splits = [_split(single) for single in (_singly(url) if "+" in scheme else [url])]
    split = splits[0]
    options = _options(split)
    username = unquote(split.username) if split.username else None
    password = unquote(split.password) if split.password else None
    if password is not None and "password_file" in options:
        raise _fault("it has both a password and a password_file")
    if scheme == "unix":
        if split.netloc.rpartition("@")[2]:
            raise _fault("a unix:// url has a path and no host: unix:///run/redis.sock")
        return _unix(unquote(split.path), options, username, password)
    kind = scheme.partition("+")[2]
    hosts = tuple(_host(each, _SENTINEL_PORT if kind == "sentinel" else _PORT) for each in splits)
    tls = {name: options[name] for name in _TLS if name in options}
    through: Sentinels | Cluster | None = None
    if kind == "sentinel":
        through = Sentinels(_sentinels(hosts, scheme, options, tls), _name(split.path))
    elif kind == "cluster":
        through = Cluster(hosts)
        if split.path not in {"", "/"}:
            raise _fault("a cluster has one database, and nothing stands after its hosts")
    return Address(
        host="" if through else hosts[0][0],
        port=0 if through else hosts[0][1],
        path="",
        through=through,
        db=_db(options.get("db", "") if through else split.path.strip("/")),
        username=username,
        password=password,
        password_file=options.get("password_file"),
        tls=scheme.startswith("rediss"),
        **tls,
    )


def placed(address: Address, place: Callable[[str], Path]) -> Address:
    """Return the address with each file that it names where `place` says, also those for its sentinels."""
    names = ("password_file", "ca_file", "cert_file", "key_file")
    files: dict[str, Any] = {name: str(place(text)) for name in names if (text := getattr(address, name)) is not None}
    through = address.through
    if isinstance(through, Sentinels):
        through = replace(through, nodes=tuple(placed(node, place) for node in through.nodes))
    return replace(address, through=through, **files)


def embedded_socket(runtime_dir: Path) -> Path:
    """Where `embedded:` listens."""
    return runtime_dir / "store.sock"


def _singly(url: str) -> list[str]:
    """Write a url of several hosts as a url of each."""
    found = re.fullmatch(r"([^:]*://(?:[^/?#@]*@)?)([^/?#@]*)((?:[/?#].*)?)", url, re.DOTALL)
    if found is None:
        raise _fault(_UNREADABLE)
    hosts = found[2].split(",")
    if len(hosts) > HOSTS:
        raise _fault(f"it has {len(hosts)} hosts, {HOSTS} are enough")
    return [f"{found[1]}{host}{found[3]}" for host in hosts]


def _split(url: str) -> SplitResult:
    # What urllib says of a bad url may quote the password in it.
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        raise _fault(_UNREADABLE) from None
    return split


def _host(split: SplitResult, port: int) -> tuple[str, int]:
    if not split.hostname:
        raise _fault("it has no host")
    if "," in split.hostname:
        raise _fault("it has several hosts: are they sentinels (redis+sentinel://) or a cluster's (redis+cluster://)?")
    return unquote(split.hostname), port if split.port is None else split.port


def _sentinels(
    hosts: tuple[tuple[str, int], ...], scheme: str, options: dict[str, str], tls: dict[str, str]
) -> tuple[Address, ...]:
    return tuple(
        Address(
            host=host,
            port=port,
            path="",
            through=None,
            db=0,
            username=options.get("sentinel_username"),
            password=None,
            password_file=options.get("sentinel_password_file"),
            tls=scheme.startswith("rediss"),
            **tls,
        )
        for host, port in hosts
    )


def _name(path: str) -> str:
    name = path.removeprefix("/")
    # What Sentinel itself takes; nothing is shown, since after an unescaped `/` it is a piece of a password.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,256}", name):
        raise _fault("after its sentinels it needs the name of what they monitor: redis+sentinel://HOST,HOST/NAME")
    return name


def _unix(path: str, options: dict[str, str], username: str | None, password: str | None) -> Address:
    if not path.startswith("/"):
        raise _fault("its path does not start at /")
    if len(path.encode()) > SOCKET_PATH_BYTES:
        raise _fault(f"the socket's path {path} has {len(path.encode())} bytes, the system takes {SOCKET_PATH_BYTES}")
    db = _db(options.pop("db", ""))
    return Address(path=path, db=db, username=username, password=password, password_file=options.get("password_file"))


def _options(split: SplitResult) -> dict[str, str]:
    allowed = _OPTIONS[split.scheme]
    pairs = parse_qsl(split.query, keep_blank_values=True)
    # Not even a name is shown: after an unescaped `?` it is a piece of a password.
    if split.fragment or len(dict(pairs)) != len(pairs) or not dict(pairs).keys() <= allowed:
        raise _fault(f"after its `?` it may have {', '.join(sorted(allowed))}, each once")
    if not all(value for _, value in pairs):
        raise _fault("an option after its `?` is empty")
    return dict(pairs)


def _db(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 5):  # noqa: PLR2004 - more databases than any server has
        raise _fault("its database is no small number")
    return int(text)


def _fault(words: str, hint: str = _HINT) -> ConfigError:
    return ConfigError([(f"store.url: {words}", hint)])
