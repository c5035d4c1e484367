"""Dates in the form that a parameter asks for.

What: reads a date that can only be meant one way, and writes it as a description says: `MM-DD-YYYY`, `month.year`.
Invariant: what is ambiguous (03/04/2022), in that form already, or no date stays as it is.
Interface: `dated(value, description) -> str`; `days_of(value) -> list[date]`; `MONTHS`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_FIELD = "yyyy|mm|dd|year|month|day"
_FORM = re.compile(rf"\b({_FIELD})([-/.])({_FIELD})(?:\2({_FIELD}))?\b", re.IGNORECASE)
_SAME = {"year": "yyyy", "month": "mm", "day": "dd"}
_NAMED = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_READ = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})",
        r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})",
        rf"{_NAMED} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_NAMED},? (?P<year>\d{{4}})",
        rf"{_NAMED},? (?P<year>\d{{4}})",
    )
]
_EITHER = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")  # whichever of them is the month


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


def days_of(value: str) -> list[date]:
    """The days that `value` may name, if it says nothing else."""
    found = []
    if either := _EITHER.fullmatch(value.strip()):
        first, second, year = map(int, either.groups())
        for month, day in ((first, second), (second, first)):
            with suppress(ValueError):
                found.append(date(year, month, day))
    meant, has_day = _read(value) or (None, False)
    return [*found, meant] if meant is not None and has_day else found


def _read(value: str) -> tuple[date, bool] | None:
    """The date that `value` is, and whether it names the day; else the first of the month stands for it."""
    found = next((f for pattern in _READ if (f := pattern.fullmatch(value.strip()))), None)
    if found is None:
        return None
    parts = found.groupdict()
    month = parts["month"].lower()[:3]
    number = MONTHS.index(month) + 1 if month in MONTHS else int(month)
    try:
        return date(int(parts["year"]), number, int(parts.get("day", "1"))), "day" in parts
    except ValueError:
        return None
