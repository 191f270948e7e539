from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyrotd.store import answers, limits, plain
from keyrotd.store.redispy import ResponseError

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=300) | st.text(max_size=5)
REPLIES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.integers(), inner))
DECODERS: tuple[Callable[[object], object], ...] = (
    answers.desk,
    answers.look,
    answers.outcome,
    answers.reports,
    answers.events,
    lambda reply: plain.glanced([reply] * 5),
    lambda reply: plain.polled(plain.Glance(beat=None, digest="d1", offered=1), [reply] * 2, reply),
    lambda reply: plain.fair(["d1"], [reply]),
    lambda reply: plain.offers(["d1"], [reply]),
)


@pytest.mark.parametrize("decode", DECODERS)
@given(reply=REPLIES | st.lists(SCALARS, min_size=10, max_size=10) | st.lists(SCALARS, min_size=4, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_reply_is_a_value_or_misshapen(decode: Callable[[object], object], reply: object) -> None:
    with suppress(answers.Misshapen):
        decode(reply)


WRONG = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


@pytest.mark.parametrize(
    ("replies", "glance"),
    [
        ([b"beat", b"d1", 6, 2, 200], plain.Glance(b"beat", "d1", 2)),
        ([b"", None, 0, 0, None], plain.Glance(None, "", 0)),
        ([WRONG, WRONG, WRONG, WRONG, WRONG], plain.Glance(None, "", 0)),
        ([b"x" * (limits.BEAT_BYTES + 1), b"d1", limits.WINDOW_BYTES + 1, 0, None], plain.Glance(None, "", 0)),
        ([None, b"x" * (limits.NAME_BYTES + 1), 6, limits.OFFERS + 1, 900], plain.Glance(None, "", 0)),
        ([None, None, 6, 1, limits.OFFERS_HELD_BYTES + 1], plain.Glance(None, "", 0)),
        ([None, b"d\xff", 6, 0, None], plain.Glance(None, "", 0)),
        ([None, b"d\n", 6, limits.OFFERS, limits.OFFERS_HELD_BYTES], plain.Glance(None, "", limits.OFFERS)),
    ],
)
def test_a_glance_passes_over_what_is_out_of_bounds(replies: list[object], glance: plain.Glance) -> None:
    assert plain.glanced(replies) == glance


@pytest.mark.parametrize(
    ("replies", "poll"),
    [
        ([b"d2", b"two", [b"d9", b"d8"]], ("d2", b"two", ("d8", "d9"))),
        ([None, None, []], ("", None, ())),
        ([b"d2", b"x" * (limits.WINDOW_BYTES + 1), None], ("", None, ())),
        ([WRONG, WRONG, WRONG], ("", None, ())),
        ([b"", b"two", [b"d\xff", b"x" * (limits.NAME_BYTES + 1), b"d8"]], ("", b"two", ("d8",))),
    ],
)
def test_a_poll_passes_over_what_changed_meanwhile(replies: list[object], poll: tuple[object, ...]) -> None:
    found = plain.polled(plain.Glance(b"beat", "d1", 1), replies[:2], replies[2])

    assert (found.digest, found.window, found.offers) == poll


@pytest.mark.parametrize("refusal", [ResponseError("NOPERM no"), ResponseError("MOVED 1 a:1")])
def test_a_refusal_is_raised(refusal: ResponseError) -> None:
    with pytest.raises(ResponseError):
        plain.glanced([None, None, None, 0, refusal])


def test_events_out_of_bounds_are_passed_over() -> None:
    assert answers.events([b"one", 2, b"", b"x" * (limits.EVENT_BYTES + 1), b"three"]) == (b"one", b"three")
