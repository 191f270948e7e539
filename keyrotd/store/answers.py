"""
Answers of a store, as values.

Whoever owns the store wrote them: each is checked for shape and size, and believed no further.
"""

from keyrotd.store import limits
from keyrotd.store.port import Desk, Fenced, Look, Moved, Published

_NUMBER_MOST = 2**63


class Misshapen(ValueError):  # noqa: N818 - a state of the store, not a bug of ours
    """The store answered what its scripts never do."""


def desk(answer: object) -> Desk:
    fence, leader, lease_ms, digest, window, beat, requests, offers, offer_count, report_count, store_at = _row(
        answer, 11
    )
    return Desk(
        fence=_number(fence) or None,
        leader=_text(leader),
        lease_ms=_number(lease_ms),
        digest=_text(digest),
        window=_maybe(window, limits.WINDOW_BYTES),
        beat=_maybe(beat, limits.BEAT_BYTES),
        requests=_pairs(requests, limits.REQUESTS, limits.REQUEST_BYTES),
        offers=_names(offers),
        offer_count=_number(offer_count),
        report_count=_number(report_count),
        store_at=_number(store_at),
    )


def look(answer: object) -> Look:
    digest, window, beat, leader, lease_ms, fence, report_count = _row(answer, 7)
    return Look(
        digest=_text(digest),
        window=_maybe(window, limits.WINDOW_BYTES),
        beat=_maybe(beat, limits.BEAT_BYTES),
        leader=_text(leader),
        lease_ms=_number(lease_ms),
        fence=_number(fence),
        report_count=_number(report_count),
    )


def peers(answer: object) -> bytes | None:
    """What is too long is absent: somebody else wrote it."""
    return answer if isinstance(answer, bytes) and 0 < len(answer) <= limits.PEERS_BYTES else None


def outcome(answer: object) -> Published | Fenced | Moved:
    match answer:
        case [b"published"]:
            return Published()
        case [b"fenced", newest]:
            return Fenced(_number(newest))
        case [b"moved", found]:
            return Moved(_text(found))
    raise Misshapen("no outcome of a publish")


def _pairs(answer: object, most: int, value_bytes: int) -> dict[str, bytes]:
    """Read a flat list of names and values."""
    if not isinstance(answer, list) or len(answer) % 2 or len(answer) > 2 * most:
        raise Misshapen("no list of pairs, or too long a one")
    return {_text(answer[at]): _bytes(answer[at + 1], value_bytes) for at in range(0, len(answer), 2)}


def reports(answer: object) -> dict[str, bytes]:
    return _pairs(answer, limits.REPORTS + limits.STRANGERS, limits.REPORT_BYTES)


def events(answer: object) -> tuple[bytes, ...]:
    if not isinstance(answer, list) or len(answer) > limits.HISTORY:
        raise Misshapen("no list of events, or too long a one")
    return tuple(event for event in answer if isinstance(event, bytes) and 0 < len(event) <= limits.EVENT_BYTES)


def _row(answer: object, columns: int) -> list[object]:
    if not isinstance(answer, list) or len(answer) != columns:
        raise Misshapen(f"no list of {columns}")
    return answer


def _bytes(value: object, most: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > most:
        raise Misshapen(f"no string of up to {most} bytes")
    return value


def _maybe(value: object, most: int) -> bytes | None:
    return None if value is None or value == b"" else _bytes(value, most)


def _text(value: object) -> str:
    text = _bytes(value, limits.NAME_BYTES).decode("latin-1")
    if not (text.isascii() and text.isprintable()):
        raise Misshapen("no name")
    return text


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > limits.OFFERS:
        raise Misshapen("no list of names, or too long a one")
    return tuple(sorted(map(_text, value)))


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _NUMBER_MOST:
        raise Misshapen("no number")
    return value
