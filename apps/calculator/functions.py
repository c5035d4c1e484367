"""The calculator's functions, by name.

What: functions of plain numbers (roots, logarithms, angles, choices) and of quantities (sum, round, max, ...).
Invariant: like the operations, they are exact where they can be, and refuse what would be too long.
Interface: `NAMES`, `call(name, quantities)`, `factorial`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial

from llmos.apps.calculator import statistics
from llmos.apps.calculator.arithmetic import (
    CONTEXT,
    HALF_PI,
    MAX_BITS,
    MAX_DIGITS,
    PRECISION,
    TAU,
    WIDE,
    CalculationError,
    Number,
    apply,
    ceiling,
    checked,
    divide,
    floor,
    multiply,
    nearest,
    negative,
    power,
    rounded,
    show,
    too_long,
    whole,
)
from llmos.apps.calculator.quantity import Quantity, alike, over, plain, plus, to_the
from llmos.apps.calculator.statistics import MAX_NUMBERS
from llmos.apps.calculator.units import raised

MAX_ANGLE = Decimal(10) ** 20  # beyond it the digits that a sine needs are gone


def factorial(a: Number) -> Fraction:
    """1 * 2 * ... * a"""
    n = whole(a, "a factorial")
    if n < 0:
        raise CalculationError("the factorial of a negative number")
    if n > 1 and math.lgamma(n + 1) / math.log(10) > MAX_DIGITS:
        raise too_long()
    return Fraction(math.factorial(n))


def _choose(n: Number, k: Number) -> Fraction:
    return Fraction(_arrangements(n, k, ordered=False))


def _permute(n: Number, k: Number) -> Fraction:
    return Fraction(_arrangements(n, k, ordered=True))


def _arrangements(n: Number, k: Number, *, ordered: bool) -> int:
    count, taken = whole(n, "a choice"), whole(k, "a choice")
    if count < 0 or taken < 0:
        raise CalculationError("a choice from fewer than none")
    if taken > count:
        return 0
    taken = taken if ordered else min(taken, count - taken)
    if taken * count.bit_length() > 2 * MAX_BITS:
        raise too_long()
    return math.perm(count, taken) if ordered else math.comb(count, taken)


def _logarithm(a: Number, base: Number = Fraction(10)) -> Number:
    if base <= 0 or base == 1:
        raise CalculationError(f"there is no logarithm to base {show(base)}")
    if isinstance(a, Fraction) and isinstance(base, Fraction) and a > 0:
        guess = int(CONTEXT.divide(_ln(a), _ln(base)).to_integral_value())
        longest = max(base.numerator.bit_length(), base.denominator.bit_length())
        if longest * abs(guess) <= 2 * MAX_BITS and base**guess == a:
            return Fraction(guess)
    return CONTEXT.divide(_ln(a), _ln(base))


def _ln(a: Number) -> Decimal:
    if a <= 0:
        raise CalculationError("the logarithm of a number that is not positive")
    return CONTEXT.ln(rounded(a))


def _exp(a: Number) -> Number:
    return Fraction(1) if a == 0 else CONTEXT.exp(rounded(a))


def _sine(a: Number) -> Number:
    """By its series, after the angle was brought near zero."""
    x = rounded(a)
    if x.copy_abs() > MAX_ANGLE:
        raise CalculationError(f"an angle beyond {MAX_ANGLE:E}")
    x = WIDE.subtract(x, WIDE.multiply(WIDE.divide(x, TAU).to_integral_value(), TAU))
    term, total, n = x, x, 1
    square = WIDE.multiply(x, x)
    while term and term.adjusted() > -PRECISION - 10:
        n += 2
        term = WIDE.divide(WIDE.multiply(term, square), Decimal(n - n * n))
        total = WIDE.add(total, term)
    tiny = total.copy_abs() < Decimal(10) ** (5 - PRECISION)  # an angle in degrees has pi rounded in it
    return Fraction(0) if tiny else CONTEXT.plus(total)


def _cosine(a: Number) -> Number:
    return _sine(WIDE.subtract(HALF_PI, rounded(a)))


def _tangent(a: Number) -> Number:
    below = _cosine(a)
    if below == 0:
        raise CalculationError("the tangent of a right angle")
    return divide(_sine(a), below)


def _arctangent(a: Number) -> Number:
    x = rounded(a)
    for _ in range(4):  # halve the angle until the series is short
        root = WIDE.sqrt(WIDE.add(Decimal(1), WIDE.multiply(x, x)))
        x = WIDE.divide(x, WIDE.add(Decimal(1), root))
    power, total, n = x, x, 1
    square = WIDE.multiply(x, x).copy_negate()
    while power and power.adjusted() > -PRECISION - 10:
        n += 2
        power = WIDE.multiply(power, square)
        total = WIDE.add(total, WIDE.divide(power, Decimal(n)))
    return Fraction(0) if total == 0 else CONTEXT.multiply(total, Decimal(16))


def _arcsine(a: Number) -> Number:
    if not -1 <= a <= 1:
        raise CalculationError("the arcsine of a number outside of -1 to 1")
    if a in (1, -1):
        return CONTEXT.plus(HALF_PI if a > 0 else HALF_PI.copy_negate())
    x = rounded(a)
    squares = WIDE.multiply(WIDE.subtract(Decimal(1), x), WIDE.add(Decimal(1), x))
    return _arctangent(WIDE.divide(x, WIDE.sqrt(squares)))


def _arccosine(a: Number) -> Number:
    return Fraction(0) if a == 1 else CONTEXT.subtract(HALF_PI, rounded(_arcsine(a)))


def _gcd(*numbers: Number) -> Fraction:
    return Fraction(math.gcd(*(whole(n, "a common divisor") for n in numbers)))


def _lcm(*numbers: Number) -> Fraction:
    result = Fraction(1)
    for number in numbers:
        result = Fraction(math.lcm(result.numerator, whole(number, "a common multiple")))
        checked(result)
    return result


FUNCTIONS: dict[str, tuple[Callable[..., Number], int, int]] = {  # name -> function, least and most arguments
    "root": (lambda a, n: power(a, divide(Fraction(1), n)), 2, 2),
    "factorial": (factorial, 1, 1),
    "exp": (_exp, 1, 1),
    "ln": (lambda a: Fraction(0) if a == 1 else _ln(a), 1, 1),
    "log": (_logarithm, 1, 2),
    "log10": (_logarithm, 1, 1),
    "log2": (lambda a: _logarithm(a, Fraction(2)), 1, 1),
    "sin": (_sine, 1, 1),
    "cos": (_cosine, 1, 1),
    "tan": (_tangent, 1, 1),
    "asin": (_arcsine, 1, 1),
    "acos": (_arccosine, 1, 1),
    "atan": (_arctangent, 1, 1),
    "gcd": (_gcd, 1, MAX_NUMBERS),
    "lcm": (_lcm, 1, MAX_NUMBERS),
    "comb": (_choose, 2, 2),
    "perm": (_permute, 2, 2),
    "floor": (floor, 1, 1),
    "ceil": (ceiling, 1, 1),
}


def call(name: str, arguments: list[Quantity]) -> Quantity:
    """Call a function by its name; CalculationError for wrong arguments."""
    least, most = (_OF_LIKE if name in _OF_LIKE else FUNCTIONS)[name][1:]
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise CalculationError(f"{name} takes {wanted} arguments, not {len(arguments)}")
    if name in _OF_LIKE:
        return _OF_LIKE[name][0](arguments)
    return Quantity(apply(FUNCTIONS[name][0], [plain(one, name) for one in arguments]))


def _root_of(order: int) -> Callable[[list[Quantity]], Quantity]:
    return lambda values: to_the(values[0], Quantity(Fraction(1, order)))


def _sum_of(values: list[Quantity]) -> Quantity:
    value = values[0]
    for one in values[1:]:
        value = plus(value, one)
    return value


def _pick(
    better: Callable[[Number, Number], bool],
) -> Callable[[list[Quantity]], Quantity]:
    def pick(values: list[Quantity]) -> Quantity:
        best = values[0]
        for one in values[1:]:
            alike(best, one, "a comparison")
            best = one if better(one.number, best.number) else best
        return best

    return pick


def _round_of(values: list[Quantity]) -> Quantity:
    """In the unit that it is shown in."""
    value = values[0]
    scale: Number = value.unit.factor if value.unit is not None else Fraction(1)
    places = plain(values[1], "round") if len(values) > 1 else Fraction(0)
    number = apply(nearest, [apply(divide, [value.number, scale]), places])
    return Quantity(apply(multiply, [number, scale]), value.dimension, value.unit)


def _size_of(values: list[Quantity]) -> Quantity:
    value = values[0]
    number = negative(value.number) if value.number < 0 else value.number
    return Quantity(number, value.dimension, value.unit)


def _mean_of(values: list[Quantity]) -> Quantity:
    return over(_sum_of(values), Quantity(Fraction(len(values))))


def _median_of(values: list[Quantity]) -> Quantity:
    return _percentile_of([*values, Quantity(Fraction(50))])


def _percentile_of(values: list[Quantity]) -> Quantity:
    """Of all but the last, which is the percentage."""
    *some, percent = values
    for one in some[1:]:
        alike(some[0], one, "a percentile")
    numbers = [one.number for one in some]
    found = apply(lambda share: statistics.percentile(numbers, share), [plain(percent, "a percentage")])
    return Quantity(found, some[0].dimension, some[0].unit)


def _spread(measure: Callable[..., Number], power: int = 1) -> Callable[[list[Quantity]], Quantity]:
    """A measure of distances from the mean, in the unit of its values to that power."""

    def spread(values: list[Quantity]) -> Quantity:
        for one in values:
            alike(values[0], one, "a deviation")
            if one.unit is not None and one.unit.offset:
                raise CalculationError(f"distances are measured in K, not on the scale of {one.unit.name}")
        numbers = [one.number for one in values]
        unit = values[0].unit if power == 1 else None
        return Quantity(
            apply(lambda: measure(numbers), []), raised(values[0].dimension, Fraction(power)), unit
        )

    return spread


# Functions of values with units: name -> function, least and most arguments.
_OF_LIKE: dict[str, tuple[Callable[[list[Quantity]], Quantity], int, int]] = {
    "abs": (_size_of, 1, 1),
    "sqrt": (_root_of(2), 1, 1),
    "cbrt": (_root_of(3), 1, 1),
    "round": (_round_of, 1, 2),
    "sum": (_sum_of, 1, MAX_NUMBERS),
    "mean": (_mean_of, 1, MAX_NUMBERS),
    "avg": (_mean_of, 1, MAX_NUMBERS),
    "median": (_median_of, 1, MAX_NUMBERS),
    "percentile": (_percentile_of, 2, MAX_NUMBERS),
    "stdev": (_spread(statistics.deviation), 1, MAX_NUMBERS),
    "variance": (_spread(statistics.variance, 2), 1, MAX_NUMBERS),
    "pstdev": (_spread(partial(statistics.deviation, population=True)), 1, MAX_NUMBERS),
    "pvariance": (_spread(partial(statistics.variance, population=True), 2), 1, MAX_NUMBERS),
    "min": (_pick(lambda a, b: a < b), 1, MAX_NUMBERS),
    "max": (_pick(lambda a, b: a > b), 1, MAX_NUMBERS),
}

NAMES = frozenset({*FUNCTIONS, *_OF_LIKE})
