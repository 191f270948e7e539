"""Hints only ever shorten a wait, by bounds of our own, whatever is said and however often a store is lost."""

import time

import pytest

from keyrotd.store.ear import FOR_SCHEDULERS, Ear


def ear(*, schedules: bool = False, chance: float = 1.0) -> Ear:
    return Ear("wake", schedules=schedules, changed=lambda: None, rand=lambda: chance)


@pytest.mark.parametrize(
    ("payload", "spread_s"),
    [(b"", 0.0), (b"500", 0.5), (b"9999", 1.0), (b"999999", 0.0), (b"-1", 0.0), (b"\xb2", 0.0), (7, 0.0), (None, 0.0)],
)
def test_a_hint_asks_for_a_second_of_patience_at_most(payload: object, spread_s: float) -> None:
    heard, before_s = ear(), time.monotonic()

    heard.hear([b"message", b"wake", payload])

    assert heard.hint_s is not None
    assert before_s + spread_s <= heard.hint_s <= time.monotonic() + spread_s


@pytest.mark.parametrize("said", [[], [b"message"], [b"subscribe", b"wake", 1], [None], None, 3, b"message", [[]]])
def test_what_is_no_message_is_no_hint(said: object) -> None:
    heard = ear()

    assert heard.hear(said) is said
    assert heard.hint_s is None


def test_requests_are_said_to_schedulers() -> None:
    node, scheduler = ear(), ear(schedules=True)

    for each in (node, scheduler):
        each.hear([b"message", b"wake", FOR_SCHEDULERS])

    assert (node.take_hint(), scheduler.take_hint(), scheduler.take_hint()) == (False, True, False)


def forget(heard: Ear) -> None:
    heard.hint_s = None


def test_a_store_that_stays_away_is_looked_for_less_and_less() -> None:
    heard = ear()

    for pause_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
        forget(heard)
        before_s = time.monotonic()
        heard.lose("gone")
        assert heard.hint_s is not None
        assert before_s + pause_s <= heard.hint_s <= time.monotonic() + pause_s

    assert (heard.fault, heard.due) == ("gone", False)


def test_who_may_not_listen_is_not_sent_to_look() -> None:
    heard = ear()

    heard.refuse("may not")

    assert (heard.take_hint(), heard.due, heard.fault) == (False, False, "may not")
