"""What the README shows runs."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.manifest import Manifest
from llmos.cli.parser import parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def _commands() -> list[list[str]]:
    """The arguments of every `llmos` in the shell blocks."""
    found = []
    for block in _blocks("sh"):
        for line in block.splitlines():
            words = shlex.split(line.rpartition("| ")[2], comments=True)
            if words and words[0].endswith("llmos"):
                found.append(words[1:])
    return found


@pytest.mark.parametrize("arguments", _commands(), ids=" ".join)
def test_the_commands_parse(arguments: list[str]) -> None:
    assert parser().parse_args(arguments).run


def test_there_are_commands_of_every_verb() -> None:
    assert {arguments[0] for arguments in _commands()} >= {"ask", "shell", "next", "models", "serve", "up"}


def test_the_make_targets_exist() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", "".join(_blocks("sh")))) | set(
        re.findall(r"`make ([a-z-]+)", README)
    )
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test", "bench"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


def test_the_program_runs(tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    weights_path("all-minilm-l6-v2")
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook/leave.md").write_text("Every employee has 31 days of leave.\n", encoding="utf-8")
    (tmp_path / "llmos.yaml").write_text("kernel: {model: smollm2-135m}\n", encoding="utf-8")
    program, _ = _blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "Usage(" in done.stdout
    assert "Timings(" in done.stdout


def test_the_app_is_one(tmp_path: Path) -> None:
    (tmp_path / "dice.py").write_text(_blocks("python")[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("dice", tmp_path / "dice.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [s.name for s in Manifest.of(module.Dice).syscalls] == ["dice.roll"]
    assert 1 <= module.Dice().roll() <= 6


def test_the_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
