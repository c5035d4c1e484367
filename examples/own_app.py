"""An app of one's own: a pantry that a model can look into and take from. `python -m examples.own_app`

From hints and docstrings the model learns what there is, the grammar what may be written (no other item than these
two), the monitor what a call does. The app runs in a process of its own: whatever it does, the kernel stands.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import llmos
from llmos import App, Call, Target, syscall
from llmos.abi.config import AppConfig, Config
from llmos.abi.events import Call as Called
from llmos.abi.events import Result
from llmos.abi.machine import Machine

Item = Literal["eggs", "lemons"]


class Pantry(App):
    """What is in the kitchen."""

    @syscall(effect="read", retry="safe", returns="user")
    def count(self, item: Item, call: Call) -> int:
        """How many of an item are left."""
        return _stock(call)[item]

    @syscall(effect="write", retry="keyed", returns="user")
    def take(self, item: Annotated[Item, Target], number: Annotated[int, Field(ge=1)], call: Call) -> int:
        """Take some of an item. Returns how many are left."""
        stock = _stock(call)
        if call.key not in stock["taken"]:  # the same call may come twice after a crash; it counts once
            if stock[item] < number:
                raise LookupError(f"there are only {stock[item]}")
            stock[item] -= number
            stock["taken"].append(call.key)
            _file(call).write_text(json.dumps(stock))
        return stock[item]


def _file(call: Call) -> Path:
    assert call.volume is not None  # inside a kernel every process has a folder of its own to work in
    return call.volume / "stock.json"


def _stock(call: Call) -> dict[str, Any]:
    file = _file(call)
    return json.loads(file.read_text()) if file.exists() else {"eggs": 12, "lemons": 3, "taken": []}


APPS: dict[str, AppConfig | None] = {"pantry": AppConfig(app="examples.own_app:Pantry")}


def run(kernel: Machine) -> list[str]:
    """Two questions to a process that may use the pantry; returns the answers."""
    cook = kernel.spawn(grants=["pantry"], instructions="You help in the kitchen.")
    answers: list[str] = []
    for question in ("How many lemons are left?", "Take 2 eggs, please."):
        print(f"\n> {question}")
        turn = cook.ask(question, max_tokens=200)
        for event in turn:
            match event:
                case Called(_, name, arguments):
                    print(f"  {name} {dict(arguments)}")
                case Result(text=text):
                    print(f"  -> {text}")
        print(turn.answer)
        answers.append(turn.answer)
    return answers


if __name__ == "__main__":
    with llmos.connect(Config(apps=APPS), attach=False) as kernel:
        run(kernel)
