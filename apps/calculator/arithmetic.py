"""Numbers: exact as long as they can be, then decimals of 60 digits.

What: the operations of the calculator over `Fraction` (exact) and `Decimal` (rounded).
Invariant: an exact result is never rounded; what is rounded stays marked by its type. No operation makes a
    number of more than `MAX_DIGITS` digits: that is known before it is computed.
Interface: `add`, `multiply`, `divide`, `power`, ...; `apply(operation, numbers)`; `show(number, digits)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow
from fractions import Fraction

Number = Fraction | Decimal

MAX_DIGITS = 4_000  # of an exact number; Python itself refuses to print more than 4,300
PRECISION = 60  # digits that rounded numbers are computed with; at most 50 are shown

MAX_BITS = int(MAX_DIGITS * math.log2(10))
CONTEXT = Context(
    prec=PRECISION, Emax=999_999, Emin=-999_999, traps=[InvalidOperation, DivisionByZero, Overflow]
)
PI = Decimal(
    "3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679"
)
E = CONTEXT.exp(Decimal(1))
WIDE = Context(prec=PRECISION + 30)  # operators on decimals would use the thread's context, of 28 digits
TAU, HALF_PI = WIDE.multiply(PI, Decimal(2)), WIDE.divide(PI, Decimal(2))


class CalculationError(ValueError):
    """Something that cannot be calculated; the message says why and where."""


def checked(number: Number) -> Number:
    """The number, if it is not too long."""
    if (
        isinstance(number, Fraction)
        and max(number.numerator.bit_length(), number.denominator.bit_length()) > MAX_BITS
    ):
        raise too_long()
    return number


def rounded(number: Number) -> Decimal:
    """As a decimal of 60 digits."""
    if isinstance(number, Decimal):
        return number
    return CONTEXT.divide(Decimal(number.numerator), Decimal(number.denominator))


def add(a: Number, b: Number) -> Number:
    """a + b"""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a + b)
    return CONTEXT.add(rounded(a), rounded(b))


def negative(a: Number) -> Number:
    """-a"""
    return -a if isinstance(a, Fraction) else a.copy_negate()


def multiply(a: Number, b: Number) -> Number:
    """a * b"""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a * b)
    return CONTEXT.multiply(rounded(a), rounded(b))


def divide(a: Number, b: Number) -> Number:
    """a / b"""
    if b == 0:
        raise CalculationError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a / b)
    return CONTEXT.divide(rounded(a), rounded(b))


def modulo(a: Number, b: Number) -> Number:
    """What is left of a after whole b, with the sign of b."""
    if b == 0:
        raise CalculationError("division by zero")
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return checked(a % b)
    quotient = floor(divide(a, b))
    return add(a, negative(multiply(quotient, b)))


def power(a: Number, b: Number) -> Number:
    """a ^ b, exact where both are and the result is rational."""
    if isinstance(b, Decimal) or isinstance(a, Decimal):
        return _decimal_power(a, b)
    if b.denominator == 1:
        return _whole_power(a, b.numerator)
    if a < 0 and b.denominator % 2 == 0:
        raise CalculationError(f"{show(a)} has no real root of order {b.denominator}")
    root = _exact_root(abs(a), b.denominator)
    if root is not None:
        return _whole_power(-root if a < 0 else root, b.numerator)
    size = CONTEXT.power(rounded(abs(a)), rounded(b))
    return size.copy_negate() if a < 0 and b.numerator % 2 else size


def _whole_power(a: Fraction, exponent: int) -> Fraction:
    if a == 0 and exponent < 0:
        raise CalculationError("division by zero")
    longest = max(abs(a.numerator).bit_length(), a.denominator.bit_length())
    if abs(a) not in (0, 1) and (longest - 1) * abs(exponent) > MAX_BITS:
        raise too_long()
    if abs(a) in (0, 1):
        exponent = exponent % 2 + 2 if exponent else 0
    return Fraction(checked(a**exponent))


def _decimal_power(a: Number, b: Number) -> Number:
    if a == 0 and b < 0:
        raise CalculationError("division by zero")
    if a == 0:
        return Fraction(1 if b == 0 else 0)
    if a < 0 and b != rounded(b).to_integral_value():
        raise CalculationError("a negative number to a power that is not whole")
    return CONTEXT.power(rounded(a), rounded(b))


def _exact_root(a: Fraction, order: int) -> Fraction | None:
    top, bottom = _whole_root(a.numerator, order), _whole_root(a.denominator, order)
    return None if top is None or bottom is None else Fraction(top, bottom)


def _whole_root(n: int, order: int) -> int | None:
    """The whole root of n, if it has one."""
    if n < 2:
        return n
    if order >= n.bit_length():
        return None
    if order == 2:
        root = math.isqrt(n)
    else:
        root = 1 << -(-n.bit_length() // order)
        while (lower := ((order - 1) * root + n // root ** (order - 1)) // order) < root:
            root = lower
    return root if root**order == n else None


def floor(a: Number) -> Fraction:
    """The greatest whole number that is not above a."""
    if isinstance(a, Decimal) and a.adjusted() > MAX_DIGITS:
        raise too_long()
    return Fraction(math.floor(a))


def ceiling(a: Number) -> Fraction:
    """The least whole number that is not below a."""
    return -floor(negative(a))


def nearest(a: Number, places: Number = Fraction(0)) -> Number:
    """Rounded to decimal places, halves away from zero."""
    shift = _whole_power(Fraction(10), whole(places, "places"))
    scaled = multiply(a, shift)
    half = Fraction(1, 2)
    near = floor(add(scaled, half)) if scaled >= 0 else ceiling(add(scaled, -half))
    return divide(near, shift)


def whole(a: Number, what: str) -> int:
    """As an int; CalculationError, naming `what`, where it is none."""
    if isinstance(a, Decimal) or a.denominator != 1:
        raise CalculationError(f"{what} needs a whole number, not {show(a)}")
    return a.numerator


def apply(function: Callable[..., Number], arguments: Sequence[Number]) -> Number:
    """Call an operation; whatever the decimal library raises becomes a CalculationError."""
    try:
        return checked(function(*arguments))
    except Overflow:
        raise CalculationError("a number beyond 10^999999") from None
    except DecimalException:
        raise CalculationError("a result that is not a number") from None


def show(number: Number, digits: int = 15) -> str:
    """As text: exact where that is short, else with what it is rounded to."""
    if isinstance(number, Decimal):
        return f"{_round(number, digits)} (rounded)"
    if number.denominator == 1:
        return str(number.numerator)
    places = _places(number.denominator)
    if places is not None and places <= 40:
        scaled = abs(number.numerator) * 10**places // number.denominator
        text = str(scaled).rjust(places + 1, "0")
        return f"{'-' if number < 0 else ''}{text[:-places]}.{text[-places:]}"
    about = _round(rounded(number), digits)
    if number.denominator >= 10**20:
        return f"{about} (rounded)"
    return f"{number.numerator}/{number.denominator} (about {about})"


def _places(denominator: int) -> int | None:
    """Decimal places of a fraction with this denominator, None where they do not end."""
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    return max(twos, fives) if denominator == 1 else None


def _round(number: Decimal, digits: int) -> str:
    near = Context(prec=digits).plus(number)
    if -7 < near.adjusted() < max(digits, 21):
        text = f"{near:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{near.normalize(Context(prec=digits)):E}".replace("E+", "e").replace("E", "e")


def too_long() -> CalculationError:
    """The error of a number that would be too long."""
    return CalculationError(f"a number of more than {MAX_DIGITS} digits")
