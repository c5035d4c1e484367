"""docs/apps/interpreter.md and terminal.md: every piece of code in them is run, and every default is the real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from llmos.drivers.sandbox import Limits, Sandbox, SandboxMissing

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "apps"


def pieces(page: str, language: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["interpreter", "terminal"])
def test_the_page_runs(page: str, tmp_path: Path) -> None:
    try:
        Sandbox(["/bin/true"], Limits()).end()
    except SandboxMissing as error:
        pytest.skip(f"no sandbox on this machine: {error}")
    (tmp_path / "program.py").write_text("".join(pieces(page, "python")))
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_defaults_are_the_limits() -> None:
    (section,) = pieces("interpreter", "yaml")
    said = yaml.safe_load(section)["apps"]["interpreter"]
    assert TypeAdapter(Limits).validate_python(said) == Limits()
    assert said.keys() == {field.name for field in fields(Limits)}
