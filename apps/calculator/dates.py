"""Dates: how far apart they are, what comes some months after one, and its day of the week.

What: the Gregorian calendar of the years 1 to 9999, by `datetime.date`.
Invariant: a date that can be read in two ways is refused, not guessed. Months and years are those of the calendar: a
    day that a month lacks becomes its last one, and the answer says so.
Interface: `read(text)`, `between(start, end)`, `later(day, amount, unit)`, `describe(day)`; CalculationError.
"""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta
from typing import Literal

from llmos.apps.calculator.arithmetic import CalculationError

TimeUnit = Literal["days", "weeks", "months", "years"]

_MONTHS = [name.lower() for name in calendar.month_name]
_MONTH = r"(?P<name>[a-z]{3,9})\.?"
_FORMS = [
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.\s?(?P<year>\d{4})",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?(?: of)? {_MONTH},? (?P<year>\d{{4}})",
        rf"{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
    )
]

_SUM = re.compile(r"\d\s*[+]\s*\d|\d\s+(?:days?|weeks?|months?|years?)\b")


def read(text: str) -> date:
    """A date as people write it: 2024-03-01, 1 March 2024, March 1, 2024."""
    plain = " ".join(text.split())
    found = next((match for form in _FORMS if (match := form.fullmatch(plain))), None)
    if found is None and _SUM.search(plain):
        raise CalculationError(
            f"{text[:40]!r} is a date and a time: calculator.add_to_date adds one to the other"
        )
    if found is None:
        raise CalculationError(f"{text[:40]!r} is not a date that has one meaning: write it as YYYY-MM-DD")
    parts = found.groupdict()
    month = _month(parts["name"]) if parts.get("name") else int(parts["month"])
    try:
        return date(int(parts["year"]), month, int(parts["day"]))
    except ValueError as error:
        raise CalculationError(f"there is no day {plain!r}: {error}") from None


def _month(name: str) -> int:
    found = [n for n, month in enumerate(_MONTHS) if n and month.startswith(name.lower())]
    if len(found) != 1:
        raise CalculationError(f"there is no month {name!r}")
    return found[0]


def between(start: date, end: date) -> str:
    """How many days lie between two dates; negative where the second is the earlier one."""
    days = (end - start).days
    first, second = sorted((start, end))
    months = (second.year - first.year) * 12 + second.month - first.month
    while _shifted(first, months)[0] > second:
        months -= 1
    rest = (second - _shifted(first, months)[0]).days
    ways = []
    if abs(days) >= 7:
        ways.append(_several([(abs(days) // 7, "week"), (abs(days) % 7, "day")]))
    if months:
        ways.append(_several([(months // 12, "year"), (months % 12, "month"), (rest, "day")]))
    said = _several([(abs(days), "day")])
    return f"{'-' if days < 0 else ''}{said}{' (' + ', or '.join(ways) + ')' if ways else ''}"


def _several(counts: list[tuple[int, str]]) -> str:
    told = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in counts if count]
    return " ".join(told) or f"0 {counts[-1][1]}s"


def later(day: date, amount: int, unit: TimeUnit) -> str:
    """The date some time after a day, before it where `amount` is negative."""
    try:
        if unit in ("days", "weeks"):
            return describe(day + timedelta(days=amount * (7 if unit == "weeks" else 1)))
        found, cut = _shifted(day, amount * (12 if unit == "years" else 1))
    except (OverflowError, ValueError):
        raise CalculationError("a date beyond the years 1 to 9999") from None
    return describe(found) + (f"; the month has no day {day.day}" if cut else "")


def _shifted(day: date, months: int) -> tuple[date, bool]:
    """The same day of another month, and whether that month is too short for it."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    if not 1 <= year <= 9999:
        raise ValueError(year)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)), day.day > last


def describe(day: date) -> str:
    """A date with its day of the week."""
    return f"{day.isoformat()} ({calendar.day_name[day.weekday()]})"


def calendar_of(day: date) -> str:
    """The day of the week of a date, its week and its place in the year."""
    year, week, _ = day.isocalendar()
    return (
        f"{calendar.day_name[day.weekday()]} (day {day.timetuple().tm_yday} of {day.year}, week {week} of {year}, "
        f"{'a leap year' if calendar.isleap(day.year) else 'not a leap year'})"
    )
