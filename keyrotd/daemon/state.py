"""What a daemon keeps over a restart: floor and barrier on disk, without key material; an agent's windows on tmpfs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from keyrotd.core.decide import NO_MEMORY, Memory
from keyrotd.core.errors import ConfigError, CorruptWindow
from keyrotd.daemon.clock import Clock, Heard
from keyrotd.seal import lines, versions
from keyrotd.seal.lines import line
from keyrotd.servers import files

#: Two full windows and the time; a fleet that forks more often than that keeps the newest.
MAX_CACHE_BYTES = 1_048_576
MAX_MEMORY_BYTES = 1024


class Folder(Protocol):
    """Small files by name. `write` is whole or not at all, and raises OSError when the disk refuses."""

    def read(self, name: str) -> bytes | None: ...
    def write(self, name: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class DiskFolder:
    """Files of ours alone: 0600, replaced in one step."""

    path: Path

    def read(self, name: str) -> bytes | None:
        return files.read(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        files.write(self.path / name, data)


@dataclass(frozen=True, slots=True)
class Bound:
    """A boot time by which what an agent gave its servers has to stop sealing."""

    boot_id: str
    boot_ms: int

    def passed(self, clock: Clock) -> bool:
        """Whether it has passed; after a reboot there is no telling, and no server still has those keys."""
        return clock.boot_id == self.boot_id and clock.boot_ms() >= self.boot_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """
    `memory` as in core/decide; `fence` and `signed_at` are a scheduler's.

    `life` counts the starts of an agent, and `bound` outlives its cache.
    """

    memory: Memory = NO_MEMORY
    fence: int = 0
    signed_at: int = 0
    life: int = 0
    bound: Bound | None = None

    def encode(self) -> bytes:
        return versions.body(
            "memory",
            (
                line("floor", self.memory.floor),
                line("barrier", self.memory.barrier),
                line("fence", self.fence),
                line("signed_at", self.signed_at),
                line("life", self.life),
                line("bound", *(("-",) if self.bound is None else (self.bound.boot_id, self.bound.boot_ms))),
            ),
        ).encode()


def recall(folder: Folder, name: str) -> Remembered:
    """Read what was remembered; nothing at all if the file is absent. Raises CorruptWindow if it is not ours."""
    data = folder.read(name)
    if data is None:
        return Remembered()
    body = lines.own(data, kind="memory", limit=MAX_MEMORY_BYTES)
    found = Remembered(
        memory=Memory(floor=body.take("floor", lines.number), barrier=body.take("barrier", lines.number)),
        fence=body.take("fence", lines.number),
        signed_at=body.take("signed_at", lines.number),
        life=body.take("life", lines.number),
        bound=body.take("bound", lines.maybe(_bound)),
    )
    body.end()
    return found


def _bound(rest: str) -> Bound:
    boot_id, boot_ms = rest.split(" ")
    return Bound(lines.name(boot_id), lines.number(boot_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """
    An agent's windows, sealed and faded: the one it holds first, then older ones that still owe it a key.

    `heard` dates them: fleet time and boot time at one instant. `links` is what seal/links made of the succession.
    """

    windows: tuple[bytes, ...]
    links: bytes
    confirmed_at: int | None
    spread: bool
    stood_in: bool
    sealed: tuple[bytes, ...]
    heard: Heard

    def encode(self) -> bytes:
        head = versions.body(
            "cache",
            (
                line("boot_id", self.heard.boot_id),
                line("boot_ms", self.heard.boot_ms),
                line("fleet_at", self.heard.fleet_at),
                line("moved", "yes" if self.heard.moved else "no"),
                line("confirmed_at", lines.or_dash(self.confirmed_at)),
                line("spread", "yes" if self.spread else "no"),
                line("stood_in", "yes" if self.stood_in else "no"),
                line("sealed", *([name.hex() for name in self.sealed] or "-")),
                line("sizes", len(self.links), *(len(window) for window in self.windows)),
            ),
        )
        return head.encode() + self.links + b"".join(self.windows)


_CACHE_HEAD_LINES = 10


def decode_cache(data: bytes) -> Cache:
    """Read a cache back; raises CorruptWindow if it is not what `encode` wrote, or holds what cannot be read here."""
    versions.look(data, kind="cache")
    pieces = data.split(b"\n", _CACHE_HEAD_LINES)
    if len(data) > MAX_CACHE_BYTES or len(pieces) <= _CACHE_HEAD_LINES:
        lines.refuse("cache: cut short, or too long")
    head, rest = b"".join(piece + b"\n" for piece in pieces[:-1]), pieces[-1]
    body = lines.frame(head, kind="cache", limit=MAX_MEMORY_BYTES).body()
    boot_id, boot_ms = body.take("boot_id", lines.name), body.take("boot_ms", lines.number)
    fleet_at, moved = body.take("fleet_at", lines.number), body.take("moved", lines.yes_or_no)
    confirmed_at = body.take("confirmed_at", lines.maybe(lines.number))
    spread, stood_in = body.take("spread", lines.yes_or_no), body.take("stood_in", lines.yes_or_no)
    sealed = body.take("sealed", lines.maybe(_names)) or ()
    sizes = body.take("sizes", lambda words: tuple(lines.number(word) for word in words.split(" ")))
    if sum(sizes) != len(rest):
        lines.refuse("cache: its windows have not the sizes that it states")
    pieces = []
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    links, *windows = pieces
    versions.look(links, kind="links")
    for window in windows:
        versions.look(window, kind="window")
    return Cache(
        windows=tuple(windows),
        links=links,
        confirmed_at=confirmed_at,
        spread=spread,
        stood_in=stood_in,
        sealed=sealed,
        heard=Heard(fleet_at, boot_ms, boot_id, moved),
    )


def _names(rest: str) -> tuple[bytes, ...]:
    return tuple(lines.key_name(word) for word in rest.split(" "))


#: The hint for a memory that is lost.
FORGOTTEN = "a new one is written; until then only beats tell old windows from new ones. did the disk fail?"


def try_recall(folder: Folder, name: str) -> tuple[Remembered, str | None]:
    """
    Recall, or begin anew and say why: a floor that cannot be read must not keep a node from its keys.

    Raises ConfigError for a floor that a newer keyrotd wrote: that one can be read, if not here.
    """
    try:
        return recall(folder, name), None
    except (CorruptWindow, OSError) as unreadable:
        refuse_downgrade(unreadable, name)
        return Remembered(), f"what was remembered in {name} cannot be read: {unreadable}"


def refuse_downgrade(unreadable: CorruptWindow | OSError, name: str) -> None:
    """Raise ConfigError where another version wrote file `name`: whoever cannot read it must not write over it."""
    if isinstance(unreadable, CorruptWindow) and unreadable.reason == "version":
        hint = "nothing was changed: start the version that wrote it, and go back as docs/upgrades.md says"
        raise ConfigError([(f"{name}: {unreadable}", hint)]) from unreadable
