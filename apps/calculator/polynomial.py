"""Polynomials with rational coefficients, and their roots.

What: a polynomial is a tuple of fractions, the constant first. Rational roots are exact, the roots of a quadratic
    that is left are exact by a square root, all others are enclosed (Sturm 1829) and rounded.
Invariant: no root is missed and none is made up: real roots are counted by Sturm's sequence, complex ones are what
    the degree leaves. Work is bounded by the degree and by the length of the coefficients.
Interface: `through(points)`, `value(p, x)`, `roots(p) -> Roots`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from llmos.apps.calculator.arithmetic import PRECISION, CalculationError, rounded

MAX_BITS = 4_000  # of all coefficients together

Polynomial = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True)
class Surd:
    """middle ± root of `square`; `square` below zero means a complex pair."""

    middle: Fraction
    square: Fraction

    def spelled(self, sign: str) -> str:
        """With one of its signs, over one denominator: (-1 + sqrt(5))/2."""
        below = math.lcm(self.middle.denominator, self.square.denominator)
        above, inner = int(self.middle * below), int(self.square * below * below)
        for factor in (2, 3, 5, 7, 11, 13):
            while not (below % factor or above % factor or inner % (factor * factor)):
                below, above, inner = below // factor, above // factor, inner // (factor * factor)
        root = f"sqrt({inner})"
        if not above:
            text = root if sign == "+" else f"-{root}"
            return text if below == 1 else f"{text}/{below}"
        text = f"{above} {sign} {root}"
        return text if below == 1 else f"({text})/{below}"


@dataclass(frozen=True, slots=True)
class Roots:
    """The distinct roots of a polynomial: rational ones, the two of a quadratic, rounded ones, and how many complex
    ones are left."""

    rational: tuple[Fraction, ...] = ()
    surd: Surd | None = None
    rounded: tuple[Decimal, ...] = ()
    complex: int = 0


def through(points: Sequence[tuple[Fraction, Fraction]]) -> Polynomial:
    """The polynomial of least degree through these points (Newton's divided differences)."""
    xs = [x for x, _ in points]
    table = [y for _, y in points]
    for step in range(1, len(points)):
        for at in range(len(points) - 1, step - 1, -1):
            table[at] = (table[at] - table[at - 1]) / (xs[at] - xs[at - step])
    found: list[Fraction] = [Fraction(0)]
    for x, share in zip(reversed(xs), reversed(table), strict=True):
        found = [Fraction(0), *found]
        for at in range(len(found) - 1):
            found[at] -= x * found[at + 1]
        found[0] += share
    return _trimmed(found)


def value(p: Polynomial, x: Fraction) -> Fraction:
    """p(x), by Horner's rule."""
    result = Fraction(0)
    for share in reversed(p):
        result = result * x + share
    return result


def roots(p: Polynomial) -> Roots:
    """The roots of a polynomial that is not constant; CalculationError where its coefficients are too long."""
    if sum(c.numerator.bit_length() + c.denominator.bit_length() for c in p) > MAX_BITS:
        raise CalculationError("an equation whose coefficients are too long to be solved")
    left = _divided(p, _common(p, _slope(p)))[0]  # each root once
    rational = []
    for low, high in _enclosed(left):
        exact = _rational(left, low, high)
        if exact is not None:
            rational.append(exact)
    for root in rational:
        left = _divided(left, (-root, Fraction(1)))[0]
    degree = len(left) - 1
    if degree < 1:
        return Roots(tuple(sorted(rational)))
    if degree == 2:
        c, b, a = left
        return Roots(tuple(sorted(rational)), Surd(-b / (2 * a), (b * b - 4 * a * c) / (4 * a * a)))
    near = [_narrowed(left, low, high) for low, high in _enclosed(left)]
    return Roots(tuple(sorted(rational)), None, tuple(sorted(near)), degree - len(near))


# --- arithmetic ---


def _trimmed(p: Sequence[Fraction]) -> Polynomial:
    end = len(p)
    while end > 1 and p[end - 1] == 0:
        end -= 1
    return tuple(p[:end])


def _slope(p: Polynomial) -> Polynomial:
    return _trimmed([n * share for n, share in enumerate(p)][1:] or [Fraction(0)])


def _divided(p: Polynomial, by: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Quotient and remainder."""
    rest, quotient = list(p), [Fraction(0)] * max(1, len(p) - len(by) + 1)
    for at in range(len(p) - len(by), -1, -1):
        quotient[at] = share = rest[at + len(by) - 1] / by[-1]
        for n, coefficient in enumerate(by):
            rest[at + n] -= share * coefficient
    return _trimmed(quotient), _trimmed(rest[: max(1, len(by) - 1)])


def _common(a: Polynomial, b: Polynomial) -> Polynomial:
    """The greatest common divisor, with 1 in front."""
    while any(b):
        a, b = b, _divided(a, b)[1]
    return tuple(share / a[-1] for share in a)


# --- where the real roots lie ---


def _enclosed(p: Polynomial) -> list[tuple[Fraction, Fraction]]:
    """Intervals (low, high] that hold one real root each, of a polynomial without double roots."""
    if len(p) < 2:
        return []
    chain = [p, _slope(p)]
    while len(chain[-1]) > 1:
        chain.append(tuple(-share for share in _divided(chain[-2], chain[-1])[1]))
    bound = 1 + max(abs(share / p[-1]) for share in p[:-1])
    bound = Fraction(1 << math.ceil(bound).bit_length())
    found, open_ = [], [(-bound, bound, _changes(chain, -bound), _changes(chain, bound))]
    while open_:
        low, high, before, after = open_.pop()
        if before - after == 1:
            found.append((low, high))
        elif before - after > 1:
            middle = (low + high) / 2
            between = _changes(chain, middle)
            open_ += [(low, middle, before, between), (middle, high, between, after)]
    return found


def _changes(chain: Sequence[Polynomial], x: Fraction) -> int:
    """Changes of sign in Sturm's sequence at x."""
    signs = [here > 0 for p in chain if (here := value(p, x))]
    return sum(a != b for a, b in pairwise(signs))


def _halved(p: Polynomial, low: Fraction, high: Fraction, width: Fraction) -> tuple[Fraction, Fraction]:
    """The same root in an interval of at most that width."""
    end = value(p, high)
    if end == 0:
        return high, high
    while high - low > width:
        middle = (low + high) / 2
        here = value(p, middle)
        if here == 0:
            return middle, middle
        if (here > 0) == (end > 0):
            high = middle
        else:
            low = middle
    return low, high


def _rational(p: Polynomial, low: Fraction, high: Fraction) -> Fraction | None:
    """The root between, if it is rational: its denominator divides the leading coefficient in whole numbers."""
    scale = math.lcm(*(share.denominator for share in p))
    leading = abs(int(p[-1] * scale))
    begin, end = _halved(p, low, high, Fraction(1, 2 * leading))
    for guess in {math.floor(end * leading), math.ceil(begin * leading), math.floor(begin * leading) + 1}:
        root = Fraction(guess, leading)
        if low < root <= high and begin <= root <= end and value(p, root) == 0:
            return root
    return None


def _narrowed(p: Polynomial, low: Fraction, high: Fraction) -> Decimal:
    """The root between, to more digits than are shown."""
    while low <= 0 <= high and high > low:  # until the size of the root is known
        low, high = _halved(p, low, high, (high - low) / 2)
    size = max(abs(low), abs(high))
    low, high = _halved(p, low, high, size / 10**PRECISION)
    return rounded((low + high) / 2)
