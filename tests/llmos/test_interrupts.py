"""Ctrl-C is never lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

IN_A_CALLBACK = """
import gc, os, signal, time
from llmos.cli.interrupts import Interrupts
Interrupts().install()
struck = []
def callback(phase, info):
    if not struck:
        struck.append(True)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the exception is raised here, where Python can only print it
gc.callbacks.append(callback)
try:
    gc.collect()
    time.sleep(10)
except KeyboardInterrupt:
    print("heard")
"""

IN_DISGUISE = """
import os, signal
from llmos.cli.interrupts import Interrupts
interrupts = Interrupts()
interrupts.install()
assert not interrupts.caused(ValueError())
try:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        raise RuntimeError("the callback failed")
except RuntimeError as error:
    print(interrupts.caused(error))
"""

IN_AN_IMPORT = """
import os, sys, time
from pathlib import Path
from llmos.cli.interrupts import Interrupts
Interrupts().install()
body = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2); whole = True"
Path("interrupted.py").write_text(body)
sys.path.insert(0, ".")
try:
    import interrupted
    time.sleep(10)
except KeyboardInterrupt:
    print(interrupted.whole)
"""

IMPATIENT = """
import os, signal
from llmos.cli.interrupts import Interrupts
Interrupts().install()
while True:
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass
"""


def _run(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=environment, cwd=folder
    )


def test_one_that_strikes_inside_a_callback_strikes_again() -> None:
    done = _run(IN_A_CALLBACK)
    assert (done.stdout, done.stderr, done.returncode) == ("heard\n", "", 0)


def test_one_that_a_library_wraps_is_recognised() -> None:
    assert _run(IN_DISGUISE).stdout == "True\n"


def test_one_that_strikes_inside_an_import_waits_for_its_end(tmp_path: Path) -> None:
    done = _run(IN_AN_IMPORT, tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_three_at_once_end_the_process() -> None:
    assert _run(IMPATIENT).returncode == 130
