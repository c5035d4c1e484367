"""Countdown and the Game of 24: make a number out of others.

What: numbers and a goal; the answer is an expression that uses each number once and comes to the goal.
Invariant: every task can be solved; whether an answer solves it is computed exactly, by a parser that knows four
    operations and nothing else. The teacher looks a short while and then writes down what it has.
Interface: `Countdown(levels, least, most, goal, looks)`, a `Domain`; `value(expression)`.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from llmos.kernel.learn.domains import Task

SEEN = (
    "Use {} once each, with + - * /, to make {}.",
    "Make {1} out of {0}: each number once, with + - * /.",
    "Numbers: {}. Goal: {}. Each number once, with + - * /.",
)
UNSEEN = ("Combine {} by + - * / so that the result is {}; every number has to be used exactly once.",)
LONGEST = 120  # characters of an expression
ALMOST = 0.1  # what an expression is worth that uses the numbers as asked and misses the goal
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "x": "*"})
_EXPRESSION = re.compile(r"[-+*/() \d]*\d[-+*/() \d]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Countdown:
    """Args:
    levels: that are trained: `least` numbers, one more, ...
    most: the largest number that is given.
    goal: the same for all tasks (24); 0: one of its own for each, up to 99.
    looks: expressions that the teacher tries.
    tokens: the most that an answer may take.
    """

    levels: int = 2
    least: int = 2
    most: int = 9
    goal: int = 0
    looks: int = 6
    tokens: int = 32

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        while True:
            numbers = [rng.randint(1, self.most) for _ in range(self.least + level)]
            _, made = _expression(numbers, rng)
            if made is not None and (made == self.goal if self.goal else 0 < made < 100):
                break
        given = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        question = rng.choice(UNSEEN if unseen else SEEN).format(given, made)
        return Task(question, level, (made, *sorted(numbers)))

    def check(self, task: Task, answer: str) -> float:
        goal, *numbers = map(int, task.facts)
        best = 0.0
        for line in answer.strip().splitlines()[-1:]:
            for part in line.translate(_SIGNS).split("="):
                for said in _EXPRESSION.findall(part):
                    if Counter(map(int, re.findall(r"\d+", said))) == Counter(numbers):
                        best = max(best, 1.0 if value(said) == goal else ALMOST)
        return best

    def teach(self, task: Task, rng: Random) -> str:
        goal, *numbers = map(int, task.facts)
        for _ in range(self.looks):
            said, made = _expression(numbers, rng)
            if made == goal:
                break
        return f"{said} = {goal}"


def value(expression: str) -> Fraction | None:
    """What an expression of whole numbers, + - * / and brackets comes to; None where it is none."""
    if len(expression) > LONGEST or not re.fullmatch(r"[-+*/() \d]*", expression):
        return None
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int(number)):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left), _value(right)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError("no expression of whole numbers")


def _expression(numbers: Sequence[int], rng: Random) -> tuple[str, int | None]:
    """A random expression that uses each number once, and what it comes to; None where that is no whole number."""
    parts: list[tuple[str, int | None]] = [(str(n), n) for n in numbers]
    while len(parts) > 1:
        a, x = parts.pop(rng.randrange(len(parts)))
        b, y = parts.pop(rng.randrange(len(parts)))
        sign = rng.choice("+-*" if parts else "+-*/")  # a quotient stands by itself
        assert x is not None and y is not None
        made = {"+": x + y, "-": x - y, "*": x * y, "/": x // y if y and x % y == 0 else None}[sign]
        parts.append((f"({a} {sign} {b})", made))
    text, made = parts[0]
    return text[1:-1], made
