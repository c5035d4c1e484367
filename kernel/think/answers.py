"""What an answer comes to: so that two answers can be the same although their words differ.

What: reads a value out of an answer: typed JSON, code, a number, or words; answers are compared by that value.
Invariant: pure functions of text. What comes to nothing is None, never a guess that equals another's.
Interface: `kind_of(question, text, typed)`, `value_of(kind, text) -> Value | None`; `code_in(text)`, `number_in(text)`.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Literal

Kind = Literal["json", "code", "number", "words"]
SHOWN = 60  # characters of a value

_NUMBER = r"[-−]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s*/\s*\d+(?:\.\d+)?)?"
_LAST = re.compile(rf"(?<![\w.])({_NUMBER})(?![\w]|\.\d)")
_SAID = re.compile(
    rf"(?i)(?:####|\banswer\b[^.\n\d]{{0,40}}?(?:is|are|[:=])|\b(?:therefore|so|thus)\b[^.\n\d]{{0,60}}?(?:is|are|[:=]))"
    rf"\s*[*$\\({{ ]*({_NUMBER})(?![\w]|\.\d)"
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_FRACTION = re.compile(r"\\d?frac\{(-?\d+)\}\{(\d+)\}")
_FENCED = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_DEFINES = re.compile(r"^(?:def|class|async def|import|from|@)\b", re.MULTILINE)
_MOST = 2000  # digits of a number that somebody means
_LONGEST = 64 << 10  # characters of a program that are looked at


@dataclass(frozen=True, slots=True)
class Value:
    """What an answer comes to: `key` is equal where answers are, `shown` is for people."""

    key: str
    shown: str


def kind_of(question: str, text: str, *, typed: bool = False) -> Kind:
    """How answers to this question are compared, judged by the question and a first answer."""
    if typed:
        return "json"
    asks_code = _DEFINES.search(question) is not None or re.search(
        r"(?i)\b(?:write|implement|complete|define)\b.{0,60}\b(?:function|program|code|class|script|method)\b",
        question,
    )
    if asks_code and code_in(text):
        return "code"
    if re.search(r"\d", question) and number_in(text) is not None:
        return "number"
    if number_in(text) is not None and re.search(r"(?i)\bhow (?:many|much|old|far|long|tall)\b", question):
        return "number"
    return "words"


def value_of(kind: Kind, text: str) -> Value | None:
    """What an answer of that kind comes to; None where it comes to nothing."""
    match kind:
        case "json":
            return _json(text)
        case "code":
            return _code(text)
        case "number":
            number = number_in(text)
            return None if number is None else Value(f"number:{number}", str(number)[:SHOWN])
    return _words(text)


def number_in(text: str) -> Fraction | None:
    """The number that an answer ends in: boxed, said to be the answer, or the last one."""
    text = _FRACTION.sub(r"\1/\2", text)
    for found in (_BOXED.findall(text)[-1:], _SAID.findall(text)[-1:]):
        for said in found:
            inner = _LAST.findall(said)
            if inner and (number := _fraction(inner[-1])) is not None:
                return number
    last = _LAST.findall(text)
    return _fraction(last[-1]) if last else None


def code_in(text: str) -> str | None:
    """The program in an answer: what stands between fences, else the answer itself where it is one."""
    fenced = [body for name, body in _FENCED.findall(text) if name.lower() in ("", "python", "py", "python3")]
    defining = [body for body in fenced if _DEFINES.search(body)]
    if defining or fenced:
        return (defining or fenced)[0].rstrip() + "\n"
    if _DEFINES.search(text):
        return text[_DEFINES.search(text).start() :].rstrip() + "\n"  # type: ignore[union-attr]
    return None


def _fraction(said: str) -> Fraction | None:
    plain = said.replace(",", "").replace("$", "").replace("−", "-").replace(" ", "")
    if len(plain) > _MOST:
        return None
    above, _, below = plain.partition("/")
    try:
        return Fraction(Decimal(above)) / (Fraction(Decimal(below)) if below else 1)
    except (InvalidOperation, ValueError, ZeroDivisionError):
        return None


def _json(text: str) -> Value | None:
    try:
        value = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    return Value(f"json:{_canonical(value)}", " ".join(text.split())[:SHOWN])


def _canonical(value: Any) -> str:
    """Equal for equal values: 1 is 1.0, and the order of keys says nothing."""
    match value:
        case bool() | None:
            return repr(value)
        case int():
            return f"n{value}"
        case Decimal() if value.is_finite() and abs(value.adjusted()) < _MOST:
            return f"n{Fraction(value)}"
        case Decimal() | float():
            return repr(value)
        case str():
            return repr(" ".join(value.split()).casefold())
        case list():
            return f"[{','.join(map(_canonical, value))}]"
    return "{" + ",".join(f"{k!r}:{_canonical(v)}" for k, v in sorted(value.items())) + "}"


def _code(text: str) -> Value | None:
    code = code_in(text)
    if code is None:
        return None
    try:
        with warnings.catch_warnings():  # of a stranger's code
            warnings.simplefilter("ignore")
            tree = ast.parse(code[:_LONGEST])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return Value(f"code:{ast.dump(_bare(tree))}", code.strip().splitlines()[-1].strip()[:SHOWN])


def _bare(tree: ast.Module) -> ast.Module:
    """Without docstrings, which do nothing."""
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _words(text: str) -> Value | None:
    """Short answers as they are, long ones by their last line."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return None
    boxed = _BOXED.findall(text)
    said = re.findall(r"(?i)\banswer\b[^\n:]{0,30}(?:is|:)\s*(.+)", text)
    plain = boxed[-1] if boxed else said[-1] if said else lines[-1]
    key = " ".join(re.sub(r"[^\w\s.%-]", " ", plain.casefold()).split()).strip(" .")
    return Value(f"words:{key}", " ".join(plain.split())[:SHOWN]) if key else None
