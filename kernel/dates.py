"""Dates in the form that a parameter asks for.

What: reads a date that can only be meant one way, and writes it as a description says: `MM-DD-YYYY`, `month.year`.
Invariant: what is ambiguous (03/04/2022), in that form already, or no date stays as it is.
Interface: `dated(value, description) -> str`; `named(value, numbers, words) -> bool`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from datetime import date

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_FIELD = "yyyy|mm|dd|year|month|day"
_FORM = re.compile(rf"\b({_FIELD})([-/.])({_FIELD})(?:\2({_FIELD}))?\b", re.IGNORECASE)
_SAME = {"year": "yyyy", "month": "mm", "day": "dd"}
_NAMED = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_READ = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})",
        r"(?P<month>\d{1,2})[-/.](?P<year>\d{4})",
        rf"{_NAMED} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_NAMED},? (?P<year>\d{{4}})",
        rf"{_NAMED},? (?P<year>\d{{4}})",
    )
]
_EITHER = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")  # whichever of them is the month
_CLOCK = r"(\d{1,2}):\d{2}(?::\d{2})?(?: ?[ap]\.?m\.?|Z)?"
_TIME, _TIME_BEHIND = re.compile(_CLOCK, re.IGNORECASE), re.compile(rf"(?:T| ){_CLOCK}$", re.IGNORECASE)
_COUNTED = frozenset(  # words that count from a day
    "today tonight tomorrow yesterday next upcoming coming weekend monday tuesday wednesday thursday friday saturday "
    "sunday".split()
)


def dated(value: str, description: str) -> str:
    """`value`, if it is a date, in the form that `description` names; else as it is."""
    form, read = _FORM.search(description), _read(value)
    if form is None or read is None:
        return value
    meant, has_day = read
    named = [field.lower() for field in form.group(1, 3, 4) if field]
    fields = [_SAME.get(field, field) for field in named]
    if "dd" in fields and not has_day:
        return value
    written = {"yyyy": f"{meant.year:04}", "mm": f"{meant.month:02}", "dd": f"{meant.day:02}"}
    return form[2].join(written[field] for field in fields)


def named(value: str, numbers: Collection[float], words: Collection[str]) -> bool:
    """Whether `value` is a day, a month or a time of day that somebody named by these numbers and words (in small
    letters); or a day, where they counted from one that they named ("next Friday, today is the 3rd of May 2026")."""
    if time := _TIME.fullmatch(value.strip()):
        return bool({int(time[1]), int(time[1]) % 12} & set(numbers))
    found = _dates(_TIME_BEHIND.sub("", value.strip()))
    beginnings = {word[:3] for word in words}

    def said(meant: date, has_day: bool) -> bool:
        month = meant.month in numbers or _MONTHS[meant.month - 1] in beginnings
        first = meant.day == 1 and meant.year in numbers  # of a month, if nothing else was said
        return month and (meant.day in numbers if has_day and not first else meant.year in numbers)

    counted = bool(_COUNTED & set(words)) and any(1900 <= number <= 2100 for number in numbers)
    return any(said(*one) or (counted and one[1]) for one in found)


def _dates(value: str) -> list[tuple[date, bool]]:
    """The dates that `value` may be, and whether each names the day."""
    found = []
    if either := _EITHER.fullmatch(value):
        first, second, year = map(int, either.groups())
        for month, day in ((first, second), (second, first)):
            with suppress(ValueError):
                found.append((date(year, month, day), True))
    read = _read(value)
    return found if read is None else [*found, read]


def _read(value: str) -> tuple[date, bool] | None:
    """The date that `value` is, and whether it names the day; else the first of the month stands for it."""
    found = next((f for pattern in _READ if (f := pattern.fullmatch(value.strip()))), None)
    if found is None:
        return None
    parts = found.groupdict()
    month = parts["month"].lower()[:3]
    number = _MONTHS.index(month) + 1 if month in _MONTHS else int(month)
    try:
        return date(int(parts["year"]), number, int(parts.get("day", "1"))), "day" in parts
    except ValueError:
        return None
