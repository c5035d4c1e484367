"""From text to a quantity.

What: a small parser by precedence that calculates while it reads. Weakest first: conversion (`to`, `in`),
    comparison, `+ -`, `* / mod`, unary minus, a number and its unit (`10 m / 2 s`), `^`, `! %`.
Invariant: nothing is run; expressions longer than `MAX_LENGTH` or deeper than `MAX_DEPTH` are refused; every
    complaint names its place.
Interface: `evaluate(text, variables) -> Quantity`, `is_known(name)`, `written()`; CalculationError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from fractions import Fraction

from llmos.apps.calculator import arithmetic, functions, units
from llmos.apps.calculator.arithmetic import CalculationError, apply
from llmos.apps.calculator.quantity import (
    Quantity,
    alike,
    convert,
    over,
    plain,
    plus,
    remainder,
    times,
    to_the,
)
from llmos.apps.calculator.tokens import Token, literal, tokens
from llmos.apps.calculator.units import Unit

MAX_LENGTH = 2_000  # characters of an expression
MAX_DEPTH = 60  # of parentheses and signs; each level is a few frames of Python's stack

_CONSTANTS = {"pi": arithmetic.PI, "π": arithmetic.PI, "e": arithmetic.E, "tau": arithmetic.TAU}
_DATE = re.compile(r"(?<![\w.])[12]\d{3}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\w.])")
_CONVERSIONS = ("to", "in", "as", "->")
_COMPARISONS: dict[str, Callable[[arithmetic.Number, arithmetic.Number], bool]] = {
    "==": lambda a, b: a == b, "=": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip


_DEGREES = re.compile(
    r"(?i)((?:\bdegrees? |\bdeg |°)?)\b(celsius|fahrenheit)\b"
)  # "degrees Celsius" is one unit


def evaluate(text: str, variables: Mapping[str, Quantity] | None = None) -> Quantity:
    """Calculate an expression; CalculationError says what is wrong with it and where. Names of `variables` go before
    those of units and constants."""
    if len(text) > MAX_LENGTH:
        raise CalculationError(f"an expression of {len(text)} characters; at most {MAX_LENGTH} are read")
    if (found := _DATE.search(text)) is not None:
        raise CalculationError(
            f"{found[0]} reads as a date: calculator.days_between and calculator.add_to_date calculate with dates "
            "(with spaces around its signs it would be a subtraction)"
        )
    plain_text = _DEGREES.sub(lambda found: " " * len(found[1]) + found[2].lower(), text)
    parser = _Parser(tokens(plain_text), variables or {})
    value = parser.conversion()
    parser.expect("end", "the end of the expression")
    return value


def written() -> str:
    """A regular expression of what expressions are written with: numbers, signs and known names, each function with its
    parenthesis, each other name behind a number or a sign. It holds no grammar, but whoever writes under it cannot take
    the words of a question for an expression."""
    sign = r"[0-9 .,_°+\-*/^%!()<>=²³×·÷−–≤≥≠]"
    called = f"(?:{'|'.join(sorted(functions.NAMES))})\\("
    constants = "|".join(sorted(_CONSTANTS))
    word = f"{constants}|to|in|as|mod|of|x[0-9a-fA-F]+|b[01]+|E|{units.spelled()}"
    return f"^(?:{constants})?(?:{called}|{sign}(?:{word})?)*$"


def is_known(name: str) -> bool:
    """Whether a name means something by itself: a function, a constant, a unit, a word of the language."""
    words = (*functions.NAMES, *_CONSTANTS, *_CONVERSIONS, "mod", "of")
    return name in words or units.find(name) is not None


class _Parser:
    def __init__(self, read: list[Token], variables: Mapping[str, Quantity]) -> None:
        self._tokens, self._at, self._depth = read, 0, 0
        self._variables = variables

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._next
        self._at += token.kind != "end"
        return token

    def _took(self, *texts: str) -> bool:
        if self._next.kind in ("sign", "name") and self._next.text in texts:
            self._at += 1
            return True
        return False

    def expect(self, text: str, what: str) -> None:
        token = self._next
        if (token.text or token.kind) != text:
            raise self._complaint(f"{what} should be here", token)
        self._take()

    def _complaint(self, what: str, token: Token) -> CalculationError:
        where = f"{token.text!r} at character {token.place}" if token.text else "the end"
        return CalculationError(f"at {where}: {what}" if token.text else f"at the end: {what}")

    def _done(self, token: Token, work: Callable[[], Quantity]) -> Quantity:
        """Do a step; a complaint of arithmetic gets its place."""
        try:
            return work()
        except CalculationError as error:
            if str(error).startswith("at "):
                raise
            raise self._complaint(str(error), token) from None

    # --- levels, weakest first ---

    def conversion(self) -> Quantity:
        value = self._comparison()
        while self._next.text in _CONVERSIONS:
            token = self._take()
            unit = self._wanted()
            value = self._done(token, lambda v=value, u=unit: convert(v, u))  # type: ignore[misc]
        return value

    def _wanted(self) -> Unit:
        """The unit after `to`: one name, or several with powers between * and /."""
        begin = self._at
        first = self._take()
        if self._next.kind == "end" and first.kind == "name" and (unit := units.find(first.text)):
            return unit
        self._at = begin
        value = self._product()
        if value.unit is not None and value.unit.offset:
            raise self._complaint("a temperature scale stands alone", first)
        words = [token.text for token in self._tokens[begin : self._at]]
        if not all(
            word in ("*", "/", "^", "**", "(", ")", "-", "²", "³") or _is_measure(word) for word in words
        ):
            raise self._complaint("a unit should be here", first)
        return Unit(_spelled(words), value.number, value.dimension)

    def _comparison(self) -> Quantity:
        left = self._sum()
        if self._next.text in _COMPARISONS:
            token = self._take()
            right = self._sum()

            def compare() -> Quantity:
                alike(left, right, "a comparison")
                return Quantity(Fraction(0), truth=_COMPARISONS[token.text](left.number, right.number))

            return self._done(token, compare)
        return left

    def _sum(self) -> Quantity:
        value = self._product()
        while (token := self._next).text in ("+", "-") and token.kind == "sign":
            self._take()
            begin = self._at
            right = self._product()
            if self._is_percent(begin, self._at) and not self._is_percent(begin - 3, begin - 1):
                raise self._complaint("a percentage of what? Write 200 * 1.1, or 200 + 0.1", token)
            sign = 1 if token.text == "+" else -1
            value = self._done(token, lambda a=value, b=right, s=sign: plus(a, b, s))  # type: ignore[misc]
        return value

    def _is_percent(self, begin: int, end: int) -> bool:
        """Whether these tokens are a number with a percent sign, no more."""
        return begin >= 0 and end == begin + 2 and self._tokens[begin + 1].text == "%"

    def _product(self) -> Quantity:
        begin = self._at
        value = self._signed()
        while (token := self._next).text in ("*", "/", "%", "mod", "of") or self._adjacent():
            before = self._at
            step = {"/": over, "%": remainder, "mod": remainder}.get(token.text, times)
            if token.text in ("*", "/", "%", "mod", "of"):
                self._take()
            right = self._signed()
            if token.text == "/" and self._ambiguous(begin, before):
                raise self._complaint("this can be read in two ways: write (1/2) m or 1/(2 m)", token)
            value = self._done(token, lambda a=value, b=right, s=step: s(a, b))  # type: ignore[misc]
        return value

    def _adjacent(self) -> bool:
        """Whether what follows multiplies without a sign: `2(3 + 4)`, `2 pi`, `(1/2) m`."""
        token = self._next
        if token.text == "(":
            return True
        return token.kind == "name" and token.text not in _CONVERSIONS and token.text != "mod"

    def _ambiguous(self, begin: int, slash: int) -> bool:
        """`1/2 m`: a bare number over a number with a unit."""
        bare = slash == begin + 1 and self._tokens[begin].kind == "number"
        after = self._tokens[slash + 1 : self._at]
        return bare and len(after) > 1 and after[0].kind == "number" and after[1].kind == "name"

    def _signed(self) -> Quantity:
        token = self._next
        if token.text in ("-", "+") and token.kind == "sign":
            self._take()
            if self._next.kind == "number":  # so that -40 degF is a temperature
                return self._measured(-1 if token.text == "-" else 1)
            value = self._deeper(self._signed)
            return self._done(token, lambda: times(Quantity(Fraction(-1 if token.text == "-" else 1)), value))
        return self._measured()

    def _measured(self, sign: int = 1) -> Quantity:
        """A power; a number is taken together with the units that follow it, and `5 ft 3 in` is one length."""
        if self._next.kind != "number":
            return self._power()
        value = self._with_units(sign)
        while self._next.kind == "number" and value.dimension:
            here = self._next
            more = self._with_units(sign)
            value = self._done(here, lambda a=value, b=more: plus(a, b))  # type: ignore[misc]
        return value

    def _with_units(self, sign: int) -> Quantity:
        value = self._power()
        if sign < 0:
            value = times(Quantity(Fraction(-1)), value)
        while self._next.kind == "name" and self._is_unit():
            here = self._next
            scale = units.find(here.text) if value.unit is None and not value.dimension else None
            if scale is not None and scale.offset:
                self._take()
                number = apply(
                    arithmetic.add, [apply(arithmetic.multiply, [value.number, scale.factor]), scale.offset]
                )
                return Quantity(number, scale.dimension, scale)
            unit = self._power()
            value = self._done(here, lambda a=value, b=unit: times(a, b))  # type: ignore[misc]
        return value

    def _is_unit(self) -> bool:
        name, after = self._next.text, self._tokens[self._at + 1]
        if name in self._variables:
            return False
        if name == "in":  # an inch right after a number, else a conversion
            return self._tokens[self._at - 1].kind == "number" and not (
                after.kind == "name" and units.find(after.text) and after.text not in _CONVERSIONS
            )
        return (
            name not in _CONVERSIONS and name not in _CONSTANTS and name != "mod" and bool(units.find(name))
        )

    def _power(self) -> Quantity:
        base = self._postfix()
        token = self._next
        if token.text in ("²", "³"):
            self._take()
            return self._done(token, lambda: to_the(base, Quantity(Fraction(2 if token.text == "²" else 3))))
        if self._took("^", "**"):
            exponent = self._deeper(self._exponent)
            return self._done(token, lambda: to_the(base, exponent))
        return base

    def _exponent(self) -> Quantity:
        token = self._next
        if token.text in ("-", "+") and token.kind == "sign":
            self._take()
            value = self._deeper(self._exponent)
            return self._done(token, lambda: times(Quantity(Fraction(-1 if token.text == "-" else 1)), value))
        return self._power()

    def _postfix(self) -> Quantity:
        value = self._atom()
        while (token := self._next).kind == "sign" and (
            token.text == "!" or (token.text == "%" and self._percent())
        ):
            self._take()
            if token.text == "!":
                value = self._done(
                    token,
                    lambda v=value: Quantity(apply(functions.factorial, [plain(v, "!")])),  # type: ignore[misc]
                )
            else:
                value = self._done(token, lambda v=value: over(v, Quantity(Fraction(100))))  # type: ignore[misc]
        return value

    def _percent(self) -> bool:
        """Whether `%` is "percent": nothing that could be divided by follows."""
        after = self._tokens[self._at + 1]
        return not (
            after.kind == "number" or after.text == "(" or (after.kind == "name" and after.text != "of")
        ) or (after.text in _CONVERSIONS)

    def _atom(self) -> Quantity:
        token = self._take()
        if token.kind == "number":
            return self._done(token, lambda: Quantity(literal(token.text)))
        if token.text == "(":
            value = self._deeper(self.conversion)
            self.expect(")", "a closing parenthesis")
            return value
        if token.kind == "name":
            return self._named(token)
        raise self._complaint("a number should be here", token)

    def _named(self, token: Token) -> Quantity:
        name = token.text
        if name in self._variables:
            return self._variables[name]
        if self._next.text == "(" and (name in functions.NAMES):
            self._take()
            arguments = [self._deeper(self.conversion)]
            while self._took(","):
                arguments.append(self._deeper(self.conversion))
            self.expect(")", "a comma or a closing parenthesis")
            return self._done(token, lambda: functions.call(name, arguments))
        if name in _CONSTANTS:
            return Quantity(_CONSTANTS[name])
        unit = units.find(name)
        if unit is not None:
            if unit.offset:
                raise self._complaint("a temperature needs a number before it", token)
            return Quantity(unit.factor, unit.dimension, unit)
        known = [*functions.NAMES, *_CONSTANTS, *units.names()]
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        raise self._complaint(f"unknown name{f', did you mean {near[0]!r}?' if near else ''}", token)

    def _deeper(self, read: Callable[[], Quantity]) -> Quantity:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._complaint(f"nested deeper than {MAX_DEPTH}", self._next)
        value = read()
        self._depth -= 1
        return value


def _spelled(words: list[str]) -> str:
    """A compound unit as it was written, with a space where two names meet."""
    text = ""
    for word in words:
        text += f" {word}" if text and text[-1].isalnum() and word[0].isalpha() else word
    return text


def _is_measure(word: str) -> bool:
    return word.isdigit() or units.find(word) is not None
