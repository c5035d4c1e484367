"""Statistics of a list of numbers, exactly.

What: sum, mean, median, modes, variance, deviation and percentiles of numbers that may be exact.
Invariant: what is rational stays exact: only a deviation may be rounded, where its root is not rational.
Interface: `summary(numbers)`, `percentile(numbers, percent)`, and each measure by its name; `exact(value)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from functools import reduce

from llmos.apps.calculator.arithmetic import (
    CalculationError,
    Number,
    add,
    apply,
    checked,
    divide,
    multiply,
    negative,
    power,
    show,
)

MAX_NUMBERS = 1_000  # of one list
MAX_MODES = 10  # values that may be called the most frequent ones

_HALF = Fraction(1, 2)


def exact(value: float) -> Fraction:
    """The number that was written: 0.1 is a tenth, not its nearest binary fraction."""
    number = Fraction(value) if isinstance(value, int) else Fraction(Decimal(repr(value)))
    checked(number)
    return number


def total(numbers: Sequence[Number]) -> Number:
    """The sum."""
    zero: Number = Fraction(0)
    return reduce(add, numbers, zero)


def mean(numbers: Sequence[Number]) -> Number:
    """The sum over the count."""
    return divide(total(numbers), Fraction(len(numbers)))


def median(numbers: Sequence[Number]) -> Number:
    """The middle one, or the mean of the two in the middle."""
    return percentile(numbers, Fraction(50))


def percentile(numbers: Sequence[Number], percent: Number) -> Number:
    """The value that `percent` per cent lie below; between two neighbours it is taken in proportion."""
    if not 0 <= percent <= 100:
        raise CalculationError(f"a percentile of {show(percent)}: give 0 to 100")
    ordered = sorted(numbers)
    place = multiply(divide(percent, Fraction(100)), Fraction(len(ordered) - 1))
    below = int(place)
    if below + 1 == len(ordered):
        return ordered[below]
    share = add(place, Fraction(-below))
    return add(ordered[below], multiply(share, add(ordered[below + 1], negative(ordered[below]))))


def modes(numbers: Sequence[Number]) -> list[Number]:
    """The values that stand there most often, in order; none where all stand there equally often."""
    counts = Counter(numbers)
    most = max(counts.values())
    found = sorted(number for number, count in counts.items() if count == most)
    return [] if len(found) == len(counts) and len(counts) > 1 else found


def variance(numbers: Sequence[Number], *, population: bool = False) -> Number:
    """The mean square distance from the mean: of a sample (over n - 1), or of a whole population (over n)."""
    count = len(numbers) - (not population)
    if count < 1:
        raise CalculationError("the variance of a sample needs two numbers")
    middle = mean(numbers)
    squares = [multiply(d, d) for d in (add(number, negative(middle)) for number in numbers)]
    return divide(total(squares), Fraction(count))


def deviation(numbers: Sequence[Number], *, population: bool = False) -> Number:
    """The root of the variance."""
    return apply(power, [variance(numbers, population=population), _HALF])


def summary(numbers: Sequence[Number], digits: int = 15) -> dict[str, str]:
    """Every measure by its name, as text."""
    found: dict[str, str] = {"count": str(len(numbers))}
    plain: dict[str, Number] = {
        "sum": total(numbers),
        "mean": mean(numbers),
        "median": median(numbers),
        "min": min(numbers),
        "max": max(numbers),
        "range": add(max(numbers), negative(min(numbers))),
    }
    found |= {name: show(number, digits) for name, number in plain.items()}
    often = [show(number, digits) for number in modes(numbers)]
    found["mode"] = ", ".join(often) if 0 < len(often) <= MAX_MODES else "none"
    if len(numbers) > 1:
        found["stdev"] = show(deviation(numbers), digits)
        found["variance"] = show(variance(numbers), digits)
    found["population stdev"] = show(deviation(numbers, population=True), digits)
    found["population variance"] = show(variance(numbers, population=True), digits)
    return found
