"""Equations with one unknown.

What: an equation that is a polynomial is solved exactly; any other by looking for changes of sign in an interval,
    which the answer names, and halving.
Invariant: every solution that is given as exact was put into the equation and fits. Work is bounded in points, digits
    and seconds. Whether an equation is a polynomial is tested at more points than its degree has, among them large
    ones that nobody chose (Schwartz 1980): only plain arithmetic is taken for one, never what has functions in it.
Interface: `solve(equation, unknown, low, high, digits) -> str`; CalculationError.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

from llmos.apps.calculator import functions
from llmos.apps.calculator.arithmetic import CalculationError, Number, power, rounded, show
from llmos.apps.calculator.parser import evaluate, is_known
from llmos.apps.calculator.polynomial import Polynomial, Roots, roots, through, value
from llmos.apps.calculator.quantity import Quantity, plain, plus
from llmos.apps.calculator.statistics import exact
from llmos.apps.calculator.tokens import Token, tokens

MAX_EQUATION = 400  # characters
MAX_DEGREE = 16
MAX_SOLUTIONS = 8  # that are told of an equation that is no polynomial, those nearest to zero
SECONDS = 3.0  # of computing that looking for changes of sign may take
NEAR, FAR = (
    100,
    10**6,
)  # how far out they are looked for where nobody says: first near, and if there is none, far
_POINTS = 800  # of an interval
_STEPS = 80  # halvings: more digits than are shown by default
_PIECEWISE = frozenset({"%", "mod", "!"})
_TINY = Decimal(10) ** -45
_MILLION = 10**6


def solve(
    equation: str, unknown: str = "", low: float | None = None, high: float | None = None, digits: int = 15
) -> str:
    """The real solutions as text, complex ones where a quadratic has them."""
    both = _Sides(equation, unknown)
    begin, end = None if low is None else exact(low), None if high is None else exact(high)
    if begin is not None and end is not None and begin >= end:
        raise CalculationError(
            f"an interval from {show(begin)} to {show(end)}: the first has to be the smaller"
        )
    found = _as_polynomial(both)
    if found is not None:
        if len(found) == 1:
            return f"every {both.name} solves it" if found[0] == 0 else f"no {both.name} solves it"
        solved = roots(found)
        if all(both.at(root) == 0 for root in solved.rational):
            return _told(both.name, solved, digits, begin, end)
    grids = [_evenly(-NEAR, NEAR), _widening()]
    if begin is not None or end is not None:
        low_end, high_end = Fraction(-FAR) if begin is None else begin, Fraction(FAR) if end is None else end
        inside = {x for grid in grids for x in grid if low_end < x < high_end}
        grids = [sorted({*inside, *_evenly(low_end, high_end)})]
    return _by_signs(both, grids, digits)


class _Sides:
    """An equation as the difference of its sides, a function of the unknown."""

    def __init__(self, equation: str, unknown: str) -> None:
        if len(equation) > MAX_EQUATION:
            raise CalculationError(
                f"an equation of {len(equation)} characters; at most {MAX_EQUATION} are read"
            )
        self._left, sign, self._right = equation.replace("==", "=").partition("=")
        if not sign:
            self._right = "0"
        if "=" in self._right or any(c in equation for c in "<>≤≥≠!=" if c not in "=!"):
            raise CalculationError("one equation with one = is solved at a time")
        self.tokens = tokens(self._left)[:-1] + tokens(self._right)[:-1]
        self.name = unknown.strip() or _unknown(self.tokens)
        if not any(token.text == self.name for token in self.tokens):
            raise CalculationError(f"{self.name} does not stand in the equation")

    def at(self, x: Number) -> Number:
        """The left side less the right one; CalculationError where one of them has no value."""
        known = {self.name: Quantity(x)}
        return plain(plus(evaluate(self._left, known), evaluate(self._right, known), -1), "an equation")


def _unknown(found: list[Token]) -> str:
    names = list(dict.fromkeys(token.text for token in found if token.kind == "name"))
    strange = [name for name in names if not is_known(name)]
    if len(strange) == 1:
        return strange[0]
    if not strange:  # a letter that is also a unit: t, m, h
        strange = [name for name in names if len(name) == 1 and name not in ("e", "π")]
        if len(strange) == 1:
            return strange[0]
    told = ", ".join(strange) or "none"
    raise CalculationError(f"an equation has one unknown, this one has {told}: say which one is meant")


# --- polynomials ---


def _as_polynomial(both: _Sides) -> Polynomial | None:
    """Its coefficients, where the equation is a polynomial of at most `MAX_DEGREE`."""
    for token in both.tokens:
        if token.text in functions.NAMES or token.text in _PIECEWISE:
            return None
    try:
        near = [Fraction(n) for n in range(-MAX_DEGREE // 2, MAX_DEGREE // 2 + 1)]
        points = [(x, _exact(both.at(x))) for x in near]
        found = through(points)
        if all(_exact(both.at(x)) == value(found, x) for x in _far(both)):
            return found
    except CalculationError:
        pass  # 1/x, sqrt 2, 2^x: no polynomial with rational coefficients
    return None


def _exact(number: Number) -> Fraction:
    if not isinstance(number, Fraction):
        raise CalculationError("rounded")
    return number


def _far(both: _Sides) -> Iterator[Fraction]:
    """Points that are the equation's own, and nothing that somebody would choose."""
    for n in range(3):
        digest = hashlib.sha256(f"{n} {[token.text for token in both.tokens]}".encode()).digest()
        top, bottom = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:12], "big") + 2
        yield Fraction(top if n % 2 else -top, bottom)


def _told(name: str, solved: Roots, digits: int, low: Fraction | None, high: Fraction | None) -> str:
    """All roots in words; of the real ones, those in the interval that was asked for."""

    def inside(root: Number) -> bool:
        return (low is None or root >= low) and (high is None or root <= high)

    real: list[Number] = [*solved.rational, *solved.rounded]
    said = [f"{name} = {show(root, digits)}" for root in real if inside(root)]
    if (low is not None or high is not None) and not said and (solved.surd is None or solved.surd.square < 0):
        ends = [f"{word} {show(end)}" for word, end in (("from", low), ("to", high)) if end is not None]
        return f"no solution {' '.join(ends)}"
    if solved.surd is not None:
        middle, square = solved.surd.middle, solved.surd.square
        size = power(abs(square), Fraction(1, 2))
        if square > 0:
            for sign, letter in ((-1, "-"), (1, "+")):
                near = rounded(middle) + sign * rounded(size)
                if inside(near):
                    about, _, _ = show(near, digits).partition(" ")
                    said.append(f"{name} = {solved.surd.spelled(letter)} (about {about})")
        else:
            first = f"{show(middle, digits)} " if middle else ""
            pair = [f"{name} = {first}{sign} {_imaginary(show(size, digits))}" for sign in "-+"]
            there = (
                f"{' or '.join(said)}; besides, complex ones are"
                if said
                else "no real solution; complex ones are"
            )
            return f"{there} {' or '.join(pair)}"
    if not said:
        return f"no real solution; {solved.complex} complex ones"
    return " or ".join(said) + (f"; besides, {solved.complex} complex solutions" if solved.complex else "")


def _imaginary(size: str) -> str:
    """A number times i, as text."""
    value, space, remark = size.partition(" ")
    return f"{'' if value == '1' else value}i{space}{remark}"


# --- anything else ---


def _by_signs(both: _Sides, intervals: Sequence[Sequence[Fraction]], digits: int) -> str:
    """Solutions where the difference of the sides changes its sign between two neighbouring points of the first of
    these intervals where it does."""
    clock = _Clock()
    defined = False
    for points in intervals:
        where = f"between {show(points[0])} and {show(points[-1])}"
        values = [(x, here) for x in points if (here := clock.value(both, x)) is not None]
        defined = defined or bool(values)
        brackets = [(x, x, here, here) for x, here in values if _is_zero(here)]
        for (a, at_a), (b, at_b) in pairwise(values):
            if not (_is_zero(at_a) or _is_zero(at_b)) and (at_a > 0) != (at_b > 0):
                brackets.append((a, b, at_a, at_b))
        found: list[Number] = []
        brackets.sort(key=lambda bracket: abs(bracket[0] + bracket[1]))
        while brackets and len(found) < MAX_SOLUTIONS:
            bracket = brackets.pop(0)
            root = bracket[0] if bracket[0] == bracket[1] else _halved(both, clock, *bracket)
            found += [] if root is None else [root]
        if found:
            said = " or ".join(f"{both.name} = {show(root, digits)}" for root in sorted(found))
            more = "; there may be more" if brackets else ""
            return f"{said} (found by changes of sign {where}{more})"
    if not defined:
        both.at(Fraction(1))  # says what is wrong with it, most likely
        raise CalculationError(f"the equation has no value {where}")
    return f"no solution was found {where}"


class _Clock:
    """Values of an equation, for as much computing as that may take."""

    def __init__(self) -> None:
        self._end = time.thread_time() + SECONDS

    def value(self, both: _Sides, x: Number) -> Number | None:
        """None where it has none; CalculationError once the time is over."""
        if time.thread_time() > self._end:
            raise CalculationError("this equation takes too long: give a smaller interval by low and high")
        return _try(both, x)


def _evenly(low: Fraction | int, high: Fraction | int) -> list[Fraction]:
    return [low + Fraction(high - low) * n / _POINTS for n in range(_POINTS + 1)]


def _widening() -> list[Fraction]:
    """Points that lie ever further apart, to both sides of zero."""
    far = [NEAR + Fraction((FAR - NEAR) * n**3, _POINTS**3) for n in range(1, _POINTS + 1)]
    return [-x for x in reversed(far)] + [Fraction(0)] + far


def _try(both: _Sides, x: Number) -> Number | None:
    try:
        return both.at(x)
    except CalculationError:
        return None


def _is_zero(number: Number) -> bool:
    return number == 0 or (isinstance(number, Decimal) and abs(number) < _TINY)


def _halved(both: _Sides, clock: _Clock, a: Number, b: Number, at_a: Number, at_b: Number) -> Number | None:
    """The zero between, None where the sign changes by a jump or at a pole."""
    low, high, positive = rounded(a), rounded(b), at_b > 0
    least = min(abs(rounded(at_a)), abs(rounded(at_b)))
    here: Number = at_b
    for _ in range(_STEPS):
        middle = (low + high) / 2
        found = clock.value(both, middle)
        if found is None:
            return None
        here = found
        if _is_zero(here):
            low = high = middle
            break
        if (here > 0) == positive:
            high = middle
        else:
            low = middle
    if abs(rounded(here)) > least / _MILLION:
        return None
    root = (low + high) / 2
    near = Fraction(root).limit_denominator(_MILLION)
    fits = _try(both, near)
    return near if isinstance(fits, Fraction) and fits == 0 else root
