"""Store URLs, parsed strictly into values whose words never show a password."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from keyrotd.core.errors import ConfigError

#: `sockaddr_un` takes 108 bytes with the final zero.
SOCKET_PATH_BYTES: Final = 107

_PORT = 6379
_LATER = {
    "redis+sentinel": "name the primary (redis://, rediss://), or a proxy that follows it",
    "redis+cluster": "name one primary (redis://, rediss://): all keys of a ring share one hash tag and one node",
}
_HINT = (
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://... (with ?ca_file=, cert_file=, key_file=), "
    "unix:///PATH or embedded:; each takes ?password_file="
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """
    Where a store listens, and as whom we speak. With a `path` it is a Unix socket, else `host` and `port`.

    `password_file` is read anew for each connection, so that a password can change under a running daemon.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"


def parse(url: str, *, runtime_dir: Path) -> Address:
    """Read a store URL; `embedded:` is the private store's socket in `runtime_dir`. Raises ConfigError."""
    if url == "embedded:":
        return _unix(str(embedded_socket(runtime_dir)), {}, None, None)
    scheme = url.partition(":")[0]
    if scheme in _LATER:
        raise _fault(f"{scheme}:// is not supported yet", hint=_LATER[scheme])
    if scheme not in {"redis", "rediss", "unix"}:
        raise _fault("its scheme is none of redis, rediss, unix and embedded")
    # What urllib says of a bad url may quote the password in it.
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError:
        raise _fault("its host or port cannot be read; `/`, `@`, `?` and `#` in a password are %2F, %40, ...") from None
    options = _options(split)
    username = unquote(split.username) if split.username else None
    password = unquote(split.password) if split.password else None
    if password is not None and "password_file" in options:
        raise _fault("it has both a password and a password_file")
    if split.scheme == "unix":
        if split.hostname or port is not None:
            raise _fault("a unix:// url has a path and no host: unix:///run/redis.sock")
        return _unix(unquote(split.path), options, username, password)
    if not split.hostname:
        raise _fault("it has no host")
    return Address(
        host=unquote(split.hostname),
        port=_PORT if port is None else port,
        db=_db(split.path.strip("/")),
        username=username,
        password=password,
        tls=split.scheme == "rediss",
        **options,
    )


def embedded_socket(runtime_dir: Path) -> Path:
    """Where `embedded:` listens."""
    return runtime_dir / "store.sock"


def _unix(path: str, options: dict[str, str], username: str | None, password: str | None) -> Address:
    if not path.startswith("/"):
        raise _fault("its path does not start at /")
    if len(path.encode()) > SOCKET_PATH_BYTES:
        raise _fault(f"the socket's path {path} has {len(path.encode())} bytes, the system takes {SOCKET_PATH_BYTES}")
    db = _db(options.pop("db", ""))
    return Address(path=path, db=db, username=username, password=password, password_file=options.get("password_file"))


def _options(split: SplitResult) -> dict[str, str]:
    allowed = {
        "redis": {"password_file"},
        "rediss": {"password_file", "ca_file", "cert_file", "key_file"},
        "unix": {"password_file", "db"},
    }[split.scheme]
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
