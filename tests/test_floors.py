"""The floors hold, and a break would be seen."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("abi", "drivers", "memory", "kernel", "apps")


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A copy of the house, symlinks kept as they are."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in (*FLOORS, "llmos"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.cc", "*.json")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=ignore)
    return tmp_path


def test_floors_hold() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("abi/limits.py", "from llmos.drivers import yamlfile", "Each floor"),
        ("drivers/terminal.py", "def f() -> None:\n    import llmos.memory", "Each floor"),
        ("kernel/__init__.py", "import llmos.apps.shell", "Each floor"),
        ("abi/labels.py", "import numpy", "Floor 0"),
    ],
)
def test_a_break_is_caught(house: Path, file: str, line: str, broken: str) -> None:
    with (house / file).open("a") as f:
        f.write(f"\n{line}\n")
    done = _lint(house)
    assert done.returncode != 0
    assert any(broken in row and "BROKEN" in row for row in done.stdout.splitlines()), done.stdout


def test_every_floor_is_a_symlink_to_its_folder() -> None:
    for name in FLOORS:
        link = ROOT / "llmos" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..") / name


def test_nothing_imports_a_floor_by_its_folder() -> None:
    """`import kernel` would load a second copy of every module."""
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in (*FLOORS, "llmos", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.lstrip().startswith(
            tuple(
                f"{word} {floor}{end}"
                for word in ("import", "from")
                for floor in FLOORS
                for end in (".", " ")
            )
        )
    ]
    assert wrong == []
