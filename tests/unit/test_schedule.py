"""Cron schedules mean what cron means, in UTC, and their bounds are those of every gap of the coming year."""

import calendar
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyrotd.core.errors import ConfigError
from keyrotd.daemon.schedule import Cron, cron

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_MS = 60_000
DAY_MS = 86_400_000
#: A Saturday.
NOW_AT = (datetime(2026, 11, 21, 3, 0, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
INSTANTS = st.integers(min_value=NOW_AT - 3 * 366 * DAY_MS, max_value=NOW_AT + 9 * 366 * DAY_MS)


def test_cron_counts_weekdays_from_sunday_and_knows_their_names() -> None:
    sunday, monday = {"2026-11-22"}, {"2026-11-23"}
    working_days = {f"2026-11-{day}" for day in (23, 24, 25, 26, 27)}

    assert days_due("0 3 * * 0") == days_due("0 3 * * 7") == days_due("0 3 * * sun") == sunday
    assert days_due("0 3 * * 1") == days_due("0 3 * * MON") == monday
    assert days_due("0 3 * * 1-5") == days_due("0 3 * * mon-fri") == working_days
    assert days_due("0 3 * * sun-sat") == days_due("0 3 * * 0-6") == days_due("0 3 * * 1-7") == days_due("0 3 * * *")
    assert days_due("0 3 * * mon-sun") == days_due("0 3 * * *")
    assert days_due("0 3 * * */2") == {"2026-11-22", "2026-11-24", "2026-11-26", "2026-11-28"}
    assert days_due("0 3 * * 6,0") == {"2026-11-22", "2026-11-28"}
    assert days_due("0 3 * * 5-7") == {"2026-11-22", "2026-11-27", "2026-11-28"}
    assert days_due("0 3 * * 0-0") == sunday


def test_the_gap_over_a_weekend_is_the_longest() -> None:
    assert bounds("0 3 * * 1-5") == (3 * DAY_MS, DAY_MS)
    assert bounds("0 */4 * * *") == (4 * 3_600_000, 4 * 3_600_000)
    assert bounds("* * * * *") == (MINUTE_MS, MINUTE_MS)
    assert bounds("0,20 3,15 * * *") == (int(11 * 3_600_000 + 40 * MINUTE_MS), 20 * MINUTE_MS)


def test_a_month_is_as_long_as_the_calendar_says() -> None:
    assert bounds("30 4 1 * *") == (31 * DAY_MS, 28 * DAY_MS)
    assert bounds("0 0 31 * *") == (61 * DAY_MS, 31 * DAY_MS)


def test_a_leap_day_is_four_years_away_or_eight() -> None:
    assert bounds("0 0 29 2 *") == (1461 * DAY_MS, 1461 * DAY_MS)
    assert cron("0 0 29 2 *", now_at=instant(2097, 1, 1)).longest_ms == 2921 * DAY_MS
    assert cron("0 0 29 2 *", now_at=NOW_AT).next_due(NOW_AT) == instant(2028, 2, 29)


def test_due_is_strictly_after_and_a_function_of_time_alone() -> None:
    schedule = cron("0 3 * * *", now_at=NOW_AT)

    assert schedule.next_due(NOW_AT) == NOW_AT + DAY_MS
    assert schedule.next_due(NOW_AT - 1) == NOW_AT
    assert schedule.next_due(NOW_AT + 1) == NOW_AT + DAY_MS
    assert schedule.next_due(NOW_AT) == NOW_AT + DAY_MS


@pytest.mark.parametrize("expression", ["* * * * *", "*/2 * * * 1-5", "59 23 31 12 *", "0 0 29 2 *"])
def test_bounds_are_found_at_once(expression: str) -> None:
    began = time.process_time()

    cron(expression, now_at=NOW_AT)

    assert time.process_time() - began < 0.05


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 3 * *", "want 5 fields, found 4"),
        ("@daily", "want 5 fields, found 1"),
        ("0 0 3 * * *", "want 5 fields, found 6"),
        ("60 3 * * *", "minute: want 0 to 59, found '60'"),
        ("0 24 * * *", "hour: want 0 to 23, found '24'"),
        ("0 3 0 * *", "day of month: want 1 to 31, found '0'"),
        ("0 3 * 13 *", "month: want 1 to 12, or jan to dec, found '13'"),
        ("0 3 * * 8", "day of week: want 0 to 7, or sun to sat, found '8'"),
        ("0 3 * * fry", "day of week: want 0 to 7, or sun to sat, found 'fry'"),
        ("0 3 L * *", "day of month: want 1 to 31, found 'l'"),
        ("0 3 ? * *", "day of month: want 1 to 31, found '?'"),
        ("5/10 3 * * *", "minute: '5/10' has a step but no range"),
        ("*/0 3 * * *", "minute: '*/0' has a step that is not within 1 and 59"),
        ("*/ 3 * * *", "minute: '*/' has a step that is not within 1 and 59"),
        ("0 5-3 * * *", "hour: '5-3' runs backward"),
        ("0 3 * * fri-mon", "day of week: 'fri-mon' runs backward"),
        ("0, 3 * * *", "minute: want 0 to 59, found ''"),
        ("-1 3 * * *", "minute: want 0 to 59, found ''"),
        ("0 0 30 2 *", "no such day ever comes"),
        ("0 0 31 4,jun * ", "no such day ever comes"),
        ("0 3 13 * 5", "day of month and day of week are both given, which cron reads as either and others as both"),
        ("0 3 */2 * 5", "day of month and day of week are both given, which cron reads as either and others as both"),
    ],
)
def test_what_is_no_schedule_is_refused_in_words(expression: str, fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        cron(expression, now_at=NOW_AT)

    assert [words for words, _ in refused.value.faults] == [fault]


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Cron expressions of one to a few dues per day, so that a year of them can be walked."""
    minute = draw(st.sampled_from(["0", "59", "0,30", "10-50/20", "7"]))
    hour = draw(st.sampled_from(["0", "23", "3", "*/6", "0,23", "9-17/4", "*"]))
    month = draw(st.sampled_from(["*", "*", "2", "2,4", "jan-mar", "*/5", "6-7", "dec"]))
    weekday = draw(
        st.sampled_from(["*", "*", "0", "7", "1-5", "sun-sat", "*/2", "1-7/3", "sat,sun", "5-7", "mon-sun/2"])
    )
    day = draw(st.sampled_from(["*", "1", "28-29", "29", "31,1", "*/10", "15-20/5"])) if weekday == "*" else "*"
    return f"{minute} {hour} {day} {month} {weekday}"


@settings(max_examples=60, deadline=None)
@given(expression=expressions(), after_at=INSTANTS)
def test_the_next_due_instant_is_that_of_walking_every_minute(expression: str, after_at: int) -> None:
    minutes, days = brute_fields(expression)
    day_at = after_at // DAY_MS * DAY_MS
    while not (days(day_at) and any(day_at + minute * MINUTE_MS > after_at for minute in minutes)):
        day_at += DAY_MS

    expected = next(day_at + minute * MINUTE_MS for minute in minutes if day_at + minute * MINUTE_MS > after_at)

    assert built(expression, after_at).next_due(after_at) == expected


@settings(max_examples=60, deadline=None)
@given(expression=expressions(), now_at=INSTANTS)
def test_bounds_are_those_of_walking_a_year(expression: str, now_at: int) -> None:
    minutes, days = brute_fields(expression)
    today_at = now_at // DAY_MS * DAY_MS
    window = range(today_at - 8 * 366 * DAY_MS, today_at + 10 * 366 * DAY_MS, DAY_MS)
    dues = [day_at + minute * MINUTE_MS for day_at in window if days(day_at) for minute in minutes]
    year_end_at = today_at + 367 * DAY_MS
    # Where a whole year has no due day, gaps within one are counted all the same: they come, if later.
    assume(any(today_at <= due_at < year_end_at for due_at in dues))
    # Each gap that touches the year, from the day of its beginning to the day of its end.
    gaps = [later - earlier for earlier, later in pairwise(dues) if later >= today_at and earlier < year_end_at]

    schedule = built(expression, now_at)

    assert (schedule.longest_ms, schedule.shortest_ms) == (max(gaps), min(gaps))


def brute_fields(expression: str) -> tuple[list[int], "Days"]:
    """Minutes of the day and the days that fit, by the dullest reading of cron(5) there is."""
    minute, hour, day, month, weekday = expression.split()
    minutes = [60 * h + m for h in range(24) for m in range(60) if fits(m, minute, 0) and fits(h, hour, 0)]
    return minutes, Days(day, month, weekday)


class Days:
    def __init__(self, day: str, month: str, weekday: str) -> None:
        self.day, self.month, self.weekday = day, month, weekday

    def __call__(self, day_at: int) -> bool:
        date = EPOCH + timedelta(milliseconds=day_at)
        sunday_first = (calendar.weekday(date.year, date.month, date.day) + 1) % 7
        weekdays = {sunday_first, sunday_first or 7}
        return (
            fits(date.day, self.day, 1)
            and fits(date.month, self.month, 1)
            and any(fits(number, self.weekday, 0) for number in weekdays)
        )


NUMBERS = {"jan": 1, "mar": 3, "dec": 12, "sun": 0, "mon": 1, "sat": 6}


def fits(number: int, field: str, least: int) -> bool:
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            low, high = least, 59
        else:
            first, _, last = span.partition("-")
            low = NUMBERS.get(first) if first in NUMBERS else int(first)  # type: ignore[assignment]  # checked by `in`
            high = NUMBERS.get(last or first) if (last or first) in NUMBERS else int(last or first)  # type: ignore[assignment]  # likewise
            high = 7 if last == "sun" else high
        # cron's own `*` of weekdays ends at Saturday: Sunday is 0 there and not 7 too.
        if (
            low <= number <= high
            and (number - low) % int(step or 1) == 0
            and not (span == "*" and step and number == 7)
        ):
            return True
    return False


def built(expression: str, now_at: int) -> Cron:
    return cron(expression, now_at=now_at)


def bounds(expression: str) -> tuple[int, int]:
    schedule = cron(expression, now_at=NOW_AT)
    return schedule.longest_ms, schedule.shortest_ms


def days_due(expression: str) -> set[str]:
    """The days of the week from Sunday, 22 November 2026, on which `expression` is due."""
    schedule, due, due_days = cron(expression, now_at=NOW_AT), NOW_AT, set()
    while (due := schedule.next_due(due)) < NOW_AT + 8 * DAY_MS - 3 * 3_600_000:
        due_days.add(f"{EPOCH + timedelta(milliseconds=due):%Y-%m-%d}")
    return due_days


def instant(year: int, month: int, day: int) -> int:
    return (datetime(year, month, day, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)
