"""A trace holds what happened, loads whatever ended it, and costs the untraced kernel nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sequence import Request
from llmos.kernel.kernel import Kernel
from llmos.kernel.trace import APPS, ENGINE, JOURNAL, KERNEL, OFF, Recorder
from llmos.testing import call
from tests.kernel.engine.scripted import ScriptedRunner

Make = Callable[..., Kernel]
PHASES = {"plan", "forward", "mask", "sample", "take", "journal"}


def load(path: Path) -> list[dict[str, Any]]:
    """As the viewers read it: the closing bracket may be missing."""
    text = path.read_text()
    events: list[dict[str, Any]] = json.loads(text if text.endswith("]\n") else text + "]")
    return events


def shop(window: str) -> str:
    rest = window.rpartition("<|im_start|>user\n")[2]
    if rest.count("<|im_start|>assistant") > 1:
        return "Done."
    return call("shop.price", item="tea") + "\n" + call("shop.reviews", item="secret")


def test_a_turn_with_calls(scripted_kernel: Make, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    kernel = scripted_kernel(
        shop, apps={"shop": {"app": "tests.kernel.shop:Shop"}}, hosts=("*",), trace=Recorder(path)
    )
    process = kernel.spawn(grants=["shop"], expert="clerk")
    assert process.ask("go", max_tokens=500).answer == "Done."
    kernel.close()
    events = load(path)

    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names[process.pid, 0] == "clerk 1" and names[KERNEL, ENGINE] == "engine"
    assert any(pid == APPS and name.startswith("[apps] ") for (pid, _), name in names.items())
    steps = [e for e in events if e["name"] == "step"]
    assert len(steps) == kernel.engine.counters.steps
    assert sum(e["args"]["tokens"] for e in steps) == kernel.engine.counters.tokens
    assert {e["name"] for e in events if e["ph"] == "X"} == PHASES | {"step"}
    for begin, end in pairwise(steps):
        assert begin["ts"] + begin["dur"] <= end["ts"], "one step after the other"

    turn = [e for e in events if e["name"] == "turn"]
    assert [(e["ph"], e["pid"]) for e in turn] == [("B", process.pid), ("E", process.pid)]
    calls = [e for e in events if e.get("cat") == "syscall"]
    assert Counter((e["name"], e["ph"]) for e in calls) == Counter(
        [(n, ph) for n in ("shop.price", "shop.reviews") for ph in "be"]
    )
    for name in ("shop.price", "shop.reviews"):
        outer = [e["ts"] for e in calls if e["name"] == name]
        inner = [e["ts"] for e in events if e["pid"] == APPS and e["name"] == name]
        assert turn[0]["ts"] <= outer[0] <= inner[0] <= inner[1] <= outer[1] <= turn[1]["ts"]
    assert [e for e in events if e["name"] == "commit" and e["tid"] == JOURNAL and e["ph"] == "e"]
    assert "secret" not in path.read_text(), "no arguments, no words"


def test_pages_and_preemptions(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = Recorder(path)
    engine = Engine(ScriptedRunner(pages=9), trace=trace)
    streams = [engine.submit(Request(tokens=(n, 2, 3), max_tokens=20)) for n in range(4)]
    for stream in streams:
        assert len(list(stream)) == 20
    engine.close()
    trace.close()
    counted = sum(e["args"]["count"] for e in load(path) if e["name"] == "preemption")
    assert counted == engine.counters.preemptions > 0


def test_what_was_paged_in_and_left_out(scripted_kernel: Make, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    kernel = scripted_kernel(lambda window: "Yes.", window=400, trace=Recorder(path))
    process = kernel.spawn()
    for _ in range(4):
        process.ask("word " * 20, max_tokens=50).answer
    kernel.close()
    left = [e for e in load(path) if e["name"] == "page out"]
    assert left and all(e["pid"] == process.pid and "full" in e["args"]["why"] for e in left)


KILLED = """
import sys
from llmos.abi.config import Config
from llmos.kernel.engine.scripted import ScriptedRunner, byte_tokenizer, chat_template
from llmos.kernel.kernel import Kernel
from llmos.kernel.trace import Recorder
kernel = Kernel(
    Config(), ScriptedRunner(lambda window: "word " * 1000), byte_tokenizer(), chat_template(),
    trace=Recorder(sys.argv[1]),
)
for i, event in enumerate(kernel.spawn().ask("go", max_tokens=4000)):
    if i == 50:
        print("ready", flush=True)
"""


def test_a_killed_kernel_leaves_a_file_that_loads(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"LLMOS_STATE": str(tmp_path / "state")},
    ) as kernel:
        assert kernel.stdout is not None and kernel.stdout.readline() == b"ready\n"
        kernel.send_signal(signal.SIGKILL)
    assert not path.read_text().endswith("]\n"), "it had no time to close"
    events = load(path)
    assert sum(e["args"]["emitted"] for e in events if e["name"] == "step") >= 40
    assert [e["ph"] for e in events if e["name"] == "turn"] == ["B"]


def test_a_full_disk_ends_the_trace_not_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "trace.json"
    trace = Recorder(path)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, trace._file)
    os.close(full)
    engine = Engine(ScriptedRunner(), trace=trace)
    assert len(list(engine.submit(Request(tokens=(1, 2), max_tokens=9)))) == 9
    engine.close()
    trace.close()
    assert caplog.text.count("the trace ends here: No space left on device") == 1
    assert load(path), "what came before it is whole"


def test_a_path_that_cannot_be_written_is_told_before_the_model_is_loaded(
    run_llmos: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for verb in (["ask", "hi"], ["shell"]):
        done = run_llmos(*verb, "--trace", str(tmp_path / "none" / "trace.json"), "--model", "/no/model")
        assert done.returncode == 1 and "none/trace.json" in done.stderr and "no/model" not in done.stderr


def test_off_keeps_nothing() -> None:
    assert vars(OFF) == {}
