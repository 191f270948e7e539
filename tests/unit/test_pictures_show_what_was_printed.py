"""The pictures of the README are drawn from a command's own words, and nothing of those is lost but the day."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.pictures.svg import dateless, drawn

DOCS = Path(__file__).parents[2] / "docs"


def lines(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_line_is_there_and_no_word_becomes_markup() -> None:
    svg = drawn('keyrotd probe "a&b"', 'one <script> & "two"\n\n  three\n')

    assert lines(svg) == ['$ keyrotd probe "a&b"', 'one <script> & "two"', "", "  three"]


def test_days_go_and_columns_stay() -> None:
    assert dateless("until 2027-03-01T16:00:00Z (in 3h)  next\nend 2027-03-01T16:00:00Z") == (
        "until 16:00:00Z (in 3h)             next\nend 16:00:00Z"
    )


@pytest.mark.parametrize(("name", "says"), [("status", "ring demo"), ("demo", "orphan tickets: 0")])
def test_the_pictures_that_are_kept_are_of_runs_that_went_well(name: str, says: str) -> None:
    shown = lines((DOCS / f"{name}.svg").read_text())

    assert shown[0] == f"$ keyrotd {name}"
    assert any(line.startswith(says) for line in shown)
