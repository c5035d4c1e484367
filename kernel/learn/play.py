"""A round of self-improvement: questions, groups of answers, and what their differences teach.

What: the ladder says which tasks are drawn; each is answered several times, the answers are judged, and the strategy
    says what each was worth within its group.
Invariant: a round is a function of its number, of the rounds before it and of who answers. A group whose answers are
    all worth the same is counted and passed over; where there are no others, time after time, it is NoSignal.
Interface: `Play(arena=..., strategy=..., ...)`: `round(number, before, adapter)` -> `Round`; `ladder`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from llmos.abi.errors import NoSignal
from llmos.kernel.engine.sampling import Randomness
from llmos.kernel.learn.arena import Arena, Tried
from llmos.kernel.learn.domains import draw
from llmos.kernel.learn.ladder import Ladder, Tally
from llmos.kernel.learn.policy import Lesson, Strategy
from llmos.kernel.learn.rounds import Round

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter

Group = Sequence[Tried]
ENOUGH = 4  # questions are drawn again until one group in so many teaches something


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """Args:
    groups, count: questions that are drawn at a time, and answers to each.
    patience: times that they are drawn before it is said that nothing can be learnt.
    """

    arena: Arena
    strategy: Strategy
    groups: int
    count: int
    patience: int
    seed: int

    @property
    def ladder(self) -> Ladder:
        """Which levels are asked."""
        return Ladder(levels=self.arena.domain.levels, count=self.count)

    def round(self, number: int, before: Sequence[Tally], adapter: Adapter) -> Round:
        """Round `number`, answered with `adapter`.

        Raises:
            NoSignal: in every group all answers are worth the same.
            LearningError, EngineError: as `Arena.ask`.
        """
        began, tried, teach = time.monotonic(), list[Group](), list[Group]()
        for again in range(self.patience):
            so_far = [*before, tally(tried)] if tried else before
            tried += self._drawn(number, again, so_far, adapter)
            teach = [group for group in tried if len({one.verdict.reward for one in group}) > 1]
            if len(teach) * ENOUGH >= self.groups:
                break
        if not teach:
            raise _no_signal(number, tried)
        every = [one for group in tried for one in group]
        ranked = sorted(teach[0], key=lambda one: one.verdict.reward)
        return Round(
            number=number, adapter=adapter.version, answers=len(every),
            right=sum(one.verdict.reward >= 1 for one in every),
            reward=sum(one.verdict.reward for one in every),
            tokens=sum(len(one.drawn.tokens) for one in every),
            groups=len(tried), equal=len(tried) - len(teach),
            cut=sum(not one.drawn.ended for one in every),
            faults=sum(bool(one.verdict.fault) for one in every),
            fault=next((one.verdict.fault for one in every if one.verdict.fault), ""),
            tally=tally(tried), shown=(ranked[0].task.question, ranked[-1].text, ranked[0].text),
            seconds=time.monotonic() - began,
            lessons=tuple(lesson for group in teach for lesson in self._lessons(group)),
        )  # fmt: skip

    def _drawn(self, number: int, again: int, before: Sequence[Tally], adapter: Adapter) -> list[list[Tried]]:
        rng = Random(f"{self.seed}/{number}/{again}")
        shares = self.ladder.shares(before)
        levels = rng.choices(range(len(shares)), shares, k=self.groups)
        tasks = [draw(self.arena.domain, "train", level, rng) for level in levels]
        randomness = Randomness(self.seed).fork(number).fork(again)
        return self.arena.ask(tasks, self.count, randomness=randomness, adapter=adapter)

    def _lessons(self, group: Group) -> Iterator[Lesson]:
        worths = self.strategy.worths([one.verdict.reward for one in group])
        for one, worth in zip(group, worths, strict=True):
            if worth:
                yield Lesson((*one.prompt, *one.drawn.tokens), one.drawn.logprobs, worth)


def tally(tried: Sequence[Group]) -> dict[int, tuple[float, int]]:
    """By level: rewards together, and of how many answers."""
    out: dict[int, tuple[float, int]] = {}
    for group in tried:
        for one in group:
            reward, count = out.get(one.task.level, (0.0, 0))
            out[one.task.level] = (reward + one.verdict.reward, count + 1)
    return out


def _no_signal(number: int, tried: Sequence[Group]) -> NoSignal:
    verdicts = [one.verdict for group in tried for one in group]
    rewards = [verdict.reward for verdict in verdicts]
    same = min(rewards) == max(rewards)
    each = f"each got {rewards[0]:g}" if same else "within each group all got the same"
    why = f"of {len(rewards)} answers to {len(tried)} questions {each}"
    if faults := [verdict.fault for verdict in verdicts if verdict.fault]:
        why += f"; {len(faults)} could not be checked ({faults[-1]})"
    mastered = min(rewards) >= 1
    return NoSignal(
        f"nothing can be learnt from round {number}", why=why, mastered=mastered,
        do="choose harder levels: all is right" if mastered
        else "let it imitate the teacher first (--imitate), choose an easier domain, or draw more answers a group",
    )  # fmt: skip
