"""How a ring's window is put together again after the store lost, forked or forgot some: nothing that opens is lost."""

from dataclasses import replace

from keyrotd.core.decide import owes
from keyrotd.core.window import MAX_ANCESTORS, Key, Terms, Window, kept

#: A mend merges at most this many keys of other windows, those that open longest.
MAX_MERGED = 16


def mend(
    base: Window,
    others: tuple[Window, ...],
    *,
    epoch: int,
    fence: int,
    now_at: int,
    terms: Terms,
) -> Window:
    """
    Republish `base` as `epoch`: same current, same next; what the others still owe joins, open-only.

    No key opens longer than the window it comes from signed. All merged windows are ancestors, so their holders need
    not keep anything of their own.
    """
    merged = _merged(base, others, now_at)
    ancestors = (base.digest, *(other.digest for other in others), *base.ancestors)[:MAX_ANCESTORS]
    return replace(
        base,
        epoch=epoch,
        fence=fence,
        published_at=now_at,
        ancestors=ancestors,
        previous=kept((*base.previous, *merged), now_at, terms),
    )


def _merged(base: Window, others: tuple[Window, ...], now_at: int) -> tuple[Key, ...]:
    by_name: dict[bytes, Key] = {}
    for other in sorted(others, key=lambda window: window.rank):  # the newer window's word on a key stands
        by_name.update({key.name: key for key in owes(base, other, now_at)})
    lasting = sorted(by_name.values(), key=lambda key: key.opens_until, reverse=True)
    return tuple(lasting[:MAX_MERGED])
