"""The three ways in which experts work together: each runs whole, on a scripted model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import manager, panel, pipeline
from llmos.abi.labels import UNTRUSTED
from llmos.kernel.journal.records import Asked, Spawned
from llmos.kernel.kernel import Kernel
from llmos.testing import call

Make = Callable[..., Kernel]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.parametrize("name", ["panel", "pipeline", "manager"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


def test_a_panel_and_a_judge(scripted_kernel: Make) -> None:
    asked: list[str] = []

    def script(window: str) -> str:
        if "You judge answers" in window:
            asked.append(window)
            return "2"
        return "Because of " + re.findall(r"You are a (\w+)", window)[0] + "s."

    kernel = scripted_kernel(script)
    assert panel.run(kernel) == ("teacher", "Because of teachers.")
    assert "1. Because of physicists.\n2. Because of teachers.\n3. Because of navals." in asked[0]
    assert kernel.ps() == []


def test_a_pipeline_keeps_labels(scripted_kernel: Make) -> None:
    facts = {"done": ["the hall is booked"], "open": ["catering"]}

    def script(window: str) -> str:
        return json.dumps(facts) if "You take facts" in window else "The hall is booked; catering is open."

    kernel = scripted_kernel(script)
    assert pipeline.run(kernel) == "The hall is booked; catering is open."
    asked = [r.body for r in kernel.journal.records(kinds=[Asked]) if isinstance(r.body, Asked)]
    assert [a.label for a in asked] == [UNTRUSTED, UNTRUSTED]
    assert "the hall is booked\nStill open:\ncatering" in asked[1].text


def test_a_manager_asks_its_workers_and_nobody_else(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        if "You are a helpful assistant" in window:
            return "397.8"
        last = window.rpartition("<|im_start|>user\n")[2]
        if "tool\n" in last:
            return f"It is {last.rpartition('tool' + chr(10))[2].partition('<|im_end|>')[0].strip()}."
        name = "coder" if "coder" in last else "assistant"
        return call("experts.ask", name=name, question="17 % of 2340")

    kernel = scripted_kernel(script)
    answers = manager.run(kernel, (*manager.TASKS, "Ask the coder what 17 % of 2340 is."))
    assert answers[0] == "It is 397.8."
    assert "experts.ask was denied" in answers[1], "only those that were named in its grants"
    children = [r.body for r in kernel.journal.records(kinds=[Spawned]) if isinstance(r.body, Spawned)]
    assert [c.expert for c in children] == ["manager", "assistant"]
    assert children[1].grants == ("calculator.evaluate",)
