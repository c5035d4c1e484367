"""`llmos doctor` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_sound_machine(run_llmos: Run, weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    done = run_llmos("doctor", "--json", "--model", "smollm2-135m")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["ok"] and not done.stderr
    chapters = {f["chapter"] for f in told["findings"]}
    assert chapters == {"machine", "models", "disk", "kernel", "network", "sandbox", "apps"}
    assert all(f["ok"] or f["do"] for f in told["findings"])
    lines = run_llmos("doctor", "--model", "smollm2-135m").stdout.splitlines()
    assert lines[-1] == "This machine can answer questions."


def test_a_machine_that_cannot_answer(run_llmos: Run, fresh_machine: Path) -> None:
    done = run_llmos("doctor", "--model", "/no/model.gguf")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "This machine cannot answer yet: model."
    assert not (fresh_machine / "state").exists(), "it changes nothing"


def test_no_jax(tmp_path: Path) -> None:
    script = "import sys; from llmos.cli import main; main(['doctor']); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0
