"""`/think` and `/tree`: what is drawn of how an answer was come to."""

from __future__ import annotations

import io

import pytest

from llmos.abi.errors import ConfigError, TurnRefused
from llmos.abi.events import Done, Thought, ThoughtTree
from llmos.apps.shell.commands import table_of
from llmos.apps.shell.commands.thinking import lines_of
from llmos.apps.shell.transcript import as_json, ledger, stream

TREE = ThoughtTree(
    "plain → tree", "the answers agree", 340, 2.5, "votes", 0.8,
    (
        Thought(1, 0, "answer", "It is 41.", 5, None, "41"), Thought(2, 0, "step", "First 6 * 7 = 41\n", 8, 0.1, "",
        "dropped", "6 * 7 is not 41"), Thought(3, 0, "step", "First 6 * 7\nis 42" + " and on" * 90, 8, 0.9),
        Thought(4, 3, "answer", "So it is 42. \x1b[31m", 9, 1.0, "42", "chosen"),
    ),
)  # fmt: skip


def test_a_tree_is_drawn_branch_by_branch_below_what_they_go_on_from() -> None:
    lines = lines_of(TREE, 0.83, 72)
    assert lines[0] == "plain → tree: the answers agree, 83% sure · 340 tokens · 2.5 s"
    assert [line.strip()[:3] for line in lines[1:]] == ["○ 1", "× 2", "○ 3", "● 4"]
    assert "6 * 7 is not 41" in lines[2] and " = 42" in lines[4]
    assert lines[4].index("●") > lines[3].index("○")
    assert max(map(len, lines)) <= 72 and "\x1b" not in "".join(lines)


def test_a_large_tree_says_what_it_left_out() -> None:
    many = ThoughtTree(
        "x", "y", 1, 1.0, thoughts=tuple(Thought(n, 0, "answer", "a", 1) for n in range(1, 60))
    )
    assert len(lines_of(many, None, 80)) == 26
    assert "/tree all" in lines_of(many, None, 80)[-1]
    assert len(lines_of(many, None, 80, shown=1 << 30)) == 60
    orphan = ThoughtTree("x", "y", 1, 1.0, thoughts=(Thought(9, 5, "answer", "alone", 1),))
    assert "alone" in lines_of(orphan, None, 80)[1]


def test_the_ledger_and_the_json_tell_of_it() -> None:
    from dataclasses import replace

    from llmos.abi.events import Usage

    done = Done("42", "stop", usage=Usage(thinking_tokens=340), confidence=0.83, tree=TREE)
    assert "340 thought · 83% sure" in ledger(done) and "thought" not in ledger(replace(done, usage=Usage()))
    out, notes = io.StringIO(), io.StringIO()
    stream([done], out, notes)
    assert "83% sure" in notes.getvalue()

    class Turn:
        answer, citations, usage, timings = done.answer, done.citations, done.usage, done.timings
        confidence, tree = done.confidence, done.tree

    import json

    told = json.loads(as_json(Turn(), "m"))
    assert told["confidence"] == 0.83 and told["tree"]["thoughts"][3]["answer"] == "42"


class _Shell:
    """As much of a shell as the commands look at."""

    def __init__(self, last: Done | None) -> None:
        self.said: list[str] = []
        self.questions: list[tuple[str, object]] = []
        self.options: dict[str, object] = {}
        self.last = last
        self.face = type("Face", (), {"width": 80})

    def foreground(self) -> _Shell:
        return self

    def say(self, *lines: str) -> None:
        self.said += lines

    def ask(self, question: str) -> None:
        self.questions.append((question, self.options.get("think")))


def test_the_commands() -> None:
    think, tree = (table_of()[name].action for name in ("think", "tree"))
    shell = _Shell(Done("42", "stop", confidence=0.83, tree=TREE))
    think(shell, "8x")  # type: ignore[arg-type]
    assert shell.options["think"] == "8x"
    think(shell, "30s What is 6 times 7?")  # type: ignore[arg-type]
    assert shell.questions == [("What is 6 times 7?", "30s")] and shell.options["think"] == "8x"
    think(shell, "off")  # type: ignore[arg-type]
    assert "think" not in shell.options
    with pytest.raises(ConfigError, match="no budget"):
        think(shell, "soon What?")  # type: ignore[arg-type]
    with pytest.raises(TurnRefused, match="usage"):
        think(shell, "")  # type: ignore[arg-type]
    tree(shell, "")  # type: ignore[arg-type]
    assert "83% sure" in shell.said[-5]
    tree(shell, "json")  # type: ignore[arg-type]
    assert '"strategy": "plain → tree"' in shell.said[-1]
    with pytest.raises(TurnRefused, match="not thought about"):
        tree(_Shell(Done("42", "stop")), "")  # type: ignore[arg-type]
