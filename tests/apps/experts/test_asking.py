"""What a person is asked about an expert, at a real terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.apps.shell.conftest import ROOT, SECONDS, Terminal

Spawn = Callable[..., Terminal]


@pytest.fixture
def expert(tmp_path: Path) -> Iterator[Spawn]:
    """Starts `llmos expert` on a state of its own, in an empty folder."""
    environment = {
        **os.environ, "LLMOS_STATE": str(tmp_path / "state"), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    with ExitStack() as open_:

        def start(*arguments: str) -> Terminal:
            child = Terminal(
                sys.executable, ["-m", "llmos", "expert", *arguments], env=environment, encoding="utf-8",
                dimensions=(24, 200), timeout=SECONDS, cwd=str(tmp_path),
            )  # fmt: skip
            open_.callback(child.close, force=True)
            return child

        yield start


def test_grants_are_shown_and_agreed_to(expert: Spawn, tmp_path: Path) -> None:
    file = tmp_path / "clerk.yaml"
    file.write_text("expert: clerk\ndescription: x\ngrants: {calculator.evaluate: }\n")
    for answer in ("", "perhaps", "n"):
        asked = expert("allow", "./clerk.yaml")
        asked.sees("clerk 0.1.0 wants to call:", "calculator.evaluate", "Agree? [y/N]")
        asked.types(answer)
        asked.sees("nobody has agreed")
        assert asked.ends() == 1
    asked = expert("allow", "./clerk.yaml")
    asked.sees("Agree? [y/N]")
    asked.types("y")
    asked.sees("may call 1 syscall")
    assert asked.ends() == 0

    file.write_text(
        "expert: clerk\ndescription: x\ngrants: {calculator.evaluate: , files.write: {under: out/}}\n"
    )
    asked = expert("allow", "./clerk.yaml")
    asked.sees(
        "also wants to call:", "files.write(path=out/*)", "writes", "agreed to 1 before", "Agree? [y/N]"
    )
    asked.types("y")
    asked.sees("may call 2 syscalls")
    assert "Agree" not in (asked.before or "") and asked.ends() == 0


def test_a_new_expert_is_drafted_from_answers(expert: Spawn, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    asked = expert("new", "harbour", "--output", "mine/harbour.yaml")
    for question, answer in (
        ("What is it for, in a sentence?", "Answers from the harbour's papers."),
        ("How should it answer?", ""),
        ("A file or folder that it answers from", "nowhere"),
        ("There is nothing at nowhere.", "papers"),
        ("Whose words are these", "mine"),
        ("A file or folder that it answers from", ""),
        ("What may it call?", "calculator"),
        ("A question that it must be able to answer", "When does the last ferry leave?"),
        ("What must the answer contain?", "21:40"),
        ("A question that it must be able to answer", ""),
    ):
        asked.sees(question)
        asked.types(answer)
    asked.sees("wrote mine/harbour.yaml")
    assert asked.ends() == 0
    checked = expert("info", "mine/harbour.yaml")
    checked.sees("harbour", "papers", "(mine)", "calculator.evaluate")
    assert checked.ends() == 0
