"""docs/apps: the code on the pages of files, calculator and the SDK runs, and what they say there is, there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llmos.abi.manifest import Manifest
from llmos.apps.calculator import Calculator
from llmos.apps.files import Files, Settings
from llmos.conformance import CHECKS

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "apps"


def pieces(page: str, language: str) -> list[str]:
    """The pieces of code of one language on a page."""
    text = (PAGES / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def python(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))), "HOME": str(folder)}
    program = [sys.executable, *arguments]
    done = subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(("page", "words"), [("calculator", "x = 0.567143290409784"), ("files", "+2")])
def test_the_code_of_a_page_runs(tmp_path: Path, page: str, words: str) -> None:
    (tmp_path / "program.py").write_text("".join(pieces(page, "python")))
    assert words in python(tmp_path, "program.py")


def test_the_one_line_of_the_sdk_is_a_test(tmp_path: Path) -> None:
    (code,) = pieces("sdk", "python")
    (tmp_path / "test_milk.py").write_text(code)
    said = python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_milk.py")
    assert f"{len(CHECKS)} passed" in said


@pytest.mark.parametrize(("page", "app"), [("calculator", Calculator), ("files", Files)])
def test_every_syscall_is_on_its_page(page: str, app: type) -> None:
    text = (PAGES / f"{page}.md").read_text()
    listed = set(re.findall(rf"`({page}\.\w+)\(", text.split("```")[0]))
    assert listed == {one.name for one in Manifest.of(app).syscalls}


def test_every_check_is_on_the_page() -> None:
    text = (PAGES / "sdk.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == CHECKS.keys()


def test_the_settings_on_the_page_are_settings() -> None:
    (code,) = pieces("files", "yaml")
    said = Settings.model_validate(yaml.safe_load(code)["apps"]["files"])
    assert said.folders["handbook"].write
    assert (said.versions, said.kept) == (Settings().versions, Settings().kept)
