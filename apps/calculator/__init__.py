"""The calculator: exact arithmetic with functions and units, dates, statistics and equations.

What: integers, fractions and decimals are exact; roots, logarithms and angles are rounded from 60 digits, and the
    answer says so.
Invariant: text is parsed, never run. Every question ends, in bounded time and memory, in an answer or in a
    `CalculationError` that says what is wrong and where.
Interface: `Calculator`; for programs, `evaluate`, `dates`, `statistics` and `solve` beside it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmos.abi.app import App, syscall
from llmos.apps.calculator import dates, statistics
from llmos.apps.calculator.arithmetic import CalculationError, show
from llmos.apps.calculator.dates import TimeUnit
from llmos.apps.calculator.parser import evaluate
from llmos.apps.calculator.solve import solve

__all__ = ["CalculationError", "Calculator", "evaluate", "solve"]

Digits = Annotated[int, Field(ge=1, le=50), "of a rounded answer"]
Date = Annotated[str, "YYYY-MM-DD"]
Amount = Annotated[int, Field(ge=-4_000_000, le=4_000_000), "negative for before"]
Bound = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), "0 to 100"]
Numbers = Annotated[
    list[int | Bound], Field(min_length=1, max_length=statistics.MAX_NUMBERS), "such as [3, 4.5, 8]"
]


class Calculator(App, pure=True):
    """Exact arithmetic, functions and units, dates, statistics, equations."""

    @syscall(effect="none", retry="safe", deadline=5)
    def evaluate(
        self,
        expression: Annotated[str, 'such as "2^64 + 1", "15% of 80", "sqrt(2)", "3 ft + 2 in to cm"'],
        digits: Digits = 15,
    ) -> str:
        """Calculate an expression: + - * / ^ % ! and parentheses, functions (sqrt, ln, log, sin, round, gcd, ...),
        constants (pi, e) and units ("60 km/h to m/s")."""
        return evaluate(expression).show(digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def statistics(self, numbers: Numbers, digits: Digits = 15) -> dict[str, str]:
        """Sum, mean (average), median, mode, min, max, range, standard deviation and variance of a list of numbers."""
        return statistics.summary([statistics.exact(n) for n in numbers], digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def percentile(
        self,
        numbers: Numbers,
        percent: Percent,
        digits: Digits = 15,
    ) -> str:
        """The value that so many per cent of a list of numbers lie below (percentile, quartile)."""
        given = [statistics.exact(n) for n in numbers]
        return show(statistics.percentile(given, statistics.exact(percent)), digits)

    @syscall(effect="none", retry="safe", deadline=5)
    def days_between(self, start: Date, end: Date) -> str:
        """How many days lie between two dates, from the first to the second."""
        return dates.between(dates.read(start), dates.read(end))

    @syscall(effect="none", retry="safe", deadline=5)
    def add_to_date(
        self,
        date: Date,
        amount: Amount,
        unit: TimeUnit,
    ) -> str:
        """The date that comes some days, weeks, months or years after a date, or before it."""
        return dates.later(dates.read(date), amount, unit)

    @syscall(effect="none", retry="safe", deadline=5)
    def weekday(self, date: Date) -> str:
        """The day of the week of a date, with its week and its place in the year."""
        return dates.calendar_of(dates.read(date))

    @syscall(effect="none", retry="safe", deadline=10)
    def solve(
        self,
        equation: Annotated[str, 'such as "x^2 - 5x + 6 = 0" or "3x + 4 = 19"'],
        unknown: Annotated[str, "its name, where it is not clear"] = "",
        low: Annotated[Bound | None, "look from here on"] = None,
        high: Annotated[Bound | None, "look up to here"] = None,
        digits: Digits = 15,
    ) -> str:
        """Solve an equation with one unknown."""
        return solve(equation, unknown, low, high, digits)
