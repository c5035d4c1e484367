"""Questions that are asked together: who comes while others are served is served with those who wait beside.

What: a function of many questions, asked one by one from any thread. One thread serves at a time; when it is free, the
    first of those who wait takes all of them along.
Invariant: nobody waits for company: a question alone is answered at once. Each gets what it would have got alone; where
    a batch fails, each of it asks for itself, and gets its own error.
Interface: `Together(many)`: `.ask(question)`. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class _Asked(Generic[Q, A]):
    """A question, and its answer in a list once it is there."""

    def __init__(self, question: Q) -> None:
        self.question = question
        self.answer: list[A] = []


class Together(Generic[Q, A]):
    """Of one function."""

    def __init__(self, many: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        """`many` gives an answer for each question, in order."""
        self._many = many
        self._waiting: deque[_Asked[Q, A]] = deque()
        self._turn = threading.Lock()

    def ask(self, question: Q) -> A:
        """The answer; raises what `many` raises."""
        mine = _Asked[Q, A](question)
        self._waiting.append(mine)
        with self._turn:
            if not mine.answer:
                batch = [mine]
                while self._waiting:
                    if (other := self._waiting.popleft()) is not mine:
                        batch.append(other)
                try:
                    answers = self._many([asked.question for asked in batch])
                except Exception:
                    if len(batch) == 1:
                        raise
                    batch, answers = [mine], self._many([mine.question])
                for asked, answer in zip(batch, answers, strict=True):
                    asked.answer.append(answer)
        return mine.answer[0]
