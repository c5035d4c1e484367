"""A number with a unit, and what can be done with two of them.

What: values carry their base-unit number, their dimension, and the unit that they were written in.
Invariant: only like is added to like; a result is shown in the unit of its first part, else in base units.
Interface: `Quantity`; `plus`, `times`, `over`, `to_the`, `remainder`, `convert`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from llmos.apps.calculator.arithmetic import (
    CalculationError,
    Number,
    add,
    apply,
    divide,
    modulo,
    multiply,
    power,
    show,
)
from llmos.apps.calculator.units import NONE, Dimension, Unit, combine, raised, spell

MAX_POWER = 20  # of a unit; nothing in physics has more


@dataclass(frozen=True, slots=True)
class Quantity:
    """`number` in base units; `unit` is how it is shown, None for base units; `truth` for comparisons."""

    number: Number
    dimension: Dimension = NONE
    unit: Unit | None = None
    truth: bool | None = None

    def show(self, digits: int = 15) -> str:
        """The answer as text: exact where that is short, else rounded to `digits` digits and marked."""
        if self.truth is not None:
            return str(self.truth).lower()
        number, name = self.number, spell(self.dimension)
        if self.unit is not None:
            number = apply(divide, [apply(add, [number, -self.unit.offset]), self.unit.factor])
            name = self.unit.name
        text = show(number, digits)
        if not name:
            return text
        value, space, remark = text.partition(" ")
        return f"{value} {name}{space}{remark}"


def plain(value: Quantity, what: str) -> Number:
    """The number of a quantity without a unit."""
    if value.truth is not None:
        raise CalculationError(f"{what} needs a number, not a comparison")
    if value.dimension:
        raise CalculationError(f"{what} needs a plain number, not one in {spell(value.dimension)}")
    return value.number


def alike(a: Quantity, b: Quantity, what: str) -> None:
    """CalculationError where the two cannot be added or compared."""
    if a.truth is not None or b.truth is not None:
        raise CalculationError(f"{what} needs numbers, not comparisons")
    if a.dimension != b.dimension:
        first, second = (spell(one.dimension) or "a plain number" for one in (a, b))
        raise CalculationError(f"{what} does not go with {first} and {second}")


def plus(a: Quantity, b: Quantity, sign: int = 1) -> Quantity:
    """a + b, or a - b"""
    alike(a, b, "+" if sign > 0 else "-")
    if any(one.unit is not None and one.unit.offset for one in (a, b)):
        raise CalculationError(
            "temperatures on a scale are not added",
        )
    second = b.number if sign > 0 else apply(multiply, [b.number, Fraction(-1)])
    return Quantity(apply(add, [a.number, second]), a.dimension, a.unit or b.unit)


def times(a: Quantity, b: Quantity) -> Quantity:
    """a * b"""
    _measurable(a, b)
    unit = (
        a.unit
        if not b.dimension and b.unit is None
        else b.unit
        if not a.dimension and a.unit is None
        else None
    )
    return Quantity(apply(multiply, [a.number, b.number]), combine(a.dimension, b.dimension), unit)


def over(a: Quantity, b: Quantity) -> Quantity:
    """a / b"""
    _measurable(a, b)
    unit = a.unit if not b.dimension and b.unit is None else None
    return Quantity(apply(divide, [a.number, b.number]), combine(a.dimension, b.dimension, -1), unit)


def remainder(a: Quantity, b: Quantity) -> Quantity:
    """What is left of a after whole b."""
    alike(a, b, "the remainder")
    return Quantity(apply(modulo, [a.number, b.number]), a.dimension, a.unit)


def to_the(a: Quantity, b: Quantity) -> Quantity:
    """a ^ b"""
    _measurable(a, b)
    exponent = plain(b, "an exponent")
    if not a.dimension:
        return Quantity(apply(power, [a.number, exponent]))
    if not isinstance(exponent, Fraction) or abs(exponent) > MAX_POWER:
        raise CalculationError(f"a unit to a power beyond {MAX_POWER}, or to one that is not rational")
    return Quantity(apply(power, [a.number, exponent]), raised(a.dimension, exponent))


def convert(a: Quantity, unit: Unit) -> Quantity:
    """The same in another unit."""
    alike(a, Quantity(Fraction(1), unit.dimension), f"a conversion to {unit.name}")
    return Quantity(a.number, a.dimension, unit)


def _measurable(*values: Quantity) -> None:
    for value in values:
        if value.truth is not None:
            raise CalculationError("a comparison is not a number")
        if value.unit is not None and value.unit.offset:
            raise CalculationError(
                f"{value.unit.name} has an offset: it can only be converted (use K for differences)"
            )
