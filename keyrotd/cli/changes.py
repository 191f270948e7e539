"""What differs between two readings of a configuration, by dotted names, and which of it waits for a restart."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyrotd.config import DRIVER, SECTIONS, Config, Role
from keyrotd.core.errors import ConfigError
from keyrotd.core.policy import impossible, words
from keyrotd.servers.catalogue import COMMON, DRIVERS, Field, Type

#: What a daemon of a role goes by until it is started anew; a name that ends in a dot is a whole section.
_HELD: Mapping[Role, tuple[str, ...]] = {
    "scheduler": ("runtime_dir", "state_dir", "store.", "scheduler.listen"),
    "agent": ("runtime_dir", "state_dir", "store.", "agent.", "server."),
}


def between(before: Config, after: Config) -> dict[str, str]:
    """By dotted name what a value was and is, `4h -> 2h`; a whole ring or server is `added` or `removed`."""
    changes: dict[str, str] = {}
    for section in sorted({*before.written, *after.written}):
        was, now = before.written.get(section), after.written.get(section)
        if was is None or now is None:
            changes[section] = "added" if was is None else "removed"
            continue
        for key in dict.fromkeys((*was, *now)):
            old, new = (_shown(table, key, section) for table in (was, now))
            if old != new:
                changes[f"{section}.{key}".removeprefix(".")] = f"{old} -> {new}"
    return changes


def held(running: Config, fresh: Config, roles: tuple[Role, ...]) -> tuple[str, ...]:
    """Names of what differs from what these daemons were started with, and that they take at their next start."""
    names = {name for role in roles for name in _HELD[role]}
    return tuple(
        name
        for name, change in between(running, fresh).items()
        if name in names
        or any(name.startswith(section) for section in names if section.endswith("."))
        or (name.startswith("ring.") and change in {"added", "removed"})
    )


def as_running(running: Config, fresh: Config, roles: tuple[Role, ...]) -> Config:
    """
    `fresh` with every policy for the timings that are held. Raises ConfigError for a promise that none of them keeps.

    A lease that is long enough for the new store.timeout may be too short for the one that goes on until a restart.
    """
    timings: dict[str, Any] = {"store_timeout_ms": running.store.timeout_ms}
    if "agent" in roles:
        timings["poll_interval_ms"] = running.agent.poll_interval_ms
    rings = tuple(replace(ring, policy=replace(ring.policy, **timings)) for ring in fresh.rings)
    faults = [
        (f'{fresh.path}: ring "{ring.name}": {fault}', f"{hint}; or restart: until then {_timings(timings)}")
        for ring in rings
        for fault, hint in impossible(ring.policy, slots=None, notice_delay_ms=0)
    ]
    if faults:
        raise ConfigError(list(faults))
    return replace(fresh, rings=rings)


def _timings(timings: Mapping[str, int]) -> str:
    names = {"store_timeout_ms": "store.timeout", "poll_interval_ms": "agent.poll_interval"}
    return " and ".join(f"{names[key]} stays {words(value)}" for key, value in timings.items())


def _shown(table: Mapping[str, object], key: str, section: str) -> str:
    if key in table:
        found = table[key]
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)
    field = _fields(section, table).get(key)
    return "unset" if field is None or field.default is None else _default(field)


def _fields(section: str, table: Mapping[str, object]) -> Mapping[str, Field]:
    kind = section.partition(".")[0]
    if kind != "server":
        return SECTIONS[kind]
    return {**COMMON, "driver": DRIVER, **DRIVERS[str(table["driver"])].fields}


def _default(field: Field) -> str:
    match field.type:
        case Type.DURATION:
            return words(int(str(field.default)))
        case Type.MODE:
            return f"{int(str(field.default)):04o}"
        case _:
            return str(field.default)
