"""Our side of `benchmarks.train`: the same task by the same lines as `reference/torch_training.py`.

Interface: `python -m benchmarks.train_ours FOLDER`; reads {"steps": [first, last + 1], "micro": rows} from stdin.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_mib
from llmos.abi.errors import Cancelled
from llmos.connect import load_config
from llmos.drivers.weights import find, open_weights
from llmos.drivers.weights.adapter import read_adapter
from llmos.kernel.boot import prepare_jax
from llmos.kernel.learn.objective import Likelihood
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.pretrain import shape
from llmos.kernel.learn.student import Student, adapted, fresh
from llmos.kernel.learn.trainer import Point, Recipe, Trainer


class Turns:
    """Steps as they are asked for, a line a turn."""

    def __init__(self, folder: Path, window: int) -> None:
        self._data, self._window = np.load(folder / "steps.npz"), window
        self._asked: dict[str, Any] = {"steps": [0, 0]}
        self._losses, self._began = list[float](), 0.0

    def over(self) -> bool:
        """Before a step: whether nothing more is asked; waits for the next turn where one ended."""
        if len(self._losses) < self._asked["steps"][1] - self._asked["steps"][0]:
            return False
        if not (line := sys.stdin.readline()):
            return True
        self._asked, self._losses, self._began = json.loads(line), [], time.perf_counter()
        return False

    def batches(self, step: int) -> Sequence[Batch]:
        return list(pack(examples(self._data, step), self._window, self._asked["micro"]))

    def learnt(self, point: Point) -> None:
        self._losses.append(point.loss)
        if point.step + 1 == self._asked["steps"][1]:
            seconds = time.perf_counter() - self._began
            print(
                json.dumps({"losses": self._losses, "seconds": seconds, "peak_mib": peak_mib()}), flush=True
            )


def examples(data: Any, step: int) -> list[Example]:
    """The examples of a step."""
    tokens, counts, ends = (data[f"{step}.{name}"] for name in ("tokens", "counts", "ends"))
    parts = zip(np.split(tokens, ends[:-1]), np.split(counts, ends[:-1]), strict=True)
    return [Example(t.astype(np.int32), c.astype(np.float32)) for t, c in parts]


def student(task: dict[str, Any], folder: Path) -> Student:
    """Who is taught."""
    if "model" not in task:
        return fresh(shape(task["depth"], task["vocab"], task["window"]), 0, task["window"])
    return adapted(open_weights(find(task["model"])), task["window"], start=read_adapter(folder / "adapter"))


def main() -> None:
    """See the module."""
    folder = Path(sys.argv[1])
    task = json.loads((folder / "task.json").read_text())
    prepare_jax(load_config(None))
    dials = {name: task[name] for name in ("steps", "rate", "warm_up", "floor", "clip")}
    recipe = Recipe(**dials, betas=tuple(task["betas"]))
    trainer = Trainer(student(task, folder), Likelihood(length=task["window"]), recipe)
    turns = Turns(folder, task["window"])
    print(json.dumps({"version": "ours"}), flush=True)
    with contextlib.suppress(Cancelled):
        trainer.run(turns.batches, turns.learnt, turns.over)


main()
