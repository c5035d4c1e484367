"""The front door is light: public names, import time, nothing heavy."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import llmos

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "faiss",
    "tokenizers",
    "huggingface_hub",
    "pydantic",
    "yaml",
    "gguf",
)
QUICK = 0.3  # seconds, the best of a few tries


def _python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout


def test_the_public_surface() -> None:
    assert set(llmos.__all__) == {
        "App",
        "Call",
        "Cancelled",
        "ConfigError",
        "DiskFull",
        "DocumentError",
        "EngineError",
        "File",
        "Image",
        "LLMOSError",
        "MemoryFault",
        "Mount",
        "Payload",
        "ProcessError",
        "Target",
        "TemplateError",
        "Text",
        "WeightsError",
        "__version__",
        "connect",
        "query",
        "syscall",
    }
    assert all(hasattr(llmos, name) for name in llmos.__all__)
    assert callable(llmos.connect)


@pytest.mark.parametrize(
    "code", ["import llmos", "from llmos.cli.parser import parser; parser().format_help()"]
)
def test_nothing_heavy_is_imported(code: str) -> None:
    found = _python(f"{code}\nimport sys; print(*(m for m in {HEAVY} if m in sys.modules))")
    assert found.split() == []


@pytest.mark.parametrize("floor", ["abi", "drivers", "memory", "kernel", "apps"])
def test_no_floor_imports_jax_by_itself(floor: str) -> None:
    assert _python(f"import sys, llmos.{floor}; print('jax' in sys.modules)") == "False\n"


@pytest.mark.parametrize("arguments", [["-c", "import llmos"], ["-m", "llmos", "--help"]])
def test_start_is_quick(arguments: list[str]) -> None:
    """In processor time, which other work on the machine does not lengthen; seconds on the clock are a benchmark's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    best = float("inf")
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best <= QUICK
