"""
What a store tells about itself and about a ring, to whoever has come to look at its health. Nothing is written.

A question that it refuses to this user has no answer (None), and nobody guesses one. Of users it is only taken who we
are and what we may do: passwords, and hashes of them, stay in the answer that carried them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keyrotd.core.errors import StoreUnavailable
from keyrotd.store import answers, limits, plain
from keyrotd.store.addresses import Address, Cluster
from keyrotd.store.port import Poll
from keyrotd.store.redispy import ResponseError
from keyrotd.store.wire import Wire, unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """The part of INFO that matters. '' and None: it does not say. `failing` names what its disk would not take."""

    product: str
    version: str
    role: str
    maxmemory: int | None
    used_memory: int | None
    eviction: str
    appendonly: bool | None
    failing: tuple[str, ...]
    clients: int | None
    maxclients: int | None
    replicas: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """
    As whom the store knows us. `user` None: it would not even say that, as to somebody with few rights.

    `passwordless` None: not told. `beyond` are deeds that our role has no need of and that we are free to do.
    """

    user: str | None
    passwordless: bool | None
    beyond: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A store. `snapshots`: whether it saves any, by its configuration. `store_at`: its clock."""

    info: Info | None
    snapshots: bool | None
    rights: Rights
    store_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A ring. `poll` is what every role may read, or why this user may not (words, hint). `leader` '': nobody leads."""

    poll: Poll | tuple[str, str | None]
    reports: int | None
    leader: str | None


class Examiner:
    """Asks one store. Every method raises StoreUnavailable when there is no answer at all."""

    def __init__(self, address: Address, *, namespace: str, timeout_ms: int) -> None:
        self._wire = Wire(address, timeout_ms=timeout_ms)
        self._namespace = namespace

    def store(self, rings: Iterable[str], role: str | None) -> Examined:
        """Look at the server itself, and at what we could do to `rings` beyond the needs of `role`."""
        info, save, who, now = self._wire.ask(
            "examine", ("INFO",), ("CONFIG", "GET", "save"), ("ACL", "WHOAMI"), ("TIME",)
        )
        told = _fields(info)
        return Examined(
            info=None if told is None else _info(told),
            snapshots=None if (rules := _mapping(save)) is None else rules.get("save", "") != "",
            rights=self._rights(_word(who), rings, role),
            store_at=_instant(now, told),
        )

    def masters(self) -> tuple[Address, ...] | None:
        """Return every node that owns slots of a cluster, each by itself; None: this user may not ask for them."""
        address = self._wire.address
        if not isinstance(address.through, Cluster):
            return (address,)
        (slots,) = self._wire.ask("examine", ("CLUSTER", "SLOTS"))
        match slots:
            case list() if all(_owner(each) for each in slots):
                return tuple(address.at(*found) for found in dict.fromkeys(map(_owner, slots)) if found)
        return None

    def ring(self, ring: str) -> Shown:
        key = f"{self._namespace}:{{{ring}}}"
        window, beat, offers = f"{key}:window", f"{key}:beat", f"{key}:offers"
        *seen, reports, leader = self._wire.ask(
            "examine",
            *plain.glance(window, beat, offers),
            ("HLEN", f"{key}:reports"),
            ("HGET", f"{key}:lease", "holder"),
        )
        return Shown(
            poll=self._poll(seen, window, offers),
            reports=reports if isinstance(reports, int) else None,
            leader=None if isinstance(leader, ResponseError) else _word(leader) or "",
        )

    def close(self) -> None:
        self._wire.close()

    def _poll(self, seen: list[object], window: str, offers: str) -> Poll | tuple[str, str | None]:
        try:
            glance = plain.glanced(seen)
            found = self._wire.ask_on("examine", *plain.closer(window)) if glance.digest else []
            names = plain.names(offers)
            told = self._wire.then(*names, answer_bytes=limits.OFFERS_HELD_BYTES) if glance.offered else None
            return plain.polled(glance, found, told)
        except (answers.Misshapen, ResponseError) as refusal:
            refused = self._unavailable(refusal)
        return str(refused), refused.hint

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        return unavailable(self._wire.address, "examine", error, self._wire.timeout_ms)

    def _rights(self, user: str | None, rings: Iterable[str], role: str | None) -> Rights:
        if user is None:
            return Rights(user=None, passwordless=None, beyond=())
        deeds = _beyond(self._namespace, rings, role)
        # DRYRUN asks whether we may, and does nothing; who may not ask is refused, and that is no "OK".
        found, *tried = self._wire.ask(
            "examine",
            ("ACL", "GETUSER", user),
            *(("ACL", "DRYRUN", user, *command) for _, command in deeds),
        )
        beyond = [deed for (deed, _), answer in zip(deeds, tried, strict=True) if answer == b"OK"]
        return Rights(user=user, passwordless=_passwordless(found), beyond=tuple(dict.fromkeys(beyond)))


def _beyond(namespace: str, rings: Iterable[str], role: str | None) -> list[tuple[str, tuple[str | bytes | int, ...]]]:
    """Every deed, in words, with a command for it, that a user of `role` (None: of any) should not be free to do."""
    deeds: list[tuple[str, tuple[str | bytes | int, ...]]] = [
        ("empty the store", ("FLUSHALL",)),
        ("change its configuration", ("CONFIG", "SET", "maxmemory", "0")),
        ("make users", ("ACL", "SETUSER", "keyrotd-doctor")),
        ("read what is not keyrotd's", ("GET", "keyrotd-doctor")),
    ]
    for ring in rings:
        key = f"{namespace}:{{{ring}}}"
        if role in ("agent", "operator"):
            deeds += [
                ("replace windows", ("HSET", f"{key}:window", "window", "x")),
                ("take the lease", ("HSET", f"{key}:lease", "holder", "x")),
            ]
        if role == "agent":
            deeds.append(("hand in requests", ("HSET", f"{key}:requests", "x", "x")))
            deeds.append(("keep the store busy with a script", ("EVAL_RO", "return 1", 0)))
            deeds.append(("forget what other nodes reported", ("HDEL", f"{key}:reports", "x")))
    return deeds


def _owner(slots: Any) -> tuple[str, int] | None:  # noqa: ANN401 - an answer has whatever shape the server gave it
    """Host and port of who owns a range of slots: it stands before its replicas. None for whatever names nobody."""
    match slots:
        case [int(), int(), [bytes(host), int(port), *_], *_] if host and 0 < port < _PORTS:
            return _word(host) or "", port
    return None


_PORTS = 2**16
_TEXT_CHARACTERS = 64


def _word(answer: object) -> str | None:
    """A short word that may be shown to people; None for whatever is none."""
    if not isinstance(answer, bytes):
        return None
    text = answer[:_TEXT_CHARACTERS].decode("ascii", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def _fields(info: object) -> dict[str, str] | None:
    if not isinstance(info, bytes):
        return None
    pairs = (line.partition(b":") for line in info.splitlines() if not line.startswith(b"#"))
    return {_word(name) or "": _word(value) or "" for name, _, value in pairs}


def _info(told: Mapping[str, str]) -> Info:
    valkey = told.get("valkey_version", "")
    failures = {
        "the last write of its append-only file": told.get("aof_last_write_status", "ok"),
        "its last snapshot": told.get("rdb_last_bgsave_status", "ok"),
    }
    enabled = told.get("aof_enabled")
    return Info(
        product="Valkey" if valkey else "Redis",
        version=valkey or told.get("redis_version", ""),
        role=told.get("role", ""),
        maxmemory=_number(told.get("maxmemory")),
        used_memory=_number(told.get("used_memory")),
        eviction=told.get("maxmemory_policy", ""),
        appendonly=None if enabled is None else enabled == "1",
        failing=tuple(what for what, status in failures.items() if status != "ok"),
        clients=_number(told.get("connected_clients")),
        maxclients=_number(told.get("maxclients")),
        replicas=_number(told.get("connected_slaves")),
    )


_DIGITS = 18  # microseconds since 1970 have 16


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def _instant(now: object, told: Mapping[str, str] | None) -> int | None:
    """Read the store's clock from TIME, else from INFO: operators have a right to that one only."""
    if isinstance(now, list) and len(now) == 2:  # noqa: PLR2004 - seconds and microseconds
        seconds, micros = _number(_word(now[0])), _number(_word(now[1]))
        return None if seconds is None or micros is None else seconds * 1000 + micros // 1000
    micros = _number(told.get("server_time_usec")) if told is not None else None
    return None if micros is None else micros // 1000


def _mapping(answer: Any) -> dict[str, str] | None:  # noqa: ANN401 - likewise
    if not isinstance(answer, dict):
        return None
    return {_word(name) or "": _word(value) or "" for name, value in answer.items()}


def _passwordless(answer: Any) -> bool | None:  # noqa: ANN401 - likewise
    flags = answer.get(b"flags") if isinstance(answer, dict) else None
    return b"nopass" in flags if isinstance(flags, list | set | tuple) else None
