"""From text to tokens, and from digits to numbers.

What: numbers, names and signs with their places; several spellings of a sign become one.
Invariant: every character is part of a token or of a complaint that names it.
Interface: `tokens(text) -> list[Token]`, `literal(text) -> Fraction`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from llmos.apps.calculator.arithmetic import MAX_DIGITS, CalculationError

MAX_EXPONENT = MAX_DIGITS  # of a literal such as 1e9

_SPELLINGS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "≤": "<=", "≥": ">=", "≠": "!="}
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+"
    r"|(?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?(?![\d.]))"
    r"|(?P<name>[^\W\d_][\w]*|°[CF]?)"
    r"|(?P<sign>\*\*|==|!=|<=|>=|->|[-+*/^%!()<>=,²³]))"
)
_GROUPS = re.compile(r"(?<![\w.,])\d{1,3}(?:,\d{3})+(?![\d,])")


@dataclass(frozen=True, slots=True)
class Token:
    kind: str  # "number", "name", "sign" or "end"
    text: str
    place: int  # counted from 1


def tokens(text: str) -> list[Token]:
    """The tokens of an expression, the last of them the end; CalculationError for what cannot be read."""
    text = text.translate(_SPELLINGS)
    if "(" not in text:  # elsewhere commas separate arguments
        text = _GROUPS.sub(lambda found: found[0].replace(",", "_"), text)
    found, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            rest = text[at:].lstrip()
            raise CalculationError(f"{rest[:10]!r} at character {len(text) - len(rest) + 1} cannot be read")
        found.append(Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
        at = match.end()
    return [*found, Token("end", "", len(text) + 1)]


def literal(text: str) -> Fraction:
    """The number that a token writes; CalculationError where it is too long."""
    lower = text.lower().replace("_", "")
    if lower.startswith(("0x", "0b")):
        digits = lower[2:]
        if not digits:
            raise CalculationError("a number without digits")
        return Fraction(int(digits, 16 if lower[1] == "x" else 2))
    exponent = lower.partition("e")[2]
    if exponent and (len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT):
        raise CalculationError(f"an exponent beyond {MAX_EXPONENT}")
    return Fraction(lower.rstrip("."))
