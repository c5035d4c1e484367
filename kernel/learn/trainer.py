"""One training run: steps over batches, until the data or the time is used up.

What: gradient accumulation over micro-batches, clipping, AdamW with warm-up and cosine decay (optax), checkpoints.
Invariant: the same data, recipe and seed give the same curve, whether the run was killed and resumed or not (on one
    kind of device and number of threads). A step whose loss or gradient is no number is never applied: the run ends
    with TrainingDiverged and the last good checkpoint.
Interface: `Trainer(student, objective, recipe, folder)`, `.run(batches, watch)` -> `Learnt`; `Recipe`, `Point`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llmos.abi.errors import Cancelled, CheckpointError, TrainingDiverged
from llmos.kernel.learn.objective import Objective, Sums
from llmos.kernel.learn.packing import Batch
from llmos.kernel.learn.saved import Checkpoints
from llmos.kernel.learn.student import Student, Tree
from llmos.kernel.model.config import ModelConfig

Micro = Iterable[Batch]  # what one step accumulates


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to learn. `steps` is the whole run's, on which the decay of the rate depends."""

    steps: int
    rate: float = 2e-4  # highest learning rate
    warm_up: float = 0.05  # share of the steps in which the rate rises
    floor: float = 0.1  # share of the highest rate that is left at the end
    decay: float = 0.0  # weight decay, of matrices only
    clip: float = 1.0  # greatest norm of a step's gradient
    betas: tuple[float, float] = (0.9, 0.99)
    save_every: float = 120.0  # seconds between checkpoints

    def rate_of(self, step: int) -> float:
        """A step's learning rate: up in a line, down along a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
        up = max(1, round(self.steps * self.warm_up))
        if step < up:
            return self.rate * (step + 1) / up
        done = (step - up) / max(1, self.steps - up)
        return self.rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2)


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the curve."""

    step: int
    loss: float
    norm: float  # of the gradient, before clipping
    tokens: int  # seen so far, padding aside
    seconds: float  # of this step
    seen: dict[str, float]  # what else the objective reports


@dataclass(frozen=True, slots=True)
class Learnt:
    """What came of a run."""

    trained: Tree
    curve: tuple[Point, ...]


Watch = Callable[[Point], None]


class Trainer:
    """Runs one recipe. `folder` None keeps no checkpoints."""

    def __init__(
        self, student: Student, objective: Objective, recipe: Recipe, folder: Path | None = None
    ) -> None:
        self.student, self.recipe = student, recipe
        self.saved = None if folder is None else Checkpoints(folder)
        of = (student.config, student.scale, student.base)
        self._do = _compiled(*of, objective, recipe.clip, recipe.betas, recipe.decay)
        self._trained = jax.tree.map(jnp.array, student.trained)  # its own: a step overwrites it
        self._state = self._do.optimiser.init(self._trained)
        self._curve: list[Point] = []

    @property
    def learnt(self) -> Learnt:
        """As far as it has come. The next step overwrites it."""
        return Learnt(self._trained, tuple(self._curve))

    def run(
        self, batches: Callable[[int], Micro], watch: Watch, stop: Callable[[], bool] = lambda: False
    ) -> Learnt:
        """Learn until `recipe.steps`; goes on from the newest checkpoint in its folder.

        Args:
            batches: the micro-batches of a step, 0-based; a function of the step alone.
            watch: called behind each step.
            stop: asked before each step; once true, a checkpoint is kept and the run ends.

        Raises:
            TrainingDiverged: a loss or gradient was no number.
            Cancelled: `stop` said so; the checkpoint is there.
            DiskFull: of a checkpoint.
        """
        self._resume()
        last = time.monotonic()
        for step in range(len(self._curve), self.recipe.steps):
            if stop():
                self._save(step)
                raise Cancelled(f"training stopped before step {step}", do="run the same command to go on")
            self._curve.append(self._step(step, batches(step)))
            watch(self._curve[-1])
            if time.monotonic() - last > self.recipe.save_every or step + 1 == self.recipe.steps:
                self._save(step + 1)
                last = time.monotonic()
        return self.learnt

    def _step(self, step: int, micro: Micro) -> Point:
        began = time.monotonic()
        batches = list(micro)
        if not batches:
            raise ValueError(f"step {step} has no batches")
        tokens = sum(batch.tokens for batch in batches) + (self._curve[-1].tokens if self._curve else 0)
        rate, frozen = np.float32(self.recipe.rate_of(step)), self.student.frozen
        if len(batches) == 1:
            done = self._do.once(self._trained, self._state, frozen, batches[0], rate)
        else:
            grads, sums = self._do.gradient(self._trained, frozen, batches[0])
            for batch in batches[1:]:
                more = self._do.gradient(self._trained, frozen, batch)
                grads, sums = self._do.add((grads, sums), more)
            done = self._do.apply(self._trained, self._state, grads, sums, rate)
        self._trained, self._state, said = done
        loss, norm, seen = jax.device_get(said)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._save(step)
            raise TrainingDiverged(
                f"the loss of step {step} is {loss}, its gradient's norm {norm}",
                why="the rate is too high, or an example makes no sense",
                do=f"nothing of the step was kept: the state before it stands; lower the rate ({self.recipe.rate:g})",
            )
        seen = {name: float(value) for name, value in seen.items()}
        return Point(step, float(loss), float(norm), tokens, time.monotonic() - began, seen)

    def _save(self, step: int) -> None:
        if self.saved is not None:
            curve = [asdict(p) for p in self._curve]
            self.saved.save(
                step, (self._trained, self._state), {"recipe": _named(self.recipe), "curve": curve}
            )

    def _resume(self) -> None:
        found = None if self.saved is None else self.saved.newest((self._trained, self._state))
        if found is None:
            return
        (trained, state), said = found
        if said["recipe"] != _named(self.recipe):
            raise CheckpointError(
                "the checkpoints here are of another recipe",
                why=f"begun with {said['recipe']}",
                do="run with the same settings to go on, or choose another folder",
            )
        self._trained, self._state = trained, state
        self._curve = [Point(**p) for p in said["curve"]]


def adamw(clip: float, betas: tuple[float, float], decay: float) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) but for the rate, which each step is given: so runs that
    differ in length or rate only share what was compiled."""

    def matrices(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, x: x.ndim >= 2 and "norm" not in str(path), tree)

    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.scale_by_adam(*betas),
        optax.add_decayed_weights(decay, mask=matrices) if decay else optax.identity(),
    )


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A step's parts: `once` is the whole of a step of one batch, whose gradient is never stored."""

    optimiser: optax.GradientTransformation
    gradient: Callable[..., Any]
    add: Callable[..., Any]
    apply: Callable[..., Any]
    once: Callable[..., Any]


@lru_cache(maxsize=8)
def _compiled(
    config: ModelConfig, scale: float, base: str, objective: Objective, clip: float, betas: tuple[float, float],
    decay: float,
) -> _Compiled:  # fmt: skip
    """Compiled once for all runs of one shape: an objective asks its student for that alone."""
    student = Student(config, {}, {}, scale, base)
    optimiser = adamw(clip, betas, decay)

    def gradient(trained: Tree, frozen: Tree, batch: Batch) -> tuple[Tree, Sums]:
        def loss(trained: Tree) -> tuple[Any, Sums]:
            sums = objective(student, trained, frozen, batch)
            return sums.loss, sums

        (_, sums), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        return grads, sums

    def apply(trained: Tree, state: Any, grads: Tree, sums: Sums, rate: Any) -> tuple[Tree, Any, Any]:
        weight = jnp.maximum(sums.weight, jnp.float32(1e-9))
        grads = jax.tree.map(lambda g: g / weight, grads)
        norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of an integer
            updates, after = optimiser.update(grads, state, trained)
        moved = jax.tree.map(lambda w, u: w - rate * u, trained, updates)
        good = jnp.isfinite(sums.loss) & jnp.isfinite(norm)
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), (moved, after), (trained, state))
        said = {name: value / weight for name, value in sums.seen.items()}
        return *kept, (sums.loss / weight, norm, said)

    def once(trained: Tree, state: Any, frozen: Tree, batch: Batch, rate: Any) -> tuple[Tree, Any, Any]:
        grads, sums = gradient(trained, frozen, batch)
        return apply(trained, state, grads, sums, rate)

    return _Compiled(
        optimiser,
        jax.jit(gradient),
        jax.jit(lambda a, b: jax.tree.map(jnp.add, a, b), donate_argnums=0),
        jax.jit(apply, donate_argnums=(0, 1)),
        jax.jit(once, donate_argnums=(0, 1)),
    )


def _named(recipe: Recipe) -> dict[str, Any]:
    """What must not change between a run and its resumption."""
    said = asdict(recipe) | {"betas": list(recipe.betas)}
    del said["save_every"]
    return said
