"""Who judges an answer.

What: frozen strategies, each with one method `check(mind, candidate)`: how good an answer is, from 0 to 1.
Invariant: a verifier that fails, hangs or has nothing to say says nothing (None): it never ends a turn, and never makes
    an answer look better. It calls what only calculates or reads, by a grant of its own that the monitor sees; its
    words join the label of what they help to choose.
Interface: `Sums` (the calculator, on what the answer says is equal), `Makes` (the calculator, on an expression that has
    to come to a number), `Examples` (a sandbox, on a program), `Judge` (the model, on itself); `Verifier`,
    `AnyVerifier`.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field

from llmos.kernel.think.answers import code_in, number_in

if TYPE_CHECKING:
    from llmos.kernel.think.candidates import Candidate
    from llmos.kernel.think.mind import Mind

STRICT = ConfigDict(extra="forbid")
CALCULATE = "calculator.evaluate"
MOST = 40  # calculations that one answer is checked for
_EQUALS = re.compile(r"=\s*\$?(?P<right>[-−]?\d[\d,]*(?:\.\d+)?)(?!\d|\.\d|\s*[-+*/×÷^(])")
_TERMS = frozenset("0123456789.,%+-*/×÷·^()−$ \t")
_LEFT = 160  # characters of an expression
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "$": None, "\\": None, ",": None})
_LATEX = (("\\times", "*"), ("\\cdot", "*"), ("\\div", "/"), ("\\left", ""), ("\\right", ""), ("\\,", ""))


class Verifier(Protocol):
    """Whoever judges."""

    exact: ClassVar[bool]
    """What it finds perfect is right as far as anybody can tell: there is no need to look on."""

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        """How good, 0 to 1; None where it has nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What an answer says is equal, the calculator is asked for: `12 * 7 = 84`. The share that is."""

    kind: Literal["sums"] = "sums"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    exact: ClassVar[bool] = False

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        said = list(dict.fromkeys(equations_in(candidate.reasoning)))[:MOST]
        found = await asyncio.gather(*(_holds(mind, left, right) for left, right in said))
        known = [held for held in found if held is not None]
        if not known:
            return None
        if wrong := [
            f"{left.strip()} is not {right}"
            for (left, right), held in zip(said, found, strict=True)
            if held is False
        ]:
            candidate.note = wrong[0]
        return sum(known) / len(known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Makes:
    """An expression that comes to `target` and uses `numbers`: each once, or with `some`, each at most once."""

    target: int
    numbers: tuple[int, ...]
    some: bool = False
    kind: Literal["makes"] = "makes"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    exact: ClassVar[bool] = True

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        given = Counter(self.numbers)
        expressions = list(dict.fromkeys(expressions_in(candidate.text)))[:MOST]
        candidate.note = "there is no expression in it"
        for expression in expressions:  # the last that uses the numbers as asked is what it says
            used = Counter(int(n) for n in re.findall(r"\d+", expression))
            if used == given or (self.some and used <= given):
                value = await mind.calculate(expression)
                candidate.note = f"{expression} is {'nothing' if value is None else value}"
                return 1.0 if value == self.target else 0.5
        if expressions:
            candidate.note = f"{expressions[0]} does not use the numbers as asked"
        return 0.2 if expressions else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """A program is run on examples: (expression, what it has to equal). The share that it passes. Without any, those
    that the question gives."""

    examples: tuple[tuple[str, str], ...] = ()
    seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    kind: Literal["examples"] = "examples"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    exact: ClassVar[bool] = True

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        from llmos.kernel.think.trial import examples_in, passed

        examples = self.examples or examples_in(mind.question)
        code = code_in(candidate.text)
        if not examples:
            return None
        if code is None:
            candidate.note = "there is no program in it"
            return 0.0
        count = await asyncio.to_thread(passed, code, examples, self.seconds)
        if count < len(examples):
            candidate.note = f"it passes {count} of {len(examples)} examples"
        return count / len(examples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """The model itself: how likely it says "correct" when it is shown the answer."""

    kind: Literal["judge"] = "judge"
    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    exact: ClassVar[bool] = False

    async def check(self, mind: Mind, candidate: Candidate) -> float | None:
        (found,) = await mind.believe([candidate])
        return found


AnyVerifier = Annotated[Sums | Makes | Examples | Judge, Field(discriminator="kind")]


def equations_in(text: str) -> Iterator[tuple[str, str]]:
    """(expression, number) of every `expression = number` that a text says."""
    for before, after in _LATEX:
        text = text.replace(before, after)
    text = re.sub(r"\\d?frac\{([\d.]+)\}\{([\d.]+)\}", r"(\1/\2)", text)
    for match in _EQUALS.finditer(text):
        begin = match.start()
        while begin and match.start() - begin < _LEFT and text[begin - 1] in _TERMS:
            begin -= 1
        left = text[begin : match.start()].translate(_SIGNS)
        left = re.sub(r"^\s*(?:\d+\.\s+|-\s+)+", "", left).lstrip(" \t.*/+^)%").rstrip(" \t.*/+^-(")
        while left.startswith("(") and left.count("(") > left.count(")"):
            left = left[1:].strip()
        if re.search(r"\d\s*%?\)*\s*[-+*/^]\s*[(\d]", left):
            yield left, match["right"].translate(_SIGNS)


def expressions_in(text: str) -> Iterator[str]:
    """Everything in a text that may be an expression, the last first."""
    for before, after in _LATEX:
        text = text.replace(before, after)
    for line in reversed(text.translate(_SIGNS).splitlines()):
        for part in reversed(re.split(r"=|[^-+*/(). \d]", line)):
            plain = part.strip(" .")
            if re.search(r"\d\s*[-+*/]", plain) and plain.count("(") == plain.count(")"):
                yield plain


async def _holds(mind: Mind, left: str, right: str) -> bool | None:
    """Whether an equation does, up to how far its right side was rounded."""
    value, said = await mind.calculate(left), number_in(right)
    if value is None or said is None:
        return None
    places = len(right.partition(".")[2])
    return abs(value - said) <= Fraction(1, 2 * 10**places) if places else value == said
