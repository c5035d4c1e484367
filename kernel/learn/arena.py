"""The arena: a model is asked tasks of a domain, and its answers are judged.

What: an engine that answers, a referee that judges, and the words between them.
Invariant: who is measured on held-out tasks is measured on the same ones whatever the seed of his training. The teacher
    is measured on them too. A referee that fails time after time ends the run: it is not the answers then.
Interface: `Arena(weights, domain, window)`: `ask(tasks, count, ...)` -> `Tried`s, `marks(...)`,
    `marks_of_teacher(...)`; `Mark`, one held-out set's result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING

from llmos.abi.errors import LearningError
from llmos.kernel.engine.sampling import Randomness
from llmos.kernel.learn.data import Conversations
from llmos.kernel.learn.domains import HELD_OUT, Domain, Split, Task, draw
from llmos.kernel.learn.referee import SECONDS, Referee, Verdict
from llmos.kernel.learn.sampling import Drawn, Sampler

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.model.parameters import Mode

FAULTS = 12  # checks that may fail one behind the other


@dataclass(frozen=True, slots=True)
class Tried:
    """One answer to a task: its tokens behind the question's, its text, and what it was judged."""

    task: Task
    prompt: tuple[int, ...]
    drawn: Drawn
    text: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Mark:
    """What came of a held-out set: answers that are right, of how many, their mean reward and length in tokens."""

    split: Split
    right: int
    of: int
    reward: float
    tokens: float

    @property
    def share(self) -> float:
        return self.right / self.of


class Arena:
    """See the module. Not thread-safe."""

    def __init__(
        self,
        weights: Weights,
        domain: Domain,
        window: int,
        *,
        mode: Mode = "native",
        seconds: float = SECONDS,
    ) -> None:
        """`window`: tokens of the longest question and answer; `seconds`: for checking one answer."""
        self.domain = domain
        self._conversations = Conversations(weights, window)
        self._tokenizer = self._conversations.tokenizer
        self._referee = Referee(domain, seconds)
        self._faults = 0
        self.sampler = Sampler(weights, window=window, mode=mode)

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and the referee."""
        self._referee.close()
        self.sampler.close()

    def ask(
        self,
        tasks: Sequence[Task],
        count: int,
        *,
        randomness: Randomness,
        adapter: Adapter | None = None,
        greedy: bool = False,
    ) -> list[list[Tried]]:
        """`count` answers to each task, judged.

        Raises:
            LearningError: the referee fails time after time, or cannot be started.
            EngineError: a question and its answer do not fit the window.
        """
        prompts = [
            tuple(self._conversations.prompt([{"role": "user", "content": task.question}])) for task in tasks
        ]
        drawn = self.sampler.draw(
            prompts, count, tokens=self.domain.tokens, randomness=randomness, adapter=adapter, greedy=greedy
        )
        return [
            [self._tried(task, prompt, one) for one in group]
            for task, prompt, group in zip(tasks, prompts, drawn, strict=True)
        ]

    def marks(
        self, count: int, *, seed: int = 0, adapter: Adapter | None = None, greedy: bool = True
    ) -> tuple[Mark, ...]:
        """How a model does on `count` tasks of each held-out set: its likeliest answers, or drawn ones."""
        made = []
        for number, split in enumerate(HELD_OUT):
            tasks = held_out(self.domain, split, count)
            randomness = Randomness(seed).fork(number)
            groups = self.ask(tasks, 1, randomness=randomness, adapter=adapter, greedy=greedy)
            tried = [one for group in groups for one in group]
            lengths = [len(one.drawn.tokens) for one in tried]
            made.append(_mark(split, [one.verdict.reward for one in tried], lengths))
        return tuple(made)

    def marks_of_teacher(self, count: int, *, seed: int = 0) -> tuple[Mark, ...]:
        """The same of the teacher."""
        made = []
        for split in HELD_OUT:
            tasks = held_out(self.domain, split, count)
            answers = [self.domain.teach(task, Random(f"{seed}/{i}")) for i, task in enumerate(tasks)]
            judged = [self._judge(task, answer) for task, answer in zip(tasks, answers, strict=True)]
            lengths = [len(self._tokenizer.encode(answer)) for answer in answers]
            made.append(_mark(split, [verdict.reward for verdict in judged], lengths))
        return tuple(made)

    def _tried(self, task: Task, prompt: tuple[int, ...], drawn: Drawn) -> Tried:
        said = drawn.tokens[:-1] if drawn.ended else drawn.tokens
        text = b"".join(map(self._tokenizer.visible_bytes, said)).decode("utf-8", "replace")
        return Tried(task, prompt, drawn, text, self._judge(task, text))

    def _judge(self, task: Task, answer: str) -> Verdict:
        verdict = self._referee.judge(task, answer)
        self._faults = self._faults + 1 if verdict.fault else 0
        if self._faults >= FAULTS:
            raise LearningError(
                f"the domain's check failed on {FAULTS} answers one behind the other", why=verdict.fault,
                do="mend the check; a single answer that it fails on would count as wrong",
            )  # fmt: skip
        return verdict


def held_out(domain: Domain, split: Split, count: int) -> list[Task]:
    """The tasks of a held-out set, levels in turns."""
    return [draw(domain, split, i % domain.levels, Random(f"held out/{split}/{i}")) for i in range(count)]


def _mark(split: Split, rewards: Sequence[float], lengths: Sequence[int]) -> Mark:
    of = len(rewards)
    return Mark(split, sum(r >= 1 for r in rewards), of, sum(rewards) / of, sum(lengths) / of)
