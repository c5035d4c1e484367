"""A kernel in the background: started, found, killed, started again, stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Token
from llmos.attach import RemoteKernel, attach
from llmos.attach.daemon import log_path
from tests.llmos.attach.machine import LONG

ROOT = Path(__file__).parents[3]


def start(state: Path, verb: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.llmos.attach.machine", str(state), verb], cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(started: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = started.communicate(timeout=60)
    assert started.returncode == 0, errors
    value: dict[str, Any] = json.loads(out)
    return value


def do(state: Path, verb: str) -> dict[str, Any]:
    return finish(start(state, verb))


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def eventually(check: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def attached(state: Path) -> RemoteKernel:
    kernel = attach(state)
    assert kernel is not None
    return kernel


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "state"
    yield folder
    do(folder, "down-now")


def test_up_and_down(state: Path) -> None:
    up = do(state, "up")
    assert (up["already"], up["told"][:1]) == (False, ["booting"])
    assert alive(up["pid"]) and os.getsid(up["pid"]) != os.getsid(0), "it outlives this terminal"
    assert do(state, "up") == {"pid": up["pid"], "already": True, "told": []}
    with attached(state) as kernel:
        assert kernel.pid == up["pid"]
        assert kernel.spawn().ask("hi").answer == "You said hi."
    assert do(state, "down") == {"pid": up["pid"]}
    assert not alive(up["pid"]) and attach(state) is None
    assert do(state, "down") == {"pid": None}
    log = log_path(state).read_text()
    assert "ready" in log and "all is written" in log and "Traceback" not in log


def test_two_at_once(state: Path) -> None:
    one, two = start(state, "up"), start(state, "up")
    found = [finish(one), finish(two)]
    assert found[0]["pid"] == found[1]["pid"]
    assert sorted(f["already"] for f in found) == [False, True]


def test_who_starts_it_learns_why_it_did_not_start(state: Path) -> None:
    state.mkdir()
    (state / "broken").touch()
    assert do(state, "up")["error"] == [
        "EngineError",
        "this machine is broken",
        "a test wants it so",
        "mend it",
    ]
    assert "this machine is broken" in log_path(state).read_text()
    (state / "broken").unlink()
    assert not do(state, "up")["already"]


def test_after_kill_9_its_processes_go_on(state: Path) -> None:
    first = do(state, "up")["pid"]
    with attached(state) as kernel:
        p = kernel.spawn(expert="worker")
        p.ask("hi").result
        turn = p.ask("long", max_tokens=3000, detached=True)
        seen = ""
        for event in turn:
            seen += event.text if isinstance(event, Token) else ""
            if len(seen) > 100:
                os.kill(first, signal.SIGKILL)
                break
        eventually(lambda: not alive(first))
        assert (state / "kernel" / "socket").exists(), "stale"
        assert attach(state) is None
    second = do(state, "up")
    assert not second["already"] and second["pid"] != first
    with attached(state) as kernel:
        (line,) = kernel.ps()
        assert (line.pid, line.name, line.turn) == (p.pid, "worker", 2)
        again = kernel.process(p.pid)
        eventually(lambda: len(again.conversation) == 2, 60)
        assert [e.answer for e in again.conversation] == ["You said hi.", LONG[:3000].strip()]
        assert again.conversation[1].answer.startswith(seen)
        report = kernel.replay(p.pid)
        assert (report.turns, report.divergence) == (2, None) and report.tokens == 12 + 3000


def test_down_waits_and_down_now_does_not(state: Path) -> None:
    do(state, "up")
    with attached(state) as kernel:
        kernel.spawn(expert="one").ask("long", max_tokens=400, detached=True)
    do(state, "down")
    do(state, "up")
    with attached(state) as kernel:
        (line,) = kernel.ps()
        assert kernel.process(line.pid).conversation[0].answer == LONG[:400].strip()
        kernel.process(line.pid).ask("long", max_tokens=4000, detached=True)
    do(state, "down-now")
    do(state, "up")
    with attached(state) as kernel:
        p = kernel.process(line.pid)
        eventually(lambda: len(p.conversation) == 2, 60)
        assert p.conversation[1].answer == LONG[:4000].strip()


def test_a_signal_stops_it_in_good_order(state: Path) -> None:
    pid = do(state, "up")["pid"]
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not alive(pid))
    assert "all is written" in log_path(state).read_text()
    assert not (state / "kernel" / "socket").exists()
