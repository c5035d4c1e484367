"""What a run will take, said before it begins.

What: bytes of weights, gradients, optimiser and activations, and the time from the arithmetic and this machine's
    measured speed.
Interface: `budget(student, ...)` -> `Budget`; `check(budget)` refuses what does not fit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llmos.abi.errors import LearningError
from llmos.drivers.doctor import memory
from llmos.kernel.learn.objective import CHUNK, LOGITS
from llmos.kernel.learn.student import Remember, Student

SHARE = 0.5  # of a machine's best product that a whole step reaches; measured on two CPUs (docs/learning.md)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes, and seconds of the whole run."""

    weights: int
    learning: int  # what is trained, its gradient twice (a sum and a new one), two moments
    activations: int
    seconds: float
    remember: Remember

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.learning + self.activations


def budget(student: Student, tokens: int, micro_tokens: int, length: int, room: int | None = None) -> Budget:
    """What `tokens` tokens in micro-batches of `micro_tokens`, rows of `length`, will take.

    Args:
        room: bytes that may be used; where remembering every product would take more, only layers' borders are
            remembered. None: what the machine has free.
    """
    c = student.config
    room = memory()[1] if room is None else room
    frozen = sum(x.nbytes for x in jax.tree.leaves(student.frozen))
    learning = 5 * sum(x.nbytes for x in jax.tree.leaves(student.trained))
    products = (c.heads + 2 * c.kv_heads) * c.head_dim + 2 * c.dim + 2 * c.ffn
    inside = (
        2 * micro_tokens * (products + 2 * c.ffn + 2 * c.heads * length)
    )  # of one layer, forward and backward
    borders = c.layers * micro_tokens * c.dim
    head = 3 * min(micro_tokens * c.vocab, max(LOGITS, CHUNK * c.vocab))
    small = 4 * (inside + borders + head)
    large = small + 4 * c.layers * micro_tokens * products
    remember: Remember = "products" if frozen + learning + large < room else "layers"
    activations = large if remember == "products" else small
    _, held = student.count()
    per_token = (4 if student.adapts else 6) * held + (2 * held if remember == "layers" else 0)
    per_token += 12 * c.layers * c.heads * c.head_dim * min(length, 512)
    seconds = tokens * per_token / (SHARE * speed())
    return Budget(frozen, learning, activations, seconds, remember)


def check(budget: Budget) -> None:
    """Raises LearningError where a run does not fit the machine's free memory."""
    free = memory()[1]
    if budget.total > free:
        raise LearningError(
            f"the run needs {budget.total / 2**30:.1f} GiB, {free / 2**30:.1f} are free",
            why="weights, gradients, optimiser and activations together",
            do="lower --window, --batch or --rank, or keep the base as int8",
        )


def speed() -> float:
    """Operations a second of an f32 product of this machine, measured."""
    n = 1024
    x = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(x).block_until_ready()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        product(x).block_until_ready()
        took.append(time.perf_counter() - began)
    return 2 * n**3 / min(took)
