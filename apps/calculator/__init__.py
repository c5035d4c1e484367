"""The calculator: exact arithmetic with functions and units, dates, statistics, trends and equations.

What: integers, fractions and decimals are exact; roots, logarithms and angles are rounded from 60 digits, and the
    answer says so.
Invariant: text is parsed, never run. Every question ends, in bounded time and memory, in an answer or in a
    `CalculationError` that says what is wrong and where.
Interface: `Calculator`; for programs, `evaluate`, `dates`, `statistics` and `solve` beside it.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field

from llmos.abi.app import App, syscall
from llmos.apps.calculator import dates, statistics, trend
from llmos.apps.calculator.arithmetic import CalculationError, show
from llmos.apps.calculator.dates import TimeUnit
from llmos.apps.calculator.parser import evaluate, written
from llmos.apps.calculator.solve import solve

__all__ = ["CalculationError", "Calculator", "Point", "evaluate", "solve"]

_QUANTITY = re.compile(r"\s*[\d.,]+\s*°?\s*(?!(?:pi|e|tau)\b)[^\W\d]+\s*")  # a number of some unit, alone
Digits = Annotated[int, Field(ge=1, le=50), "of a rounded answer"]
Date = Annotated[str, "YYYY-MM-DD"]
Amount = Annotated[int, Field(ge=-4_000_000, le=4_000_000), "negative for before"]
Bound = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), "0 to 100"]
Numbers = Annotated[
    list[int | Bound], Field(min_length=1, max_length=statistics.MAX_NUMBERS), "such as [3, 4.5, 8]"
]


def _degrees(unit: str, other: str) -> str:
    """Degrees that become Celsius, or are made of it, are Fahrenheit, and the other way round."""
    if re.fullmatch(r"(?i)deg|degrees?|°", unit.strip()):
        for one, another in (("celsius", "Fahrenheit"), ("fahrenheit", "Celsius")):
            if one in other.lower():
                return another
    return unit


class Point(BaseModel):
    """A value at a date."""

    date: Date
    value: int | Bound


class Calculator(App, pure=True):
    """Exact arithmetic, functions and units, dates, statistics, equations."""

    @syscall(effect="none", retry="safe", deadline=5)
    def evaluate(
        self,
        expression: Annotated[
            str,
            "of numbers, + - * / ^ % !, functions (sqrt, ln, sin, round, mean, ...), pi, e and units, such as "
            '"2^64 + 1", "15% of 80", "sqrt(2)", "60 km/h to m/s"',
            Field(json_schema_extra={"pattern": written()}),
        ],
        digits: Digits = 15,
    ) -> str:
        """Calculate an expression."""
        if _QUANTITY.fullmatch(expression):
            raise CalculationError(
                f"{expression!r} is not calculated: say with what, or call calculator.convert with the unit to convert "
                "it to"
            )
        return evaluate(expression).show(digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def convert(
        self,
        amount: int | Bound,
        unit: Annotated[str, 'such as "miles"'],
        to: Annotated[str, 'the other unit, such as "km"'],
        digits: Digits = 15,
    ) -> str:
        """Convert an amount of one unit to another unit."""
        unit, to = _degrees(unit, to), _degrees(to, unit)
        return f"{amount} {unit} = {evaluate(f'{amount} {unit} to {to}').show(digits)}"

    @syscall(effect="none", retry="safe", deadline=5)
    def statistics(self, numbers: Numbers, digits: Digits = 15) -> dict[str, str]:
        """Mean, median, mode, sum and deviation of numbers."""
        return statistics.summary([statistics.exact(n) for n in numbers], digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def percentile(
        self,
        numbers: Numbers,
        percent: Percent,
        digits: Digits = 15,
    ) -> str:
        """Percentile of numbers."""
        given = [statistics.exact(n) for n in numbers]
        return show(statistics.percentile(given, statistics.exact(percent)), digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def days_between(self, start: Date, end: Date) -> str:
        """Days between two dates."""
        first, second = dates.read(start), dates.read(end)
        return f"{first} to {second} is {dates.between(first, second)}"

    @syscall(effect="none", retry="safe", deadline=5)
    def add_to_date(
        self,
        date: Date,
        amount: Amount,
        unit: TimeUnit,
    ) -> str:
        """The date some days, weeks, months or years after a date."""
        return dates.later(dates.read(date), amount, unit)

    @syscall(effect="none", retry="safe", deadline=5)
    def weekday(self, date: Date) -> str:
        """The day of the week of a date."""
        day = dates.read(date)
        return f"{day} is a {dates.calendar_of(day)}"

    @syscall(effect="none", retry="safe", deadline=5)
    def trend(
        self,
        points: Annotated[list[Point], Field(min_length=2, max_length=statistics.MAX_NUMBERS)],
        at: Annotated[list[Date], Field(min_length=1, max_length=100), "the dates to extrapolate to"],
        scale: Annotated[trend.Scale, "on which the trend is a straight line"],
        digits: Digits = 8,
    ) -> dict[str, str]:
        """Fit a trend line through values at dates and extrapolate it to other dates."""
        values = [statistics.exact(point.value) for point in points]
        line = trend.fit([dates.read(point.date) for point in points], values, scale)
        found = {str(day): f"{line.at(day):.{digits}g}" for day in map(dates.read, at)}
        return {**found, "growth": line.growth}

    @syscall(effect="none", retry="safe", deadline=20)
    def solve(
        self,
        equation: Annotated[str, 'such as "x^2 - 5x + 6 = 0" or "3x + 4 = 19"'],
        unknown: Annotated[str, "its name, where it is not clear"] = "",
        low: Annotated[Bound | None, "look from here on"] = None,
        high: Annotated[Bound | None, "look up to here"] = None,
        digits: Digits = 15,
    ) -> str:
        """Solve an equation."""
        return f"{equation}: {solve(equation, unknown, low, high, digits)}"
