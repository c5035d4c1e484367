"""What all tests share: strict numerics, folders of their own, and real weights on request.

What: settings of jax that turn silent promotion into errors, fixtures for weights and for fresh folders.
Invariant: no test reads or writes the user's configuration or state; the model cache alone is the machine's.
Interface: `weights_path(name)`, `fresh_machine`, `run_llmos`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before jax is imported anywhere, and inherited by the processes that tests start.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> None:
    """State and configuration of the whole run lie in a temporary folder."""
    home = tmp_path_factory.mktemp("machine")
    os.environ["LLMOS_STATE"] = str(home / "state")
    os.environ["XDG_CONFIG_HOME"] = str(home / "config")
    os.environ.pop("LLMOS_CONFIG", None)
    os.environ.pop("LLMOS_DEBUG", None)


@pytest.fixture
def fresh_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as working directory, with an empty cache and an empty state in it."""
    monkeypatch.setenv("LLMOS_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LLMOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def weights_path() -> Callable[[str], Path]:
    """The file of a catalogue model in the machine's cache, fetched if it is not there."""
    from llmos.drivers.weights import find

    found: dict[str, Path] = {}

    def path(name: str) -> Path:
        if name not in found:
            found[name] = find(name).path
        return found[name]

    return path


@pytest.fixture
def run_llmos() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a user does, in a process of its own; stdin is empty unless `input=` is given."""

    def run(*arguments: str, timeout: float = 100, **options: object) -> subprocess.CompletedProcess[str]:
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(options.pop("env", None) or {})}  # type: ignore[dict-item]
        return subprocess.run(
            [sys.executable, "-m", "llmos", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run
