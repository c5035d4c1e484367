"""What a model makes of each row's answer.

What: nats a token of the answer, and whether every token of it would have been the model's own choice.
Invariant: computed as trained: frozen weights in int8 blocks, f32 sums, with or without an adapter.
Interface: `Answers(weights, window, adapter)`: `.of(examples) -> (losses, chosen)`; call it with rows for the losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from llmos.kernel.learn.data import Conversations, Row
from llmos.kernel.learn.objective import log_likelihoods
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.student import Student, adapted, without_adapter

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter

Floats = NDArray[np.float64]


class Answers:
    """A model and its view of answers."""

    def __init__(self, weights: Weights, window: int, adapter: Adapter | None = None) -> None:
        self.conversations, self.window = Conversations(weights, window), window
        self.student = adapted(weights, window, rank=1, start=adapter)
        self._measure = measure(self.student, window)

    def __call__(self, rows: Sequence[Row]) -> Sequence[float]:
        """Nats a token of each row's answer. Raises BadExamples."""
        return list(self.of([self.conversations.example(row) for row in rows])[0])

    def of(self, examples: Sequence[Example]) -> tuple[Floats, NDArray[np.bool_]]:
        """(nats a token, whether all of it would be chosen), of each example."""
        return self._measure(examples, self.student.trained)

    def base(self, examples: Sequence[Example]) -> tuple[Floats, NDArray[np.bool_]]:
        """The same without the adapter."""
        return self._measure(examples, None)


def measure(student: Student, window: int, rows: int = 2) -> Any:
    """A function of (examples, what is trained or None) to (nats a token, chosen) of each."""
    bare = without_adapter(student)

    @jax.jit
    def found(trained: Any, frozen: Any, batch: Batch) -> tuple[Any, Any]:
        parameters = (bare if trained is None else student).parameters(trained or {}, frozen)
        return log_likelihoods(student, parameters, batch, window, "layers")

    def measured(examples: Sequence[Example], trained: Any) -> tuple[Floats, NDArray[np.bool_]]:
        losses, chosen = list[Floats](), list[Floats]()
        for batch in pack(examples, window, rows, share=True):
            found_W, best_W = jax.device_get(found(trained, student.frozen, batch))
            owners, weights = batch.owners_W, batch.weights_W
            count = int(batch.slots_T.max()) + 1
            total = np.bincount(owners, weights, count)
            losses.append(-np.bincount(owners, found_W * weights, count) / total)
            chosen.append(np.bincount(owners, best_W * weights, count) / total)
        return np.concatenate(losses), np.concatenate(chosen) > 1 - 1e-6

    return measured
