"""How well a model foretells a data set.

What: loss and share of right first guesses over what the assistant says, with or without an adapter.
Invariant: measured with the frozen weights as they are trained beside: int8 blocks, f32 sums.
Interface: `foretold(weights, rows, window, adapter)` -> `Foretold`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import jax

from llmos.kernel.learn.data import Conversations, Row
from llmos.kernel.learn.objective import Likelihood, Sums
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.student import Student, Tree, adapted
from llmos.kernel.model.config import ModelConfig

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter


@dataclass(frozen=True, slots=True)
class Foretold:
    """Nats a token, share of targets that were the most likely token, and how many there were."""

    loss: float
    accuracy: float
    predictions: int


def foretold(weights: Weights, rows: Sequence[Row], window: int, adapter: Adapter | None = None) -> Foretold:
    """Raises BadExamples, AdapterMismatch."""
    conversations = Conversations(weights, window)
    examples = [conversations.example(row) for row in rows]
    return measured(adapted(weights, window, rank=1, start=adapter), examples, window)


def measured(student: Student, examples: Sequence[Example], window: int, rows: int = 2) -> Foretold:
    """The same of a student that is there."""
    measure = _measure(student.config, student.scale, window)
    loss = right = weight = 0.0
    for batch in pack(examples, window, rows, share=True):
        sums = measure(student.trained, student.frozen, batch)
        loss, right = loss + float(sums.loss), right + float(sums.seen["accuracy"])
        weight += float(sums.weight)
    return Foretold(loss / weight, right / weight, round(weight))


@lru_cache(maxsize=8)
def _measure(config: ModelConfig, scale: float, window: int) -> Callable[[Tree, Tree, Batch], Sums]:
    """Compiled once for all students of one shape."""
    student, objective = Student(config, {}, {}, scale), Likelihood(length=window)
    return jax.jit(lambda trained, frozen, batch: objective(student, trained, frozen, batch))
