"""The monitor's tests walk every line and every branch of it: whoever adds one, tests it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from llmos.kernel import monitor

ROOT = Path(__file__).parents[2]


def test_every_branch_of_the_monitor_is_tested(tmp_path: Path) -> None:
    data, report = f"--data-file={tmp_path / 'data'}", tmp_path / "report.json"
    include = f"--include={Path(monitor.__file__).resolve()}"
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernel/test_monitor.py"]
    for arguments in (["run", "--branch", data, include, *tests], ["json", data, "-o", str(report)]):
        command = [sys.executable, "-m", "coverage", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (covered,) = json.loads(report.read_text())["files"].values()
    assert covered["summary"]["num_branches"] > 0
    assert (covered["missing_lines"], covered["missing_branches"]) == ([], [])
