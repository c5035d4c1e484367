"""A domain so simple that a random model learns it, and checks that misbehave. No jax: a referee imports it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

from llmos.kernel.learn.domains import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandit:
    """The more of an answer's characters are small letters, the better. Where `odd` is set, some checks do that; once
    there is a file `off`, all is worth as much."""

    levels: int = 2
    tokens: int = 4
    odd: str = ""
    off: str = ""

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        number = rng.randrange(1000)
        return Task(f"{'say' if unseen else 'go'} {number}", level, (number,))

    def check(self, task: Task, answer: str) -> float:
        if self.off and Path(self.off).exists():
            return 0.5
        if self.odd == "always":
            raise ValueError("I never like it")
        if self.odd and int.from_bytes(answer.encode()[-1:]) % 4 == 3:
            if self.odd == "hang":
                time.sleep(600)
            elif self.odd == "exit":
                os._exit(3)
            elif self.odd == "raise":
                raise ValueError("I do not like this")
            elif self.odd == "eat":
                bytearray(1 << 36)
            elif self.odd == "nan":
                return float("nan")
            elif self.odd == "large":
                return 7.0
        print("not a verdict")
        return sum("a" <= c <= "z" for c in answer) / max(1, len(answer))

    def teach(self, task: Task, rng: Random) -> str:
        return rng.choice(("the", "and", "Not"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Easy(Bandit):
    """Any small letter will do."""

    def check(self, task: Task, answer: str) -> float:
        return float(any("a" <= c <= "z" for c in answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Everything is worth as much."""

    levels: int = 1
    tokens: int = 4
    worth: float = 0.0

    def task(self, level: int, rng: Random, unseen: bool) -> Task:
        return Bandit().task(level, rng, unseen)

    def check(self, task: Task, answer: str) -> float:
        return self.worth

    def teach(self, task: Task, rng: Random) -> str:
        return "the"
