"""A shell on a kernel that runs on its own: it goes on without the shell, and the shell without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.apps.shell.conftest import ROOT, Terminal

Spawn = Callable[..., Terminal]


@pytest.fixture
def machine(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """`machine("--up")` and `machine("--down")`."""

    def run(what: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.apps.shell.machine", str(tmp_path / "state"), what],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip
        return done.stdout.strip()

    yield run
    run("--down")


def test_processes_outlive_the_shell(terminal: Spawn, machine: Callable[[str], str]) -> None:
    machine("--up")
    shell = terminal()
    shell.types("hello")
    shell.sees("You said hello.", "tokens/s")
    shell.types("long")
    shell.sees("word word")
    shell.send("\x04")  # in the middle of an answer
    assert shell.ends() == 0
    shell = terminal()
    shell.sees("has processes already", "agent")
    shell.types("/fg 1")
    shell.sees("you talk to process 1")
    shell.types("count")
    shell.sees("3", "first token")
    shell.types("/history")
    shell.sees("turn 1", "turn 2", "turn 3")
    shell.types("/quit")
    assert shell.ends() == 0


def test_a_closed_terminal_leaves_the_answer_to_come(terminal: Spawn, machine: Callable[[str], str]) -> None:
    machine("--up")
    shell = terminal()
    shell.types("long")
    shell.sees("word word")
    shell.close(force=True)  # the terminal is gone
    shell = terminal()
    shell.sees("has processes already")
    shell.types("/resume 1")
    shell.sees("you talk to process 1")
    shell.types("/history")
    shell.sees("turn 1", "word word")


def test_a_kernel_that_dies_under_the_shell(terminal: Spawn, machine: Callable[[str], str]) -> None:
    pid = int(machine("--up"))
    shell = terminal()
    shell.types("hello")
    shell.sees("You said hello.", "tokens/s")
    shell.send("half a line")
    os.kill(pid, signal.SIGKILL)
    shell.sees("the kernel has gone", "nothing is lost")
    machine("--up")
    shell.sees("the kernel is back; you talk to process 1")
    shell.types(" and its end")
    shell.sees("You said half a line and its end.")
    shell.types("count")
    shell.sees("3", "tokens/s")


@pytest.mark.slow
def test_a_turn_goes_on_where_the_kernel_died(terminal: Spawn, machine: Callable[[str], str]) -> None:
    pid = int(machine("--up"))
    shell = terminal()
    shell.types("long")
    shell.sees("word word")
    os.kill(pid, signal.SIGKILL)
    shell.sees("the kernel has gone")
    shell.types("too early")
    shell.sees("the kernel has gone")
    machine("--up")
    shell.sees("the kernel is back", "word wo\r\n")  # all 512 tokens, whether it was still at them or not
