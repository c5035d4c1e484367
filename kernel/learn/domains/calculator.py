"""Problems in words, answered by a call of the calculator: the arithmetic is the machine's, what to ask it is learnt.

What: a story of several steps; the answer is one call of `calculator.evaluate` as JSON, whose expression has to come to
    what the story asks for.
Invariant: the expression is computed exactly. The teacher writes the steps down as they come and, more often than not,
    forgets the brackets that a later multiplication or division needs.
Interface: `Calculator(levels, most, lapse)`, a `Domain`; `expression_of(answer)`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from llmos.kernel.learn.domains import Task
from llmos.kernel.learn.domains.countdown import value

SYSCALL = "calculator.evaluate"
LONGEST = 1000  # characters of an answer that are looked at
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn")
SEEN = {
    "begins": "{} has {} {}.",
    "+": "{} more arrive.",
    "-": "{} are given away.",
    "*": "Then there are {} times as many.",
    "/": "They are shared equally among {}, who take a share each.",
    "asks": "How many {} is that in the end?",
}
UNSEEN = {
    "begins": "{} starts out with {} {}.",
    "+": "After that {} are added.",
    "-": "After that {} get lost.",
    "*": "The number then grows {}-fold.",
    "/": "The rest is split evenly into {} boxes, one of which is kept.",
    "asks": "Ask the calculator for the number of {} at last.",
}
THINGS = ("apples", "stamps", "pencils", "coins", "cards")
HINT = 'Answer with a call: {"name": "calculator.evaluate", "arguments": {"expression": "..."}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculator:
    """Args:
    levels: that are trained: two steps, three, ...
    most: the largest number of a story.
    lapse: how often the teacher forgets brackets.
    tokens: the most that an answer may take.
    """

    levels: int = 3
    most: int = 50
    lapse: float = 0.6
    tokens: int = 64

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        says = UNSEEN if unseen else SEEN
        thing, total = rng.choice(THINGS), rng.randint(2, self.most)
        facts: list[int | str] = [total]
        told = [says["begins"].format(rng.choice(NAMES), total, thing)]
        for _ in range(level + 2):
            adds = [("+", rng.randint(2, self.most))]
            if total > 2:
                adds.append(("-", rng.randint(1, total - 1)))
            times = [("*", rng.randint(2, 9)), *[("/", k) for k in range(2, 10) if total % k == 0][:1]]
            behind_a_sum = facts[-2:-1] in (["+"], ["-"])
            sign, number = rng.choice(times if rng.random() < (0.8 if behind_a_sum else 0.2) else adds)
            total = {"+": total + number, "-": total - number, "*": total * number, "/": total // number}[
                sign
            ]
            facts += [sign, number]
            told.append(says[sign].format(number))
        return Task(" ".join((*told, says["asks"].format(thing), HINT)), level, tuple(facts))

    def check(self, task: Task, answer: str) -> float:
        expression = expression_of(answer[:LONGEST])
        return float(expression is not None and value(expression) == value(written(task, brackets=True)))

    def teach(self, task: Task, rng: Random) -> str:
        expression = written(task, brackets=rng.random() >= self.lapse)
        return json.dumps({"name": SYSCALL, "arguments": {"expression": expression}})


def written(task: Task, brackets: bool) -> str:
    """A story's expression, with the brackets that it needs or without any."""
    out, *steps = map(str, task.facts)
    for sign, number in zip(steps[::2], steps[1::2], strict=True):
        needs = brackets and sign in "*/" and any(s in out for s in "+-")
        out = f"({out}) {sign} {number}" if needs else f"{out} {sign} {number}"
    return out


def expression_of(answer: str) -> str | None:
    """What an answer asks the calculator; None where it is no call of it."""
    begin, end = answer.find("{"), answer.rfind("}")
    try:
        call = json.loads(answer[begin : end + 1])
        if call["name"] == SYSCALL and set(call["arguments"]) == {"expression"}:
            return str(call["arguments"]["expression"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None
