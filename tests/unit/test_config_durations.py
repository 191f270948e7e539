"""A duration is written in one way, or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrotd import durations
from keyrotd.core.policy import words


@given(st.integers(min_value=1, max_value=durations.LONGEST_MS))
def test_what_is_written_is_read_back(duration_ms: int) -> None:
    assert durations.parse(words(duration_ms)) == duration_ms


@pytest.mark.parametrize(
    ("text", "duration_ms"),
    [("500ms", 500), ("1s", 1000), ("90m", 5_400_000), ("1h30m", 5_400_000), ("1d1ms", 86_400_001), ("007s", 7000)],
)
def test_units_join_from_large_to_small(text: str, duration_ms: int) -> None:
    assert durations.parse(text) == duration_ms


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "5 s", "5S", "-5s", "+5s", "1.5h", "30m1h", "1h1h", "1ms1s", "5s ", "5sec", "\u0665s", "1w", "5s\n"],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="want a duration such as 500ms, 5s or 1h30m"):
        durations.parse(text)


@pytest.mark.parametrize("text", ["0s", "0h0m", "1001d", "99999999999d"])
def test_nothing_and_ages_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="between 1ms and 1000d"):
        durations.parse(text)
