"""
What a node reads, in plain commands: whoever may run a script may run one without end, and nobody else is served.

No answer is longer than what stands there, so that a node's user cannot make the store talk for ever either (HRANDFIELD
would). Names of any length may stand among the offers: they are asked for last and by themselves, when the offers take
no more memory than is fair, and no answer to that costs what was read before. Garbage is absent, as for the scripts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keyrotd.store import limits
from keyrotd.store.answers import Misshapen
from keyrotd.store.line import Words
from keyrotd.store.port import Poll
from keyrotd.store.redispy import ResponseError


@dataclass(frozen=True, slots=True)
class Glance:
    """All that a poll tells when nothing is new. `offered` counts the offers, 0 when they are too much to be read."""

    beat: bytes | None
    digest: str
    offered: int


def glance(window: str, beat: str, offers: str) -> tuple[Words, ...]:
    return (
        ("GETRANGE", beat, 0, limits.BEAT_BYTES),
        ("HGET", window, "digest"),
        ("HSTRLEN", window, "window"),
        ("HLEN", offers),
        ("MEMORY", "USAGE", offers, "SAMPLES", limits.OFFERS),
    )


def glanced(replies: Sequence[object]) -> Glance:
    """Raise Misshapen, or whatever refusal is among `replies`."""
    beat, digest, window_bytes, offered, held = (_unless_of_wrong_kind(reply) for reply in replies)
    whole = 0 < _count(window_bytes) <= limits.WINDOW_BYTES
    count = _count(offered)
    fair = count <= limits.OFFERS and _count(held) <= limits.OFFERS_HELD_BYTES
    return Glance(
        beat=_fitting(beat, limits.BEAT_BYTES),
        digest=_name(digest) if whole else "",
        offered=count if fair else 0,
    )


def closer(window: str) -> tuple[Words, ...]:
    """Return what to ask where a glance shows news: most times it does not."""
    return ("HGET", window, "digest"), ("HGET", window, "window")


def names(offers: str) -> Words:
    """Return what to ask last, where there are offers."""
    return ("HKEYS", offers)


def polled(seen: Glance, replies: Sequence[object], told: object, *, report_fault: str = "") -> Poll:
    """Raise as `glanced`. `replies` answer `closer`, and `told` answers `names`, None for no answer."""
    found = [_unless_of_wrong_kind(reply) for reply in replies]
    digest, window = seen.digest, None
    if found:
        digest, window = _name(found[0]), _fitting(found[1], limits.WINDOW_BYTES)
        digest = digest if window is not None else ""
    return Poll(
        beat=seen.beat,
        digest=digest,
        window=window,
        offers=_names(_unless_of_wrong_kind(told)) if seen.offered else (),
        offers_unread=seen.offered > 0 and told is None,
        report_fault=report_fault,
    )


def fair(digests: Sequence[str], sizes: Sequence[object]) -> list[str]:
    """Return which of the offers to read, by the sizes that they have: small ones first, large ones while they fit."""
    sized = sorted((_count(_unless_of_wrong_kind(size)), digest) for digest, size in zip(digests, sizes, strict=True))
    left, found = limits.OFFERS_BYTES, []
    for size, digest in sized:
        if 0 < size <= min(left, limits.WINDOW_BYTES):
            found.append(digest)
            left -= size
    return found


def offers(digests: Sequence[str], replies: Sequence[object]) -> dict[str, bytes]:
    found = (_fitting(_unless_of_wrong_kind(reply), limits.WINDOW_BYTES) for reply in replies)
    return {digest: window for digest, window in zip(digests, found, strict=True) if window is not None}


def _unless_of_wrong_kind(reply: object) -> object:
    if isinstance(reply, ResponseError):
        if not str(reply).startswith("WRONGTYPE"):
            raise reply
        return None
    return reply


def _count(reply: object) -> int:
    if reply is None:
        return 0
    if not isinstance(reply, int) or isinstance(reply, bool) or reply < 0:
        raise Misshapen("no count")
    return reply


def _fitting(reply: object, most: int) -> bytes | None:
    if reply is not None and not isinstance(reply, bytes):
        raise Misshapen("no string")
    return reply if reply and len(reply) <= most else None


def _name(reply: object) -> str:
    data = _fitting(reply, limits.NAME_BYTES)
    text = "" if data is None else data.decode("latin-1")
    return text if text.isascii() and text.isprintable() else ""


def _names(reply: object) -> tuple[str, ...]:
    if reply is None:
        return ()
    if not isinstance(reply, list):
        raise Misshapen("no list of names")
    # A set: an honest store names each field once.
    return tuple(sorted({_name(each) for each in reply} - {""}))[: limits.OFFERS]
