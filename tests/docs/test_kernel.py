"""docs/kernel.md: every piece of code in it is run, with a real model and real app processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from llmos.abi.app import Effect, Retry

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "kernel.md").read_text()
PIECES = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
MACHINE = {"kernel": {"model": "smollm2-135m", "pool": "256MiB", "window": 1024}}


def named(code: str) -> str | None:
    """The file that a piece is, by its first line."""
    match = re.match(r"# (\w+\.py)\n", code)
    return match[1] if match else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page builds, in a folder that Python and the kernel look into."""
    settings = dict(MACHINE)
    for language, code in PIECES:
        if language == "yaml":
            settings |= yaml.safe_load(code)
        elif file := named(code):
            (tmp_path / file).write_text(code)
    settings["apps"]["post"] = {"app": "post:Post"}
    (tmp_path / "llmos.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("LLMOS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LLMOS_CONFIG", str(tmp_path / "llmos.yaml"))
    return tmp_path


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_program_runs(folder: Path, weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    program = "".join(code for language, code in PIECES if language == "python" and not named(code))
    (folder / "program.py").write_text(program)
    said = python(folder, "program.py")
    assert "did you mean 'rates'" in said


def test_the_test_passes(folder: Path) -> None:
    assert "1 passed" in python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_rates.py")


def test_an_app_with_a_companion_is_called(folder: Path) -> None:
    (folder / "test_post.py").write_text(
        "from llmos.abi.events import Result\n"
        "from llmos.testing import call, scripted_kernel\n"
        "def test_post(scripted_kernel):\n"
        "    def script(window):\n"
        "        return 'Sent.' if 'sent to ann' in window else call('post.send', to='ann', text='hi')\n"
        "    kernel = scripted_kernel(script, apps={'post': {'app': 'post:Post'}})\n"
        "    turn = kernel.spawn(grants=['post']).ask('write to ann', max_tokens=300)\n"
        "    assert [e.text for e in turn if isinstance(e, Result)] == ['sent to ann']\n"
    )
    python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_post.py")


def test_the_page_is_short_and_names_what_there_is() -> None:
    assert len(TEXT.splitlines()) < 200
    for word in (*Effect.__args__, *Retry.__args__):  # type: ignore[attr-defined]
        assert f"`{word}`" in TEXT
