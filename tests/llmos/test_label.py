"""`llmos label` at a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "how.md").write_text("Answer in one word.")
    rows = [{"prompt": f"Name a colour, number {n}."} for n in range(3)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def spawned(command: list[str], folder: Path) -> Any:
    """A terminal in which the command runs."""
    with (
        warnings.catch_warnings()
    ):  # where jax has been imported it warns of every fork; this one starts a program
        warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)
        return pexpect.spawn(
            sys.executable, command, cwd=str(folder), env={**os.environ}, encoding="utf-8", timeout=300
        )


def test_a_person_labels_leaves_and_goes_on(files: Path) -> None:
    command = ["-m", "llmos", "label", "questions.jsonl", "--instructions", "how.md", "--machine", "0"]
    terminal = spawned(command, files)
    terminal.expect("Answer in one word")
    terminal.expect("3 of 3 questions are left")
    terminal.expect("number 0")
    terminal.sendline("blue")
    terminal.expect("number 1")
    terminal.sendline("/quit")
    terminal.expect("give the same command to go on")
    terminal.expect(pexpect.EOF)
    terminal.wait()
    again = spawned(command, files)
    again.expect("2 of 3 questions are left")
    again.expect("number 1")
    again.sendline("-")
    again.expect("number 2")
    again.sendline("red")
    again.expect("2 examples, 0 pairs")
    again.expect(pexpect.EOF)
    assert again.wait() == 0
    rows = [json.loads(line) for line in (files / "questions.sft.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == ["blue", "red"]


def test_nobody_there(files: Path, run_llmos: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_llmos("label", str(files / "questions.jsonl"), "--instructions", str(files / "how.md"))
    assert done.returncode != 0 and "--machine 100" in done.stderr
    (files / "how.md").write_text(" ")
    done = run_llmos("label", str(files / "questions.jsonl"), "--instructions", str(files / "how.md"))
    assert "is empty" in done.stderr
