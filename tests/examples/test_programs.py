"""The three programs against the kernel API: each runs whole, on a scripted model; one more on a real one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from examples import fan_out, own_app, two_processes
from llmos.kernel.journal.records import Received
from llmos.kernel.kernel import Kernel
from llmos.testing import call

Make = Callable[..., Kernel]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
APP = {"pantry": {"app": "examples.own_app:Pantry"}}


def question(window: str) -> str:
    return window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


@pytest.mark.parametrize("name", ["own_app", "two_processes", "fan_out"])
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80


def test_an_app_of_ones_own(scripted_kernel: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def cook(window: str) -> str:
        result = re.search(r"<\|im_start\|>tool\n(\d+)", window.rpartition("<|im_start|>user\n")[2])
        if result:
            return f"There are {result[1]}."
        if "lemons" in question(window):
            return call("pantry.count", item="lemons")
        return call("pantry.take", item="eggs", number=2)

    assert own_app.run(scripted_kernel(cook, apps=APP)) == ["There are 3.", "There are 10."]
    assert "pantry.take {'item': 'eggs', 'number': 2}" in capsys.readouterr().out


def test_the_app_refuses_what_is_not_there(scripted_kernel: Make) -> None:
    def cook(window: str) -> str:
        return "No." if "LookupError" in window else call("pantry.take", item="lemons", number=9)

    process = scripted_kernel(cook, apps=APP).spawn(grants=["pantry"])
    assert process.ask("take nine lemons", max_tokens=200).answer == "No."


def test_two_processes_talk(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: f"{len(question(window))}, then.")
    story = two_processes.run(kernel)
    assert story[0] == two_processes.BEGINNING and len(story) == 1 + 2 * two_processes.TURNS
    lengths = [len(f"A story goes: {before}\nWrite only its next sentence.") for before in story]
    assert story[1:] == [f"{length}, then." for length in lengths[:-1]], "each went on from the other's"
    letters = list(kernel.journal.records(kinds=[Received]))
    assert len(letters) == 2 * two_processes.TURNS
    assert kernel.ps() == []


def test_a_fan_out_over_forks(scripted_kernel: Make, capsys: pytest.CaptureFixture[str]) -> None:
    def reader(window: str) -> str:
        asked = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end", window, re.DOTALL)
        wanted = {"rent": 840, "deposit": 2520, "metres": 64, "rooms": 3, "cats": 2}
        number = next((n for word, n in wanted.items() if word in asked[-1]), 0)
        return "yes" if len(asked) == 1 else str(number)

    kernel = scripted_kernel(reader)
    found = fan_out.run(kernel)
    assert found == {"rent": 840, "deposit": 2520, "size": 64, "rooms": 3, "cats": 2}
    shared = re.findall(r"\((\d+) of (\d+) tokens shared\)", capsys.readouterr().out)
    assert len(shared) == 5 and all(int(cached) > int(prompt) // 2 for cached, prompt in shared)


def test_a_fan_out_with_a_real_model(weights_path: Callable[[str], Path]) -> None:
    import llmos

    with llmos.connect(model=str(weights_path("smollm2-135m")), pool="256MiB", window=1024) as kernel:
        found = fan_out.run(kernel)
    assert set(found) == set(fan_out.QUESTIONS) and all(isinstance(n, int) for n in found.values())
