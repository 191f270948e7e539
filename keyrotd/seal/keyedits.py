"""
Edits of a key file's text: a key added, put first, taken out. All that a person wrote there stays where it is.

A key's line may have a mark right above it, `# made 2026-11-21T06:30:00.000Z`. The mark moves and goes with its key;
it says which of several keys is the newest, and how old a KEK is.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from keyrotd.seal.keyfiles import AnyKey, K, key_line, parse


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a file. `made_at` None: no mark says it."""

    id: str
    made_at: int | None


def entries(content: str, kind: type[K], where: str) -> tuple[Entry, ...]:
    """The keys of a file in its order. Raises ConfigError as `parse` does."""
    keys = parse(content, kind, where)
    return tuple(Entry(key.id, span.made_at) for key, span in zip(keys, _spans(content.split("\n")), strict=True))


def newest(found: tuple[Entry, ...]) -> Entry | None:
    """The key made last, of several the lowest in the file; None if there are several and no mark tells."""
    if len(found) == 1:
        return found[0]
    dated = [(entry.made_at, at, entry) for at, entry in enumerate(found) if entry.made_at is not None]
    return max(dated, key=lambda item: item[:2])[2] if dated else None


def added(content: str, key: AnyKey, made_at: int) -> str:
    """`content` with one more key as its last line, which seals and signs nothing yet."""
    return content + ("" if content.endswith("\n") else "\n") + f"{_mark(made_at)}\n{key_line(key)}"


def put_first(content: str, kind: type[K], key_id: str, where: str) -> str:
    """`content` with that key in front of the others, where the first one stood."""
    rows = content.split("\n")
    spans = dict(zip((key.id for key in parse(content, kind, where)), _spans(rows), strict=True))
    first, moved = next(iter(spans.values())), spans[key_id]
    taken = rows[moved.begin : moved.end]
    left = rows[: moved.begin] + rows[moved.end :]
    return "\n".join((*left[: first.begin], *taken, *left[first.begin :]))


def without(content: str, kind: type[K], key_ids: Collection[str], where: str) -> str:
    """`content` without those keys; one at least must be left."""
    rows = content.split("\n")
    for key, span in reversed(list(zip(parse(content, kind, where), _spans(rows), strict=True))):
        if key.id in key_ids:
            del rows[span.begin : span.end]
    left = "\n".join(rows)
    parse(left, kind, where)
    return left


def dated(content: str, made_at: int) -> str:
    """`content` with a mark for every key that has none."""
    rows = content.split("\n")
    for span in reversed(list(_spans(rows))):
        if span.made_at is None:
            rows.insert(span.begin, _mark(made_at))
    return "\n".join(rows)


@dataclass(frozen=True, slots=True)
class _Span:
    """The lines of one key: its own, and the mark above it."""

    begin: int
    end: int
    made_at: int | None


def _spans(rows: list[str]) -> Iterator[_Span]:
    for at, row in enumerate(rows):
        if row.strip() and not row.lstrip().startswith("#"):
            made_at = _marked(rows[at - 1]) if at else None
            yield _Span(at if made_at is None else at - 1, at + 1, made_at)


_MARK = re.compile(r"# made (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z\s*")


def _mark(made_at: int) -> str:
    instant = datetime.fromtimestamp(made_at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"# made {instant}.{made_at % 1000:03}Z"


def _marked(row: str) -> int | None:
    found = _MARK.fullmatch(row)
    if found is None:
        return None
    try:
        instant = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:
        return None  # a person's comment that looks like a mark
    whole = instant.replace(microsecond=0)
    return int(whole.timestamp()) * 1000 + instant.microsecond // 1000
