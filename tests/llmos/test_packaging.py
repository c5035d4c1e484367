"""One package, whichever way it is installed."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("abi", "drivers", "memory", "kernel", "apps")


def _elsewhere(code: str, folder: Path, python: str = sys.executable) -> str:
    """What `code` prints in a process that knows nothing of this checkout but the installation."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_editable_installation_is_one_package(tmp_path: Path) -> None:
    code = (
        f"import sys, llmos, importlib; [importlib.import_module('llmos.' + f) for f in {FLOORS}];"
        "from llmos.abi.errors import LLMOSError;"
        "print(llmos.LLMOSError is LLMOSError, len(list(llmos.__path__)),"
        f" [f for f in {FLOORS} if f in sys.modules])"
    )
    assert _elsewhere(code, tmp_path) == "True 1 []"


def test_the_installed_metadata() -> None:
    import llmos

    assert importlib.metadata.version("llmos") == llmos.__version__
    (script,) = [e for e in importlib.metadata.entry_points(group="console_scripts") if e.name == "llmos"]
    assert script.load() is llmos.cli.main


def _wheel(folder: Path, **environment: str) -> Path:
    """A wheel of a copy of the sources: a build leaves a folder behind that the next one would take files from."""
    source = folder / "source"
    for name in (*FLOORS, "llmos"):
        ignore = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, source], check=True, env={**os.environ, **environment})
    (wheel,) = folder.glob("llmos-*.whl")
    return wheel


@pytest.mark.slow
def test_a_wheel_holds_every_module_once(tmp_path: Path) -> None:
    wheel = _wheel(tmp_path, LLMOS_NO_CPU_LIBRARY="1")
    assert wheel.name.endswith("-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"llmos"}
    for floor in FLOORS:
        for file in (ROOT / floor).rglob("*.py"):
            assert f"llmos/{file.relative_to(ROOT)}" in names
    assert "llmos/py.typed" in names
    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = f"import sys; sys.path.insert(0, {str(unpacked)!r}); import llmos.kernel as k; print(k.__file__)"
    assert _elsewhere(code, tmp_path).startswith(str(unpacked))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="no C++ compiler here")
def test_a_wheel_holds_the_library_where_there_is_a_compiler(tmp_path: Path) -> None:
    names = zipfile.ZipFile(_wheel(tmp_path)).namelist()
    assert [n for n in names if n.endswith(".so")] == ["llmos/drivers/cpu/_build/libllmos_cpu.so"]


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["false", "there-is-no-such-compiler"])
def test_without_a_compiler_the_installation_succeeds(tmp_path: Path, compiler: str) -> None:
    names = zipfile.ZipFile(_wheel(tmp_path, CXX=compiler)).namelist()
    assert "llmos/drivers/cpu/linear.cc" in names
    assert not [n for n in names if n.endswith(".so")]
