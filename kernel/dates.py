"""Dates in the form that a parameter asks for.

What: reads a date that can only be meant one way, and writes it as a description says: `MM-DD-YYYY`, `month.year`.
Invariant: what is ambiguous (03/04/2022), in that form already, or no date stays as it is.
Interface: `dated(value, description) -> str`.
"""

from __future__ import annotations

import re
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
        rf"{_NAMED} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?{_NAMED},? (?P<year>\d{{4}})",
        rf"{_NAMED},? (?P<year>\d{{4}})",
    )
]


def dated(value: str, description: str) -> str:
    """`value`, if it is a date, in the form that `description` names; else as it is."""
    form = _FORM.search(description)
    found = next((f for pattern in _READ if (f := pattern.fullmatch(value.strip()))), None)
    if form is None or found is None:
        return value
    parts = found.groupdict(default="1")
    month = parts["month"].lower()[:3]
    number = _MONTHS.index(month) + 1 if month in _MONTHS else int(month)
    try:
        meant = date(int(parts["year"]), number, int(parts.get("day", "1")))
    except ValueError:
        return value
    named = [field.lower() for field in form.group(1, 3, 4) if field]
    fields = [_SAME.get(field, field) for field in named]
    if "dd" in fields and "day" not in found.groupdict():
        return value
    written = {"yyyy": f"{meant.year:04}", "mm": f"{meant.month:02}", "dd": f"{meant.day:02}"}
    return form[2].join(written[field] for field in fields)
