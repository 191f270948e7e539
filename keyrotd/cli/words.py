"""How people are told of instants, durations, keys and rows. Nothing here prints or reads a clock."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

#: Instants beyond it (the year 9999) are nobody's: shown as the number that they are.
_LAST_AT = 253_402_300_799_999

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))


def iso(at: int) -> str:
    """`at` in UTC, to the second; milliseconds are for --json."""
    return datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at <= _LAST_AT else str(at)


def span(duration_ms: int) -> str:
    """The two largest units of a duration: 3h58m, 2d4h, 12s; below ten seconds tenths, below one milliseconds."""
    if duration_ms < 1000:  # noqa: PLR2004 - a second
        return f"{duration_ms}ms"
    if duration_ms < 10_000:  # noqa: PLR2004 - ten
        return f"{duration_ms // 100 / 10:g}s"
    parts: list[str] = []
    for unit, size_ms in _UNITS:
        count, duration_ms = divmod(duration_ms, size_ms)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2])


def relative(at: int, now_at: int) -> str:
    if abs(at - now_at) < 1000:  # noqa: PLR2004 - a second
        return "just now"
    return f"{span(now_at - at)} ago" if at <= now_at else f"in {span(at - now_at)}"


def instant(at: int, now_at: int) -> str:
    """2027-03-01T16:00:00Z (in 3h58m)."""
    return f"{iso(at)} ({relative(at, now_at)})"


def short(name: bytes | str) -> str:
    """The first eight hex digits of a key's name, a digest or an id: enough to tell two apart in a log."""
    return (name.hex() if isinstance(name, bytes) else name)[:8]


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def table(rows: Iterable[Sequence[str]], *, indent: str = "") -> Iterator[str]:
    """Rows in columns as wide as their widest cell."""
    kept = list(rows)
    widths = [max(map(len, column)) for column in zip(*kept, strict=True)]
    for row in kept:
        yield (indent + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()


def sheet(pairs: Iterable[tuple[str, str]], *, width: int = 13) -> Iterator[str]:
    """Facts by name, one a line."""
    return (f"{name:<{width}}{fact}".rstrip() for name, fact in pairs)
