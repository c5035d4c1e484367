"""The calculator: exact arithmetic with functions and units.

What: one syscall, `calculator.evaluate`. Integers, fractions and decimals are exact; roots, logarithms and
    angles are rounded from 60 digits, and the answer says so.
Invariant: text is parsed, never run. Every expression ends, in bounded time and memory, in an answer or in a
    `CalculationError` that says what is wrong and where.
Interface: `Calculator`; for programs, `llmos.apps.calculator.parser.evaluate`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from llmos.abi.app import App, syscall
from llmos.apps.calculator.arithmetic import CalculationError
from llmos.apps.calculator.parser import evaluate

__all__ = ["CalculationError", "Calculator"]


class Calculator(App, pure=True):
    """Exact arithmetic, functions and units."""

    @syscall(effect="none", retry="safe", deadline=5)
    def evaluate(
        self,
        expression: Annotated[str, 'such as "2^64 + 1", "15% of 80", "sqrt(2)", "3 ft + 2 in to cm"'],
        digits: Annotated[int, Field(ge=1, le=50), "of a rounded answer"] = 15,
    ) -> str:
        """Calculate an expression: + - * / ^ % ! and parentheses, functions (sqrt, ln, log, sin, round, gcd, ...),
        constants (pi, e) and units ("60 km/h to m/s")."""
        return evaluate(expression).show(digits)
