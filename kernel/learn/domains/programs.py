"""Small programs, judged by tests that their author does not see.

What: a function over a list of numbers that does some steps one behind the other; a level has one step more than the
    one before. The answer is the function, bare or fenced; the reward is 1 where it passes every test.
Invariant: programs run in a sandbox (`kernel.think.trial`), which is given what the tests call and never what has to
    come out. Tests follow from the task. The teacher writes the steps down and slips in one, more often than not: it
    takes less for at most, the largest for the smallest, or forgets it.
Interface: `Programs(levels, lapse, tokens, seconds)`, a `Domain`; `done(steps, numbers)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from llmos.kernel.learn.domains import Task
from llmos.kernel.think.answers import code_in
from llmos.kernel.think.trial import same, values

TESTS = 8
DIFFERENT = 3  # results of a task's tests, at least: where all are alike, who always says the same is right
ALMOST = 0.2  # what a program is worth, at most, that fails some tests
LONGEST = 4000  # characters of a program


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to the list: as it is put, as training never puts it, as Python, as a slip of the teacher's, and
    itself. `{}` is a number of the task's."""

    says: str
    else_says: str
    code: str
    slip: str
    does: Callable[[list[int], int], list[int]]


@dataclass(frozen=True, slots=True)
class End:
    """What the function returns, likewise."""

    says: str
    else_says: str
    code: str
    slip: str
    does: Callable[[list[int]], object]


STEPS = {
    "above": Step("keeps the numbers above {}", "drops whatever is {} or less", "[x for x in xs if x > {}]",
                  "[x for x in xs if x >= {}]", lambda xs, n: [x for x in xs if x > n]),
    "below": Step("keeps the numbers below {}", "drops whatever is {} or more", "[x for x in xs if x < {}]",
                  "[x for x in xs if x <= {}]", lambda xs, n: [x for x in xs if x < n]),
    "add": Step("adds {} to each number", "raises every number by {}", "[x + {} for x in xs]",
                "[x - {} for x in xs]", lambda xs, n: [x + n for x in xs]),
    "times": Step("multiplies each number by {}", "makes every number {} times as large", "[x * {} for x in xs]",
                  "[x + {} for x in xs]", lambda xs, n: [x * n for x in xs]),
    "first": Step("takes the first {}", "cuts all behind the first {} off", "xs[:{}]", "xs[{}:]",
                  lambda xs, n: xs[:n]),
    "last": Step("takes the last {}", "cuts all before the last {} off", "xs[-{}:]", "xs[:{}]",
                 lambda xs, n: xs[-n:]),
    "multiples": Step("keeps the multiples of {}", "drops what {} does not divide", "[x for x in xs if x % {} == 0]",
                      "[x for x in xs if x % {} != 0]", lambda xs, n: [x for x in xs if x % n == 0]),
    "sorted": Step("sorts the numbers", "puts the numbers in order, the smallest first", "sorted(xs)",
                   "sorted(xs, reverse=True)", lambda xs, n: sorted(xs)),
    "reversed": Step("reverses the order", "turns the list around", "xs[::-1]", "sorted(xs)",
                     lambda xs, n: xs[::-1]),
    "unique": Step("drops repeated numbers, keeping the first of each", "leaves only the first of equal numbers",
                   "list(dict.fromkeys(xs))", "list(set(xs))", lambda xs, n: list(dict.fromkeys(xs))),
}  # fmt: skip
ENDS = {
    "list": End("returns the list", "hands the list back", "xs", "len(xs)", list),
    "sum": End("returns the sum", "hands back what they come to together", "sum(xs)", "len(xs)", sum),
    "count": End("returns how many are left", "hands back the number of those left", "len(xs)", "sum(xs)", len),
    "largest": End("returns the largest, or 0 if there is none", "hands back the greatest, 0 for an empty list",
                "max(xs, default=0)", "min(xs, default=0)", lambda xs: max(xs, default=0)),
}  # fmt: skip
SEEN = (
    "Write a Python function f(xs) that, given a list of whole numbers, {}.",
    "In Python: f(xs) takes a list of integers and {}.",
)
UNSEEN = ("I need Python code. The list xs goes into f, which {}.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Args:
    levels: that are trained: one step, two, ...
    lapse: how often the teacher slips.
    tokens: the most that an answer may take.
    seconds: that all tests of an answer may take.
    """

    levels: int = 3
    lapse: float = 0.6
    tokens: int = 128
    seconds: float = 4.0

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        while True:
            names, end = rng.sample(list(STEPS), level + 1), rng.choice(list(ENDS))
            numbered = ((name, rng.randint(2, 9) if "{}" in STEPS[name].says else 0) for name in names)
            steps: list[int | str] = [part for pair in numbered for part in pair]
            facts = (*steps, end)
            if len({str(done(facts, xs)) for xs in _tests(facts)}) >= DIFFERENT:
                break
        says = [(STEPS[n].else_says if unseen else STEPS[n].says).format(k) for n, k in _pairs(steps)]
        told = ", then ".join((*says, ENDS[end].else_says if unseen else ENDS[end].says))
        return Task(rng.choice(UNSEEN if unseen else SEEN).format(told), level, facts)

    def check(self, task: Task, answer: str) -> float:
        code = code_in(answer[:LONGEST])
        if code is None:
            return 0.0
        given = _tests(task.facts)
        found = values(code, [f"f({xs})" for xs in given], self.seconds)
        right = sum(map(same, found, (done(task.facts, xs) for xs in given)))
        return 1.0 if right == len(given) else ALMOST * right / len(given)

    def teach(self, task: Task, rng: Random) -> str:
        *steps, end = task.facts
        lines = len(steps) // 2
        slip = rng.randrange(lines + 1) if rng.random() < self.lapse else -1
        out = ["def f(xs):"]
        for place, (name, number) in enumerate(_pairs(steps)):
            step = STEPS[name]
            out.append(f"    xs = {(step.slip if place == slip else step.code).format(number)}")
        returned = ENDS[str(end)]
        out.append(f"    return {returned.slip if slip == lines else returned.code}")
        return "\n".join(out)


def done(steps: Sequence[int | str], numbers: Sequence[int]) -> object:
    """What a task's function has to return."""
    xs = list(numbers)
    for name, number in _pairs(steps[:-1]):
        xs = STEPS[name].does(xs, number)
    return ENDS[str(steps[-1])].does(xs)


def _pairs(steps: Sequence[int | str]) -> list[tuple[str, int]]:
    return [(str(name), int(number)) for name, number in zip(steps[::2], steps[1::2], strict=True)]


def _tests(facts: Sequence[int | str]) -> list[list[int]]:
    """Lists to try a program on: an empty one, and longer ones with repetitions."""
    rng = Random(repr(tuple(facts)))
    return [[], *([rng.randint(-9, 20) for _ in range(rng.randint(3, 14))] for _ in range(TESTS - 1))]
