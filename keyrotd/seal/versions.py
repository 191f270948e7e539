"""
Versions: what is written is in the oldest version that can say it; what is read is of the newest, or the one before.

So hosts may be upgraded in any order as long as nobody uses what only the new version can say (or, for a report, does
so: it is heard whatever its version). To say more: raise NEWEST, and keep to what every reader relies on, of versions
that it has never seen, too:

    the first line is `keyrotd KIND vN`, then come all lines of version N - 1 as they were, then those that N adds
    none of those it adds need be there: whoever writes no version 1 any more says in version 2 what 1 could have said
    signature and MAC stand where they stood, under the label that they had: so what is newer is proven first

A word that no line can add (a goal, a state) raises the version by itself, through `since`. See docs/upgrades.md.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from keyrotd.core.errors import CorruptWindow

#: Windows stand in the store, in caches and in offers; caches, links and memories are a daemon's own files.
NEWEST: Final[Mapping[str, int]] = MappingProxyType(
    {
        "window": 1,
        "beat": 1,
        "report": 2,
        "peers": 1,
        "request": 2,
        "event": 2,
        "cache": 1,
        "links": 1,
        "memory": 1,
        "resumed": 1,
    }
)

#: The longest first line that there is: a kind of seven letters, nine digits.
_FIRST_LINE_BYTES = 64


def oldest(kind: str) -> int:
    """The oldest version that is read, and so the oldest that may be written."""
    return max(1, NEWEST[kind] - 1)


def body(kind: str, *parts: Sequence[str], since: int = 1) -> str:
    """
    The lines of a `kind`: `parts` by the version that brought them, the first those of version 1.

    Its version is that of the last part which has a line, or `since` where one of its words is as young as that.
    """
    used = max((version for version, part in enumerate(parts, start=1) if part), default=1)
    rows = (row for part in parts for row in part)
    return f"keyrotd {kind} v{max(used, since, oldest(kind))}\n" + "".join(rows)


def version_of(data: bytes, *, kind: str) -> int:
    """What the first line says, whoever wrote it."""
    version = _claimed(data, kind)
    if version is None:
        raise CorruptWindow(f"{kind}: want `keyrotd {kind} v{NEWEST[kind]}` as the first line", reason="malformed")
    return version


def look(data: bytes, *, kind: str) -> None:
    """As `refuse_unread`, before anything else is looked at. What is no `kind` at all is for its reader to refuse."""
    version = _claimed(data, kind)
    if version is not None:
        refuse_unread(kind, version)


def refuse_unread(kind: str, version: int) -> None:
    """Raise CorruptWindow, reason `version`, for what is not read here. Nothing of it is guessed at."""
    reads = f"{oldest(kind)} to {NEWEST[kind]}" if oldest(kind) < NEWEST[kind] else f"{NEWEST[kind]}"
    found = f"version {version} of a {kind}; this one reads {reads}"
    if version > NEWEST[kind]:
        hint = "upgrade this one too, or undo what the newer one was told to use: docs/upgrades.md"
        raise CorruptWindow(f"{kind}: made by a newer keyrotd ({found})", reason="version", hint=hint)
    if version < oldest(kind):
        hint = "upgrade what made it, release by release: docs/upgrades.md"
        raise CorruptWindow(f"{kind}: made by an older keyrotd ({found})", reason="version", hint=hint)


def _claimed(data: bytes, kind: str) -> int | None:
    first = data[:_FIRST_LINE_BYTES].partition(b"\n")[0].decode("latin-1")
    found = re.fullmatch(rf"keyrotd {kind} v([1-9][0-9]{{0,8}})", first)
    return None if found is None else int(found[1])
