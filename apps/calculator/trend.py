"""Trends: the line that fits values at dates best, and where it comes to on other days.

What: least squares, of the values themselves or, on a logarithmic scale, of their logarithms: steady growth by so much,
    or by so many per cent, a year.
Invariant: calculated with 60 digits, so what is shown is right to its last digit. Days count, not months or years.
Interface: `fit(days, values, scale) -> Trend`: `.at(day)`, `.growth`; CalculationError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal, DecimalException, localcontext
from fractions import Fraction
from typing import Literal

from llmos.apps.calculator.arithmetic import CalculationError

Scale = Literal["linear", "logarithmic"]

_PRECISION = Context(prec=60)
_YEAR = Decimal("365.25")


@dataclass(frozen=True, slots=True)
class Trend:
    """A line over days: `middle` is its height on the day `origin` (an ordinal), `slope` what it rises a day; both are
    of logarithms where the scale is logarithmic."""

    scale: Scale
    origin: Decimal
    middle: Decimal
    slope: Decimal

    def at(self, day: date) -> Decimal:
        """The value that the line has on that day."""
        with localcontext(_PRECISION):
            return self._value(self.middle + self.slope * (day.toordinal() - self.origin))

    @property
    def growth(self) -> str:
        """What it rises in a year, in words."""
        with localcontext(_PRECISION):
            risen = self.slope * _YEAR
            if self.scale == "linear":
                return f"{risen:.6g} a year"
            return f"{(self._value(risen) - 1) * 100:.6g} % a year"

    def _value(self, height: Decimal) -> Decimal:
        try:
            return height.exp() if self.scale == "logarithmic" else height
        except DecimalException:
            raise CalculationError("the trend leaves all numbers that can be written") from None


def fit(days: Sequence[date], values: Sequence[Fraction], scale: Scale) -> Trend:
    """The best line through these values, one a day of `days`."""
    if len(days) != len(values):
        raise CalculationError(f"{len(days)} dates and {len(values)} values: give a value for each date")
    if len(set(days)) < 2:
        raise CalculationError("a trend needs values at two different dates or more")
    if scale == "logarithmic" and (low := min(values)) <= 0:
        raise CalculationError(f"{float(low):g} has no logarithm: on that scale all values are above 0")
    with localcontext(_PRECISION):
        heights = [Decimal(v.numerator) / v.denominator for v in values]
        if scale == "logarithmic":
            heights = [height.ln() for height in heights]
        ordinals = [Decimal(day.toordinal()) for day in days]
        origin, middle = _mean(ordinals), _mean(heights)
        off = [ordinal - origin for ordinal in ordinals]
        products = [o * (h - middle) for o, h in zip(off, heights, strict=True)]
        return Trend(scale, origin, middle, _mean(products) / _mean([o * o for o in off]))


def _mean(numbers: Sequence[Decimal]) -> Decimal:
    return sum(numbers, Decimal(0)) / len(numbers)
