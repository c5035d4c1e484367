"""Several rounds of calls in one turn of the default model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.abi.config import Config
from llmos.abi.events import Call, Result
from llmos.kernel.boot import boot
from llmos.kernel.choice import choice_of
from llmos.kernel.kernel import Kernel

APPS = {name.lower(): {"app": f"tests.kernel.town:{name}"} for name in ("Store", "Weather", "Clock")}


@pytest.fixture(scope="module")
def kernel(weights_path: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    config = Config.model_validate(
        {
            "machine": {"state": str(tmp_path_factory.mktemp("state"))},
            "kernel": {"model": str(weights_path("qwen2.5-coder-0.5b")), "pool": "128MiB", "window": 1024},
            "apps": {**Config().apps, **APPS},
        }
    )
    with boot(config) as kernel:
        yield kernel


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        (
            "What is the price of tea in the store, and what is the weather forecast for Oslo?",
            {("store.price", "tea"), ("weather.forecast", "oslo")},
        ),
        ("What is the weather forecast for the city of Rome?", {("weather.forecast", "rome")}),
    ],
)
def test_each_part_of_a_question_is_called_for_once(
    kernel: Kernel, question: str, calls: set[tuple[str, str]]
) -> None:
    assert choice_of(kernel.runner.identity) is not None, "somebody has measured the default model"
    events = list(kernel.spawn(grants=["store", "weather", "clock"]).ask(question, max_tokens=200))
    made = [(e.syscall, str(*e.arguments.values()).lower()) for e in events if isinstance(e, Call)]
    assert set(made) == calls and len(made) == len(calls)
    assert all(e.ok for e in events if isinstance(e, Result))


def test_code_that_is_asked_for_is_written_not_called_for(kernel: Kernel) -> None:
    """Both answers begin with a fence; what stands behind it tells them apart."""
    instructions = (
        "You are a programmer. Begin every answer with the words Here is. Write short, working code, in Python unless "
        "another language is asked for."
    )
    grants = ["interpreter.run", "files.read", "files.list", "files.search"]
    process = kernel.spawn(grants=grants, instructions=instructions)
    turn = process.ask("Write a Python class Point with x and y.", max_tokens=60)
    assert "class Point" in turn.answer and turn.usage.syscalls == 0


def test_an_expression_is_calculated(kernel: Kernel) -> None:
    turn = kernel.spawn(grants=["calculator"]).ask("What is 17*23?", max_tokens=100)
    assert [e.text for e in turn if isinstance(e, Result)] == ["391"]
    assert "391" in turn.answer
