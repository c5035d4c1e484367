"""Labelling: who did what is kept at once, gone on with, and exported; at a real terminal too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from llmos.abi.errors import BadExamples
from llmos.kernel.learn.data import Row
from llmos.kernel.learn.labelling import DRAFTS, Help, Label, Labels, conversations, label, pairs

ROWS = [Row(f"f:{n}", {"prompt": f"question {n}"}) for n in range(4)]
Messages = Sequence[Mapping[str, str]]


class Machine:
    """Drafts numbered answers, likes the second best, objects to what is short."""

    def draft(self, asked: Messages, count: int) -> Sequence[str]:
        return [f"draft {n} to {asked[-1]['content']}" for n in range(count)]

    def best(self, asked: Messages, answers: Sequence[str]) -> int:
        return 1

    def objection(self, asked: Messages, answer: str) -> str:
        return "too short" if len(answer) < 5 else ""


class Person:
    """Says what it was given, in order; an error ends it."""

    def __init__(self, *says: str | None) -> None:
        self.says, self.heard = list(says), list[str]()

    def write(self, asked: Messages) -> str | None:
        return self.says.pop(0)

    def edit(self, asked: Messages, draft: str) -> str | None:
        said = self.says.pop(0)
        return draft if said == "" else said

    def pick(self, asked: Messages, answers: Sequence[str], best: int) -> str | None:
        said = self.says.pop(0)
        return answers[int(said)] if said and said.isdecimal() else said

    def revise(self, asked: Messages, answer: str, objection: str) -> str | None:
        self.heard.append(objection)
        return self.says.pop(0)


def labelled(path: Path, help: Help, *says: str | None) -> tuple[Labels, Person]:
    labels, person = Labels(path), Person(*says)
    list(label(ROWS, labels, Machine(), person, help))
    return labels, person


def test_the_slider(tmp_path: Path) -> None:
    alone, _ = labelled(tmp_path / "0", Help.NONE, "a", "b", None, "d")
    assert [one.by for one in alone.all] == ["person", "person", "", "person"] and alone.agreement(
        Help.NONE
    ) == (0, 0)
    checked, person = labelled(
        tmp_path / "25", Help.CHECKS, "long enough", "no", "longer now", "also long", "no", "no"
    )
    assert person.heard == ["too short"] * 2 and checked.agreement(Help.CHECKS) == (2, 4)
    assert [one.answer for one in checked.all] == ["long enough", "longer now", "also long", "no"]
    drafted, _ = labelled(tmp_path / "50", Help.DRAFTS, "", "mine", None, "")
    assert [one.by for one in drafted.all] == ["machine", "person", "", "machine"]
    assert drafted.agreement(Help.DRAFTS) == (2, 3)
    ranked, _ = labelled(tmp_path / "75", Help.RANKS, "1", "0", "mine", None)
    assert [one.agreed for one in ranked.all] == [True, False, False, None]
    alone, _ = labelled(tmp_path / "100", Help.ALL)
    assert {one.by for one in alone.all} == {"machine"} and alone.all[2].answer == "draft 1 to question 2"


def test_both_formats(tmp_path: Path) -> None:
    labels, _ = labelled(tmp_path / "l", Help.RANKS, "0", "mine", "1", None)
    rows = conversations(labels)
    assert [row["completion"] for row in rows] == ["draft 0 to question 0", "mine", "draft 1 to question 2"]
    assert [row["provenance"]["by"] for row in rows] == ["machine", "person", "machine"]
    compared = pairs(labels)
    assert len(compared) == 2 * (DRAFTS - 1) + DRAFTS and all(
        row["chosen"] != row["rejected"] for row in compared
    )
    everything, _ = labelled(tmp_path / "m", Help.ALL)
    assert not pairs(everything), "nobody has compared anything"


def test_who_is_killed_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "l"
    labels, person = Labels(path), Person("a", "b")
    with pytest.raises(IndexError):
        list(label(ROWS, labels, Machine(), person, Help.NONE))
    with path.open("ab") as file:
        file.write(b'{"number": 2, "ans')  # killed while it was written
    again, _ = labelled(path, Help.NONE, "c", "d")
    assert [one.answer for one in again.all] == ["a", "b", "c", "d"] and Labels(path).all == again.all
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]


def test_the_persons_time_is_the_persons(tmp_path: Path) -> None:
    now = [0.0]

    class Slow(Machine):
        def draft(self, asked: Messages, count: int) -> Sequence[str]:
            now[0] += 100
            return super().draft(asked, count)

        def objection(self, asked: Messages, answer: str) -> str:
            now[0] += 100
            return ""

    class Thoughtful(Person):
        def write(self, asked: Messages) -> str | None:
            now[0] += 3
            return super().write(asked)

        edit = lambda self, asked, draft: self.write(asked)  # noqa: E731

    for help in (Help.CHECKS, Help.DRAFTS):
        labels = Labels(tmp_path / str(int(help)))
        list(label(ROWS[:2], labels, Slow(), Thoughtful("one", "two"), help, lambda: now[0]))
        assert labels.seconds(help) == 3.0


def test_rows_with_answers_and_rows_that_are_none(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    labels, _ = Labels(tmp_path / "l"), None
    (one,) = label([Row("f:1", {"messages": said})], labels, Machine(), Person("new"), Help.NONE)
    assert one == Label(0, ({"role": "user", "content": "hi"},), "new", "person", 0, seconds=one.seconds)
    with pytest.raises(BadExamples, match="f:1"):
        list(label([Row("f:1", {"text": "?"})], Labels(tmp_path / "m"), Machine(), Person(), Help.NONE))
    (tmp_path / "bad").write_text('{"a": 1}\n')
    with pytest.raises(BadExamples, match="bad:1 is no label"):
        Labels(tmp_path / "bad")
