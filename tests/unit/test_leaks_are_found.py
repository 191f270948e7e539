"""The search for secrets is itself held to finding them."""

import base64
import json
import os
import random

import pytest

from tests.leaks import Leaks, forms

SECRET = bytes(random.Random(1).randbytes(32))
STRANGER = bytes(random.Random(2).randbytes(32))


@pytest.mark.parametrize(
    ("form", "written"), [pair for half in (SECRET[:16], SECRET[16:]) for pair in forms(half)], ids=lambda _: ""
)
def test_half_a_secret_is_found_in_every_form_wherever_it_stands(form: str, written: bytes) -> None:
    found = Leaks({"the key": SECRET}).within(os.urandom(1000) + written + os.urandom(1000))

    assert f"the key as {form}" in found


@pytest.mark.parametrize("offset", range(7))
def test_a_key_in_the_middle_of_a_longer_base64_is_found(offset: int) -> None:
    blob = os.urandom(offset) + SECRET + os.urandom(9)

    assert Leaks({"the key": SECRET}).within(b"x:" + base64.b64encode(blob))
    assert Leaks({"the key": SECRET}).within(b"x:" + base64.urlsafe_b64encode(blob))


def test_a_key_in_somebody_elses_words_is_found() -> None:
    texts = [
        f"ValueError: bad key {SECRET!r}",
        f"{{'seed': {list(SECRET)}}}",
        json.dumps({"seed": SECRET.decode("latin-1")}),
        json.dumps({"seed": repr(SECRET)}),
        json.dumps({"key": f"Stek(seed={SECRET!r}, ring='edge')"}),
        f"seed={SECRET.hex(' ')}",
        SECRET.decode("latin-1"),
    ]

    assert [text for text in texts if not Leaks({"the key": SECRET}).within(text.encode())] == []


def test_what_is_not_the_secret_is_not_found() -> None:
    text = b"".join(written for _, written in forms(STRANGER[:16]))

    assert Leaks({"the key": SECRET}).within(text) == set()
    assert Leaks({"the key": SECRET}).within(SECRET[1:15]) == set()


def test_the_places_that_leak_are_named() -> None:
    places = [("a log", b"all is well"), ("a page", b"key " + SECRET.hex().encode()), ("nothing", b"")]

    assert list(Leaks({"the key": SECRET}).among(places)) == ["a page"]
