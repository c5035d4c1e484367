"""The verbs and a real model: a kernel in the background, asked from other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llmos
from llmos.abi.errors import ConfigError

ROOT = Path(__file__).parents[3]
MODEL = "smollm2-135m"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(
    run_llmos: Run, weights_path: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    weights_path(MODEL)
    monkeypatch.setenv("LLMOS_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)  # away from the llmos.yaml of this repository
    yield run_llmos
    run_llmos("down", "--now")


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_day_with_a_kernel(run: Run, tmp_path: Path) -> None:
    assert run("status").returncode == 3 and run("ps").returncode == 1 and run("logs").returncode == 1
    said = ok(run("up", "--model", MODEL, timeout=200))
    assert said.startswith(f"the kernel runs: {MODEL}, process ")
    pid = int(said.split()[-1])
    assert ok(run("up")) == f"the kernel runs already: {MODEL}, process {pid}\n"
    refused = run("ask", "hi", "--model", "qwen2.5-coder-0.5b")
    assert refused.returncode == 1 and "llmos down" in refused.stderr

    answer = json.loads(ok(run("ask", "What is the capital of France?", "--max-tokens", "12", "--json")))
    assert answer["answer"] and answer["model"] == MODEL
    assert json.loads(ok(run("ps", "--json"))) == {"processes": [], "apps": []}, "it went with its client"
    assert len(ok(run("next", "The cat", "-k", "3")).splitlines()) == 4

    # A program that goes, and whose process stays.
    code = """
import llmos
kernel = llmos.connect()
process = kernel.spawn(expert="poet")
process.ask("Write a long poem.", max_tokens=120, detached=True)
print(process.pid)
kernel.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    poet = int(out.stdout)
    assert "poet" in ok(run("ps")) and "poet" in ok(run("top"))
    status = json.loads(ok(run("status", "--json")))
    assert (status["pid"], status["model"], status["processes"]) == (pid, MODEL, 1)
    with llmos.connect() as kernel:
        deadline = time.monotonic() + 60
        while not (known := kernel.process(poet).conversation):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert known[0].question == "Write a long poem."
        with pytest.raises(ConfigError, match="window"):
            llmos.connect(window=1024)
    report = json.loads(ok(run("replay", str(poet), "--json")))
    assert (report["turns"], report["divergence"]) == (1, None) and report["tokens"] > 20

    assert run("kill", str(poet), "99999").returncode == 1
    assert json.loads(ok(run("ps", "--json")))["processes"] == []
    lines = ok(run("journal", str(poet))).splitlines()
    assert [line.split()[4] for line in lines if line.split()[4] not in ("sampled", "forced")] == [
        "spawned", "asked", "started", "finished", "signalled", "exited", "reaped",
    ]  # fmt: skip
    assert "ready" in ok(run("logs"))
    assert ok(run("down")) == f"the kernel is down (process {pid})\n"
    assert ok(run("down")) == "no kernel runs\n"
    assert ok(run("journal", str(poet))).splitlines() == lines, "also where none runs"
    again = run("replay", str(poet), "--model", MODEL, timeout=200)
    assert "every word came again" in ok(again)


def test_attaching_imports_little(run: Run) -> None:
    """What a verb needs against a running kernel is light: no model, no arrays, no event loop."""
    code = """
import sys, llmos.attach, llmos.attach.daemon, llmos.apps.shell.transcript
from llmos.connect import load_config
load_config()
print([m for m in ("jax", "numpy", "asyncio", "tokenizers", "sqlite3", "mcp") if m in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
