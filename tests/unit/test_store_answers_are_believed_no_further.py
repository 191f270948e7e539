from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.store import answers, limits

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=300) | st.text(max_size=5)
REPLIES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.integers(), inner))
DECODERS: tuple[Callable[[object], object], ...] = (
    answers.desk,
    answers.look,
    answers.outcome,
    answers.offers,
    answers.reports,
    answers.count,
    answers.raw_names,
    answers.events,
    lambda reply: answers.poll(reply, report_fault=""),
)


@pytest.mark.parametrize("decode", DECODERS)
@given(reply=REPLIES | st.lists(SCALARS, min_size=10, max_size=10) | st.lists(SCALARS, min_size=4, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_reply_is_a_value_or_misshapen(decode: Callable[[object], object], reply: object) -> None:
    with suppress(answers.Misshapen):
        decode(reply)


@pytest.mark.parametrize(
    "reply",
    [
        [None, b"d1", b"x" * (limits.WINDOW_BYTES + 1), []],
        [b"x" * (limits.BEAT_BYTES + 1), b"", None, []],
        [None, b"x" * (limits.NAME_BYTES + 1), None, []],
        [None, b"\xff", None, []],
        [None, b"\n", None, []],
        [None, b"d1", None, [b"d"] * (limits.OFFERS + 1)],
        [None, b"d1", None, [b"d", 1]],
        [None, b"d1", None],
    ],
)
def test_a_poll_out_of_bounds_is_misshapen(reply: object) -> None:
    with pytest.raises(answers.Misshapen):
        answers.poll(reply, report_fault="")


def test_events_out_of_bounds_are_passed_over() -> None:
    assert answers.events([b"one", 2, b"", b"x" * (limits.EVENT_BYTES + 1), b"three"]) == (b"one", b"three")
