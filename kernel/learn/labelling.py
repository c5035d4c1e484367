"""Labelling with the machine's help: who writes, who checks, who picks.

What: goes through questions and has each answered to written instructions, by a person, by the machine, or by both: a
    slider (`Help`) says how much the machine does. Keeps who did what, whether they agreed, and how long it took.
Invariant: an answer is on the disk before the next question is shown; who stops or is killed goes on there. What the
    machine wrote never counts as a person's. Nobody's answer is replaced.
Interface: `Labels(path)`: `add`, `done`, `agreement`, `seconds`; `label(items, labels, machine, person, help)`;
    `conversations(labels)` and `pairs(labels)`, the rows of the two kinds of data sets.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from llmos.abi.errors import BadExamples
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.poison import asked_of
from llmos.memory.disk import disk_errors

DRAFTS = 3  # that are ranked
Messages = Sequence[Mapping[str, str]]


class Help(IntEnum):
    """How much the machine does, from nothing to everything."""

    NONE = 0  # the person writes
    CHECKS = 25  # the person writes, the machine says what is wrong with it
    DRAFTS = 50  # the machine writes, the person keeps or edits it
    RANKS = 75  # the machine writes several and says which is best, the person picks
    ALL = 100  # the machine writes several and picks; the person is asked nothing


class Machine(Protocol):
    """What writes, ranks and checks, to the same instructions as the person."""

    def draft(self, asked: Messages, count: int) -> Sequence[str]: ...

    def best(self, asked: Messages, answers: Sequence[str]) -> int: ...

    def objection(self, asked: Messages, answer: str) -> str:
        """What is wrong with an answer; "" for nothing."""


class Person(Protocol):
    """Who sits at the terminal. Each returns None where the question is passed over."""

    def write(self, asked: Messages) -> str | None: ...

    def edit(self, asked: Messages, draft: str) -> str | None: ...

    def pick(self, asked: Messages, answers: Sequence[str], best: int) -> str | None: ...

    def revise(self, asked: Messages, answer: str, objection: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Label:
    """What became of one question.

    Args:
        number: of its row, from 0.
        by: who wrote the answer as it stands.
        machine: what the machine would have answered by itself; None where it was not asked.
        drafts: what it wrote.
        agreed: whether the person kept the machine's choice, or the machine had nothing against the person's; None
            where one of them was not asked.
        seconds: that the person took.
    """

    number: int
    asked: tuple[Mapping[str, str], ...]
    answer: str | None
    by: Literal["person", "machine", ""]
    help: int
    machine: str | None = None
    drafts: tuple[str, ...] = ()
    agreed: bool | None = None
    seconds: float = 0.0


class Labels:
    """What was labelled so far, in a file of JSON lines.

    Raises:
        BadExamples: the file holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all = list(self._read())

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the questions that were answered or passed over."""
        return frozenset(one.number for one in self.all)

    def add(self, one: Label) -> None:
        """Keep one, on the disk. Raises DiskFull."""
        with disk_errors(self.path, "labels", "free some space and go on"), self.path.open("ab") as file:
            file.write(json.dumps(asdict(one), ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.all.append(one)

    def agreement(self, help: Help) -> tuple[int, int]:
        """(how often person and machine agreed, how often both were asked)."""
        both = [one.agreed for one in self.all if one.help == help and one.agreed is not None]
        return sum(both), len(both)

    def seconds(self, help: Help) -> float:
        """That a person took for a question, on average; 0 where there was none."""
        took = [one.seconds for one in self.all if one.help == help and one.answer is not None]
        return sum(took) / len(took) if took else 0.0

    def _read(self) -> Iterator[Label]:
        raw = self.path.read_bytes() if self.path.exists() else b""
        whole, _, rest = raw.rpartition(b"\n")
        if rest:  # the line that somebody was killed in
            with self.path.open("r+b") as file:
                file.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                said = json.loads(line)
                yield Label(**{**said, "asked": tuple(said["asked"]), "drafts": tuple(said["drafts"])})
            except (ValueError, TypeError, KeyError) as error:
                raise BadExamples(
                    f"{self.path}:{number} is no label",
                    why=str(error),
                    do="name another file, or take the line out",
                ) from None


def label(
    rows: Sequence[Row],
    labels: Labels,
    machine: Machine,
    person: Person,
    help: Help,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Label]:
    """Go through what is not labelled yet; each label is kept before it is told.

    Raises:
        BadExamples: a row without a question.
        Whatever the machine raises: what was labelled is kept.
    """
    done = labels.done
    for number, row in enumerate(rows):
        if number in done:
            continue
        asked = tuple(_question(row))
        one = _one(number, asked, machine, person, help, clock)
        labels.add(one)
        yield one


def _one(
    number: int, asked: tuple[Mapping[str, str], ...], machine: Machine, person: Person, help: Help,
    clock: Callable[[], float],
) -> Label:  # fmt: skip
    drafts: tuple[str, ...] = ()
    own: str | None = None  # the machine's choice
    if help >= Help.DRAFTS:
        drafts = tuple(dict.fromkeys(machine.draft(asked, 1 if help == Help.DRAFTS else DRAFTS)))
        best = machine.best(asked, drafts) if len(drafts) > 1 else 0
        own = drafts[best]
    began = clock()
    match help:
        case Help.ALL:
            return Label(number, asked, own, "machine", help, own, drafts)
        case Help.RANKS:
            answer = person.pick(asked, drafts, best)
        case Help.DRAFTS:
            answer = person.edit(asked, drafts[0])
        case _:
            answer = person.write(asked)
    agreed = None if own is None or answer is None else answer == own
    if help == Help.CHECKS and answer is not None:
        waited = clock()
        objection = machine.objection(asked, answer)
        began += clock() - waited  # the machine's time is not the person's
        agreed = not objection
        if objection:
            answer = person.revise(asked, answer, objection)
    took = clock() - began
    by: Literal["person", "machine", ""] = (
        "" if answer is None else "machine" if answer in drafts else "person"
    )
    return Label(number, asked, answer, by, help, own, drafts, agreed, took)


def _question(row: Row) -> list[dict[str, str]]:
    """What is asked, whether the row has an answer or not."""
    messages = row.fields.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    answered = isinstance(last, dict) and last.get("role") == "assistant"
    return asked_of(row if answered else replace(row, fields={"completion": "", **row.fields}))


def conversations(labels: Labels) -> list[dict[str, Any]]:
    """Rows for supervised fine-tuning."""
    return [
        {"prompt": list(one.asked), "completion": one.answer, "provenance": {"by": one.by, "help": one.help}}
        for one in labels.all
        if one.answer is not None
    ]


def pairs(labels: Labels) -> list[dict[str, Any]]:
    """Rows of comparisons: what a person kept or wrote, over what the machine had drafted."""
    return [
        {"prompt": list(one.asked), "chosen": one.answer, "rejected": draft,
         "provenance": {"by": one.by, "help": one.help}}
        for one in labels.all
        if one.answer is not None and Help.ALL > one.help >= Help.DRAFTS
        for draft in one.drafts
        if draft != one.answer
    ]  # fmt: skip
