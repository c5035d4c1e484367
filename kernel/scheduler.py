"""The scheduler: whose tokens the next step computes.

What: classes, fair shares by virtual token time inside a class, and a smaller step while somebody waits for
    the next word.
Invariant: a higher class is served first, but never the whole of a step for long: `FLOOR` of its budget stays
    with the classes below while they have work. Inside a class goes first who has had the least (virtual time
    counts every token that was computed). Everyone's next token goes before the rest of anyone's prompt, so a
    prompt delays no word of its class, and words of a crowd larger than a step keep no prompt waiting for ever.
    Newcomers start at their class's clock, so nobody saves up time by sleeping.
Interface: `Priority`, `Scheduler.plan(runnable, budget, latency_budget) -> [(task, tokens)]`, `charge`, `rank`.
    Source: start-time fair queueing (Goyal, Vin, Cheng 1996), with tokens for time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Protocol, TypeVar

FLOOR = 8  # a step's budget divided by this is what lower classes keep


class Priority(IntEnum):
    """A process's class; the least number is served first."""

    REALTIME = 0
    INTERACTIVE = 1
    BATCH = 2


class Task(Protocol):
    """What is scheduled: something that is `behind` by so many tokens."""

    priority: Priority
    vtime: float  # tokens computed, on the clock of its class; below 0 until it is first planned
    arrival: int

    @property
    def behind(self) -> int: ...


T = TypeVar("T", bound=Task)


class Scheduler:
    """Keeps a clock for each class."""

    def __init__(self) -> None:
        self._clocks = dict.fromkeys(Priority, 0.0)

    def plan(self, runnable: Iterable[T], budget: int, latency_budget: int) -> list[tuple[T, int]]:
        """Who may compute how many tokens, at most, in the order in which they are served.

        Args:
            budget: tokens in one step.
            latency_budget: the same while a process above batch decodes: its next word waits for the step.
        """
        order = sorted(runnable, key=lambda t: (t.priority, self._enter(t), t.arrival))
        if any(t.priority < Priority.BATCH and t.behind == 1 for t in order):
            budget = min(budget, latency_budget)
        left = {p: sum(t.behind for t in order if t.priority == p) for p in Priority}
        planned: list[tuple[T, int]] = []
        for priority in Priority:
            below = sum(left[p] for p in Priority if p > priority)
            share = budget - min(below, budget // FLOOR)
            served = _serve([t for t in order if t.priority == priority], share)
            budget -= sum(count for _, count in served)
            planned += served
        for priority in Priority:  # the clock is the least time of those who are here
            times = [t.vtime for t in order if t.priority == priority]
            self._clocks[priority] = max(self._clocks[priority], min(times, default=0.0))
        return planned

    def charge(self, task: Task, tokens: int) -> None:
        """Note that `task` has had so many tokens."""
        task.vtime += tokens

    def _enter(self, task: Task) -> float:
        if task.vtime < 0:
            task.vtime = self._clocks[task.priority]
        return task.vtime


def _serve(tasks: Sequence[T], budget: int) -> list[tuple[T, int]]:
    """A token each, in order, for as many as there are; what is left goes to those who are further behind."""
    served = tasks[: max(budget, 0)]
    budget -= len(served)
    planned = []
    for task in served:
        more = min(task.behind - 1, budget)
        planned.append((task, 1 + more))
        budget -= more
    return planned


def rank(task: Task) -> tuple[int, int]:
    """Who may take pages from whom: the greater rank gives, the lowest class and in it the latest come first."""
    return task.priority, task.arrival


def victims(tasks: Sequence[T], above: Task) -> list[T]:
    """Those of `tasks` that must make room for `above`, the first to go last."""
    return sorted((t for t in tasks if rank(t) > rank(above)), key=rank)
