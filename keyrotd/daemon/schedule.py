"""
Rotations by the calendar: five cron fields, always UTC. Cron's words become APScheduler's here.

APScheduler counts weekdays from Monday, cron from Sunday (0 and 7), so every field is expanded here and handed on as
plain lists. Where day of month and day of week are both given, cron takes either and APScheduler wants both: refused.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from keyrotd.core.errors import ConfigError

_DAY_MS: Final = 86_400_000
_MINUTE_MS: Final = 60_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_DAYS: Final = 366
#: A day that ever comes again comes within eight years: 29 February, where a century leaves one out.
_LONGEST_DAYS: Final = 8 * 366 + 1

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True)
class Cron:
    """
    Due whenever the minute fits `expression`. Build it with `cron`.

    The bounds are exact for every gap that touches the year after the instant that `cron` was given.
    """

    expression: str
    longest_ms: int
    shortest_ms: int

    def next_due(self, after_at: int) -> int:
        # APScheduler rounds up to the second and then takes that very second too.
        due = self._trigger.get_next_fire_time(None, _EPOCH + timedelta(milliseconds=after_at + 1))
        return (due - _EPOCH) // timedelta(milliseconds=1)  # type: ignore[no-any-return]  # it has no types

    @cached_property
    def _trigger(self) -> Any:  # noqa: ANN401 - APScheduler has no types
        from apscheduler.triggers.cron import CronTrigger

        fields = _parse(self.expression)
        return CronTrigger(
            month=_listed(fields.months),
            day=_listed(fields.days),
            day_of_week=_listed({(weekday - 1) % 7 for weekday in fields.weekdays}),
            hour=_listed(fields.hours),
            minute=_listed(fields.minutes),
            second="0",
            timezone=UTC,
        )


def cron(expression: str, *, now_at: int) -> Cron:
    """Read a cron expression. Raises ConfigError with one fault, in words for people."""
    fields = _parse(expression)
    within_day = [
        (60 * hour + minute) * _MINUTE_MS for hour in sorted(fields.hours) for minute in sorted(fields.minutes)
    ]
    overnight_ms = within_day[0] - within_day[-1]
    gaps_ms = [later - earlier for earlier, later in pairwise(within_day)]
    gaps_ms += [(later - earlier).days * _DAY_MS + overnight_ms for earlier, later in pairwise(_days(fields, now_at))]
    return Cron(expression, longest_ms=max(gaps_ms), shortest_ms=min(gaps_ms))


@dataclass(frozen=True, slots=True)
class _Fields:
    """What each field allows. `weekdays` count from Sunday, as 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]

    def fit(self, day: date) -> bool:
        return day.month in self.months and day.day in self.days and day.isoweekday() % 7 in self.weekdays


def _days(fields: _Fields, now_at: int) -> list[date]:
    """Every day of the coming year that fits, with the last before it and the first after it."""
    today = (_EPOCH + timedelta(milliseconds=now_at)).date()
    one = timedelta(days=1)
    before = next(day for day in (today - one * n for n in range(1, _LONGEST_DAYS)) if fields.fit(day))
    year = [day for day in (today + one * n for n in range(_YEAR_DAYS + 1)) if fields.fit(day)]
    later = (today + one * n for n in range(_YEAR_DAYS + 1, _YEAR_DAYS + 1 + _LONGEST_DAYS))
    return [before, *year, next(day for day in later if fields.fit(day))]


def _parse(expression: str) -> _Fields:
    words = expression.split()
    if len(words) != 5:  # noqa: PLR2004 - cron's five
        raise _fault(f"want 5 fields, found {len(words)}", 'minute hour day month weekday: "0 3 * * 1-5"')
    minute, hour, day, month, weekday = words
    fields = _Fields(
        minutes=_field("minute", minute, 0, 59),
        hours=_field("hour", hour, 0, 23),
        days=_field("day of month", day, 1, 31),
        months=_field("month", month, 1, 12, _MONTHS),
        weekdays=frozenset(number % 7 for number in _field("day of week", weekday, 0, 7, _WEEKDAYS)),
    )
    if day != "*" and weekday != "*":
        raise _fault(
            "day of month and day of week are both given, which cron reads as either and others as both",
            "leave one of the two at *",
        )
    if all(min(fields.days) > _MONTH_DAYS[month - 1] for month in fields.months):
        raise _fault("no such day ever comes", f"day {day} is in none of the months {month}")
    return fields


def _field(called: str, word: str, least: int, most: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    return frozenset(number for part in word.split(",") for number in _part(called, part.lower(), least, most, names))


def _part(called: str, part: str, least: int, most: int, names: tuple[str, ...]) -> range:
    span, slash, step = part.partition("/")
    first, dash, last = span.partition("-")
    if span == "*":
        # 7 is Sunday once more: `*/2` is 0, 2, 4, 6.
        low, high = least, 6 if names is _WEEKDAYS else most
    else:
        low = _number(called, first, least, most, names)
        high = _number(called, last, least, most, names) if dash else low
        if names is _WEEKDAYS and last == "sun" and low > 0:
            high = 7  # mon-sun
        if slash and not dash:
            raise _fault(f"{called}: {part!r} has a step but no range", f"write {first}-{most}/{step} or */{step}")
    if high < low:
        raise _fault(f"{called}: {part!r} runs backward", f"write two ranges: {first}-..., ...-{last}")
    if slash and not (_is_number(step) and 0 < int(step) <= most):
        raise _fault(f"{called}: {part!r} has a step that is not within 1 and {most}", None)
    return range(low, high + 1, int(step) if slash else 1)


def _number(called: str, word: str, least: int, most: int, names: tuple[str, ...]) -> int:
    if word in names:
        # Months count from 1, weekdays from 0.
        return names.index(word) + least
    if not _is_number(word) or not least <= int(word) <= most:
        known = f", or {names[0]} to {names[-1]}" if names else ""
        raise _fault(f"{called}: want {least} to {most}{known}, found {word!r}", "*, 1-5, 1,3 and */2 are read too")
    return int(word)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 2  # noqa: PLR2004 - 59


def _listed(numbers: frozenset[int] | set[int]) -> str:
    return ",".join(map(str, sorted(numbers)))


def _fault(words: str, hint: str | None) -> ConfigError:
    return ConfigError([(words, hint)])
