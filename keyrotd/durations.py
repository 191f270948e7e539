"""Durations as people write them: 500ms, 5s, 1h30m. `keyrotd.core.policy.words` writes them back."""

import re
from typing import Final

#: Longer than any duration that makes sense here, and short enough to add up without thought.
LONGEST_MS: Final = 1000 * 86_400_000

_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SHAPE = re.compile("".join(f"(?:([0-9]{{1,11}}){unit})?" for unit in _UNITS_MS))


def parse(text: str) -> int:
    """
    Return milliseconds of `<integer><ms|s|m|h|d>`, joined from the largest unit to the smallest, each at most once.

    Raises ValueError, in words for people.
    """
    found = _SHAPE.fullmatch(text)
    if found is None or not text:
        raise ValueError(f"want a duration such as 500ms, 5s or 1h30m, found {text!r}")
    duration_ms = sum(
        int(count or 0) * unit_ms for count, unit_ms in zip(found.groups(), _UNITS_MS.values(), strict=True)
    )
    if not 0 < duration_ms <= LONGEST_MS:
        raise ValueError(f"want a duration between 1ms and 1000d, found {text!r}")
    return duration_ms
