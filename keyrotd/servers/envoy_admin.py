"""
Questions to Envoy's admin endpoint, HTTP over loopback or a Unix socket.

An answer or a log of Envoy's may hold keys where its input was malformed, so none ever gets into a message: what is
not understood is told by its length alone.
"""

import errno
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

from keyrotd.core.errors import InstallFailed
from keyrotd.servers.port import ServerUnreachable

#: A thousand listeners' counters are 100 KiB.
MAX_ANSWER_BYTES = 1 << 22
_MAX_SOCKET_PATH = 107  # unix(7): sun_path has 108 bytes, the last one is NUL


@dataclass(frozen=True, slots=True)
class Active:
    """A secret that Envoy goes by: the version of its last change, and how many keys are in it."""

    version: str
    keys: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """
    What Envoy shows of one secret. `instance` is the instant of its start.

    `active` has an element for each source of that name. `version`: of what it took last, changed or not. `taken`,
    `refused` and `unread` count updates, `starved` the TLS connections that it reset for want of any secret; these last
    five are None where its statistics are switched off.
    """

    instance: str
    active: tuple[Active, ...]
    version: str | None
    taken: int | None
    refused: int | None
    unread: int | None
    starved: int | None

    def holds(self, version: str, keys: int) -> bool:
        """Whether the last update that it took bore `version`, and left that many keys."""
        return bool(self.active) and all(
            active.keys == keys and version in (active.version, self.version) for active in self.active
        )


@dataclass(frozen=True, slots=True)
class Setup:
    """How Envoy was set up: listeners with TLS whose ticket keys are not ours, and whether its log shows all keys."""

    strangers: tuple[str, ...]
    logs_keys: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """`server` is who to name in errors. Each call is three connections, and takes at most `timeout_ms`."""

    server: str
    address: str
    timeout_ms: int

    def look(self, secret: str) -> Sight:
        """Ask for everything that is known of `secret`. Raises ServerUnreachable, or InstallFailed if it babbles."""
        deadline = time.monotonic() + self.timeout_ms / 1000
        started = self._dump("/config_dump?mask=last_updated", deadline)
        active = self._dump(
            f"/config_dump?resource=dynamic_active_secrets&name_regex={quote(re.escape(secret))}", deadline
        )
        stats = self._stats(secret, deadline)
        own = f"sds.{secret}"
        return Sight(
            instance=next((str(row["last_updated"]) for row in started if "last_updated" in row), ""),
            active=tuple(_active(row) for row in active if row.get("name") == secret),
            version=stats.get(f"{own}.version_text"),
            taken=_count(stats, f"{own}.update_success"),
            refused=_count(stats, f"{own}.update_rejected"),
            unread=_count(stats, f"{own}.update_failure"),
            starved=_count(stats, *(name for name in stats if name.endswith(_STARVED))),
        )

    def setup(self, secret: str) -> Setup:
        """Ask for what no look at `secret` shows. Raises like `look`."""
        deadline = time.monotonic() + self.timeout_ms / 1000
        rows = [
            *self._dump("/config_dump?resource=static_listeners", deadline),
            *self._dump("/config_dump?resource=dynamic_listeners", deadline),
        ]
        listeners = [found for found in _nested(rows) if str(found.get("@type")).endswith(".listener.v3.Listener")]
        return Setup(
            strangers=tuple(_called(listener) for listener in listeners if not _takes(listener, secret)),
            logs_keys=self._logs_keys(deadline),
        )

    def _logs_keys(self, deadline: float) -> bool:
        answer = self._get("/server_info", deadline)
        match self._json(answer):
            case {"command_line_options": {"log_level": str(level), "component_log_level": str(exceptions)}}:
                of_config = [word.partition(":")[2] for word in exceptions.split(",") if word.startswith("config:")]
                return [level, *of_config][-1] in _TALKATIVE
            case _:
                raise self._unknown(answer)

    def _dump(self, path: str, deadline: float) -> list[dict[str, Any]]:
        answer = self._get(path, deadline)
        match self._json(answer):
            case {"configs": [*rows], **rest} if not rest and all(isinstance(row, dict) for row in rows):
                return rows
            case {**rest} if not rest:  # nothing of the kind is there
                return []
            case _:
                raise self._unknown(answer)

    def _json(self, answer: bytes) -> object:
        try:
            found: object = json.loads(answer)
        except (ValueError, RecursionError):
            raise self._unknown(answer) from None
        return found

    def _stats(self, secret: str, deadline: float) -> dict[str, str]:
        wanted = quote(rf"^sds\.{re.escape(secret)}\.|\.{_STARVED}$")
        lines = self._get(f"/stats?filter={wanted}", deadline).decode("utf-8", errors="replace").splitlines()
        return {name: value.strip('"') for name, _, value in (line.partition(": ") for line in lines)}

    def _get(self, path: str, deadline: float) -> bytes:
        try:
            status, answer = _converse(self.address, path, deadline)
        except http.client.RemoteDisconnected:
            raise ServerUnreachable(
                f"server {self.server}: {self.address} closed without an answer",
                hint="Envoy may be ending, or something else listens there: see its log",
            ) from None
        except OSError as error:
            raise self._unreachable(error) from None
        except http.client.HTTPException:
            raise self._unknown(b"") from None
        if status != http.HTTPStatus.OK:
            raise InstallFailed(
                f"server {self.server}: {self.address} answered {path.partition('?')[0]} with status {status}",
                hint="its allow_paths, if it has any, must let /config_dump, /stats and /server_info through",
            )
        if len(answer) > MAX_ANSWER_BYTES:
            raise self._unknown(answer)
        return answer

    def _unknown(self, answer: bytes) -> InstallFailed:
        return InstallFailed(
            f"server {self.server}: {self.address} gave an answer that keyrotd does not know ({len(answer)} bytes)",
            hint="`admin` must be the admin endpoint of Envoy, version 1.40 or near",
        )

    def _unreachable(self, error: OSError) -> ServerUnreachable:
        find: str = (error.strerror or type(error).__name__).lower()
        hint: str | None = None
        if isinstance(error, TimeoutError) or error.errno == errno.EAGAIN:  # EAGAIN: the backlog is full
            find, hint = f"gave no answer within {self.timeout_ms} ms", "is Envoy stopped, or its machine overloaded?"
        elif error.errno is not None and error.errno in _AWAY:
            find, hint = _AWAY[error.errno]
        return ServerUnreachable(f"server {self.server}: {self.address} {find}", hint=hint)


def unfit(address: str) -> str | None:
    """What is wrong with `address` as an admin endpoint, None if nothing is."""
    if address.startswith("/"):
        return None if len(address.encode()) <= _MAX_SOCKET_PATH else f"is longer than {_MAX_SOCKET_PATH} bytes"
    try:
        url = urlsplit(address)
        port, host = url.port, url.hostname or ""
    except ValueError:
        return "is no URL"
    if url.scheme != "http" or port is None or address != f"http://{url.netloc}" or "@" in url.netloc:
        return "is neither http://HOST:PORT nor the absolute path of a socket"
    if host != "localhost" and not _loopback(host):
        return "is not on loopback"
    return None


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _active(row: Mapping[str, Any]) -> Active:
    match row:
        case {"version_info": str(version), "secret": {"session_ticket_keys": {"keys": [*keys]}}}:
            return Active(version, len(keys))
        case _:
            return Active("", 0)


def _nested(value: object) -> Iterator[dict[str, Any]]:
    """Every object in a JSON document."""
    left = [value]
    while left:
        match left.pop():
            case dict() as found:
                yield found
                left += found.values()
            case [*items]:
                left += items


def _takes(listener: dict[str, Any], secret: str) -> bool:
    """Whether every TLS context of a listener takes its ticket keys from `secret`."""
    contexts = [found for found in _nested(listener) if "common_tls_context" in found]
    return all(
        context.get("session_ticket_keys_sds_secret_config", {}).get("name") == secret
        or context.get("disable_stateless_session_resumption") is True
        for context in contexts
    )


def _called(listener: Mapping[str, Any]) -> str:
    match listener:
        case {"name": str(name)}:
            return name
        case {"address": {"socket_address": {"address": str(address), "port_value": int(port)}}}:
            return f"{address}:{port}"
        case _:
            return "one without a name"


_COUNT = re.compile("[0-9]{1,20}")


def _count(stats: Mapping[str, str], *names: str) -> int | None:
    found = [int(stats[name]) for name in names if _COUNT.fullmatch(stats.get(name, ""))]
    return sum(found) if found else None


class _Line(socket.socket):
    """A connection whose reads all have to end by `deadline`: a drip of bytes shall not extend it."""

    deadline: float

    def recv_into(self, *args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - whatever its parent takes
        self.settimeout(_left(self.deadline))
        return super().recv_into(*args, **kwargs)


def _converse(address: str, path: str, deadline: float) -> tuple[int, bytes]:
    with _Line(fileno=_connected(address, deadline).detach()) as line:
        line.deadline = deadline
        line.settimeout(_left(deadline))
        asking = http.client.HTTPConnection("localhost")
        asking.sock = line
        asking.request("GET", path, headers={"Connection": "close"})
        with asking.getresponse() as answer:
            return answer.status, answer.read(MAX_ANSWER_BYTES + 1)


def _connected(address: str, deadline: float) -> socket.socket:
    if not address.startswith("/"):
        url = urlsplit(address)
        return socket.create_connection((url.hostname, url.port), _left(deadline))
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(_left(deadline))
        line.connect(address)
    except OSError:
        line.close()
        raise
    return line


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


#: Levels at which Envoy's logger `config` writes whole SDS files, keys and all.
_TALKATIVE = frozenset({"trace", "debug"})
_STARVED = "downstream_context_secrets_not_ready"

_AWAY: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        errno.ENOENT: ("does not exist", "is Envoy running, and does `admin` in its bootstrap say this path?"),
        errno.ECONNREFUSED: ("refuses connections", "is Envoy running, with its admin endpoint at this address?"),
        errno.EACCES: (
            "may not be opened: permission denied",
            "let keyrotd's user in: a pipe's `mode` in Envoy's `admin` address, and the directory's",
        ),
    }
)
