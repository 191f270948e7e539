"""
HAProxy's ring of keys, pure: [previous ..., current, next], where the last but one seals.

Pushing a key drops the oldest and makes the former last one seal: [p, c*, n] + x = [c, n*, x]. So one push is one
rotation, and any other change passes through whatever order the pushes make.
"""

from collections.abc import Sequence
from typing import TypeVar

from keyrotd.core.keys import Keys
from keyrotd.core.stek import Stek

#: HAProxy as everybody builds it; TLS_TICKETS_NO at compile time.
USUAL_SLOTS = 3
#: More than anybody builds; whoever shows more is no HAProxy.
MAX_SLOTS = 64

Item = TypeVar("Item")


def ring(keys: Keys, slots: int) -> tuple[Stek, ...]:
    """What a ring of `slots` is to hold, oldest first; the oldest repeated where there are too few."""
    fitting = keys.fit(slots)
    ordered = (*reversed(fitting.previous), fitting.current, fitting.next)
    # At the front, and the oldest: then the next rotation is one push, like every other.
    return (ordered[0],) * (slots - len(ordered)) + ordered


def tail(held: Sequence[Item], wanted: Sequence[Item]) -> tuple[Item, ...]:
    """The least pushes that turn `held` into `wanted` (of equal length): none, one for a rotation, at most all."""
    assert len(held) == len(wanted)
    size = len(wanted)
    pushes = next(k for k in range(size + 1) if tuple(held[k:]) == tuple(wanted[: size - k]))
    return tuple(wanted[size - pushes :])
