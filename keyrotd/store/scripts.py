"""
The Lua that runs inside the store, one file each in lua/. Every script may be run twice with the effect of once.

Only what Redis 7.0 and Valkey share is used, and every key is passed by name, so that a cluster finds its slot.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from keyrotd.store import limits

_LUA = Path(__file__).with_name("lua")
_LIMITS = {
    "window": limits.WINDOW_BYTES,
    "beat": limits.BEAT_BYTES,
    "report": limits.REPORT_BYTES,
    "request": limits.REQUEST_BYTES,
    "name": limits.NAME_BYTES,
    "reports": limits.REPORTS,
    "reports_bytes": limits.REPORTS_BYTES,
    "strangers": limits.STRANGERS,
    "strangers_bytes": limits.STRANGERS_BYTES,
    "reports_held": limits.REPORTS_HELD_BYTES,
    "offers": limits.OFFERS,
    "offers_held": limits.OFFERS_HELD_BYTES,
    "requests": limits.REQUESTS,
    "requests_held": limits.REQUESTS_HELD_BYTES,
    "measured": limits.MEASURED,
    "history": limits.HISTORY,
    "lease": limits.LEASE_MS,
    "fence_jump": limits.FENCE_JUMP,
}
_COMMON = f"local limit = {{{', '.join(f'{name} = {value}' for name, value in _LIMITS.items())}}}\n" + (
    _LUA / "common.lua"
).read_text("ascii")


@dataclass(frozen=True, slots=True)
class Script:
    source: str = field(repr=False)
    sha: str
    read_only: bool


def _script(name: str, *, read_only: bool = False) -> Script:
    source = _COMMON + (_LUA / f"{name}.lua").read_text("ascii")
    # The store's own name for a script; it authenticates nothing.
    return Script(source, hashlib.sha1(source.encode("ascii"), usedforsecurity=False).hexdigest(), read_only)


LEAD = _script("lead")
RELEASE = _script("release")
BEAT = _script("beat")
PUBLISH = _script("publish")
RECORD = _script("record")
PRUNE = _script("prune")
LOOK = _script("look", read_only=True)
REPORTS = _script("reports", read_only=True)


@dataclass(frozen=True, slots=True)
class Run:
    """A script with its keys and arguments, as a command: by its hash, or whole for a store that never saw it."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[str | bytes | int, ...] = ()

    @property
    def brief(self) -> tuple[str | bytes | int, ...]:
        verb = "EVALSHA_RO" if self.script.read_only else "EVALSHA"
        return (verb, self.script.sha, len(self.keys), *self.keys, *self.arguments)

    @property
    def whole(self) -> tuple[str | bytes | int, ...]:
        # EVAL and not SCRIPT LOAD: it loads just as well, and takes no right that a user could fill the store with.
        verb = "EVAL_RO" if self.script.read_only else "EVAL"
        return (verb, self.script.source, len(self.keys), *self.keys, *self.arguments)
