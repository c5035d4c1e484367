"""The training path against the serving path, finite differences, and itself: packed, accumulated, resumed."""

from __future__ import annotations

import dataclasses
import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.abi.errors import Cancelled, CheckpointError, DiskFull, TrainingDiverged
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.score import position_logits
from llmos.kernel.learn.course import Course, Order, run
from llmos.kernel.learn.objective import Likelihood, Preference
from llmos.kernel.learn.ops import Dense, TrainingOps, blocks_of, product
from llmos.kernel.learn.packing import Batch, Example, pack
from llmos.kernel.learn.pretrain import shape
from llmos.kernel.learn.saved import Checkpoints
from llmos.kernel.learn.student import Student, adapted, fresh, hidden, logits
from llmos.kernel.learn.trainer import Point, Recipe, Trainer
from llmos.kernel.model.attention import AttentionBatch
from llmos.kernel.model.load import load_model

WINDOW = 32


def example(rng: np.random.Generator, length: int, vocab: int = 64) -> Example:
    weights = np.ones(length, np.float32)
    weights[: max(1, length // 3)] = 0
    return Example(rng.integers(0, vocab, length).astype(np.int32), weights)


@pytest.mark.parametrize("form", ["int8", "bf16"])
def test_a_product_with_a_frozen_matrix_and_its_gradient_are_near_those_in_f32(form: str) -> None:
    """Whatever type this processor multiplies in: bf16 keeps 8 bits of each factor."""
    rng = np.random.default_rng(0)
    x_TK, w_NK = rng.standard_normal((40, 96)), rng.standard_normal((33, 96)).astype(np.float32)
    slope_TN = rng.standard_normal((40, 33))
    blocks, rounded = blocks_of(w_NK), jnp.asarray(w_NK, jnp.bfloat16)
    if form == "int8":
        frozen: Any = blocks
        kept_NK = np.asarray(blocks.values, np.float64) * np.asarray(blocks.scales, np.float64)[..., None]
        kept_NK = kept_NK.reshape(w_NK.shape)
    else:
        frozen, kept_NK = Dense(rounded), np.asarray(rounded, np.float64)
    y_TN, back = jax.vjp(lambda x: product(x, frozen), jnp.asarray(x_TK, jnp.float32))
    for got, want in (
        (y_TN, x_TK @ kept_NK.T),
        (back(jnp.asarray(slope_TN, jnp.float32))[0], slope_TN @ kept_NK),
    ):
        assert got.dtype == jnp.float32
        assert np.abs(np.asarray(got) - want).max() < 2e-2 * np.abs(want).max()


@pytest.fixture(scope="module")
def student() -> Student:
    config = dataclasses.replace(shape(1, 64, WINDOW), layers=2, ffn=96)
    return fresh(config, 0, WINDOW)


def loss_of(
    student: Student, batches: Sequence[Batch], objective: Any, trained: Any = None
) -> tuple[float, float]:
    trained = student.trained if trained is None else trained
    measure = _measure(student.config, student.scale, objective)
    sums = [measure(trained, student.frozen, batch) for batch in batches]
    return sum(float(s.loss) for s in sums), sum(float(s.weight) for s in sums)


@functools.cache
def _measure(config: Any, scale: float, objective: Any) -> Any:
    """Compiled once: what is measured many times."""
    student = Student(config, {}, {}, scale)
    return jax.jit(lambda trained, frozen, batch: objective(student, trained, frozen, batch))


def test_gradients_agree_with_finite_differences(student: Student) -> None:
    rng = np.random.default_rng(1)
    batches = list(pack([example(rng, n) for n in (9, 14, 7)], WINDOW, 1))
    objective = Likelihood(length=WINDOW)
    at = student.trained
    grads = jax.grad(lambda t: objective(student, t, student.frozen, batches[0]).loss)(at)
    for name in ("embed", "final_norm"):
        _check(student, at, grads, (name,), objective, batches, rng)
    for name in ("q", "o", "gate", "down", "attn_norm"):
        _check(student, at, grads, ("layers", name), objective, batches, rng)


def _check(
    student: Student, at: Any, grads: Any, path: tuple[str, ...], objective: Any, batches: Any, rng: Any
) -> None:
    """The slope along a random direction of one parameter, by central differences."""
    leaf, slope = at, grads
    for key in path:
        leaf, slope = leaf[key], slope[key]
    direction = rng.standard_normal(leaf.shape).astype(np.float32)
    step = 1e-2 / np.sqrt(direction.size)

    def moved(by: float) -> float:
        tree = jax.tree.map(lambda x: x, at)
        inside = tree
        for key in path[:-1]:
            inside = inside[key]
        inside[path[-1]] = leaf + np.float32(by) * direction
        return loss_of(student, batches, objective, tree)[0]

    measured = (moved(step) - moved(-step)) / (2 * step)
    expected = float(jnp.sum(slope * direction))
    assert measured == pytest.approx(expected, rel=0.03, abs=0.02), path


@pytest.mark.parametrize("remember", ["products", "layers"])
def test_packed_sequences_do_not_see_each_other(student: Student, remember: Any) -> None:
    rng = np.random.default_rng(2)
    examples = [example(rng, n) for n in (5, 20, 11, 8, 17)]
    objective = Likelihood(length=WINDOW, remember=remember)
    together = loss_of(student, list(pack(examples, WINDOW, 2)), objective)
    alone = np.sum([loss_of(student, list(pack([e], WINDOW, 1)), objective) for e in examples], axis=0)
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert together[1] == alone[1] == sum(e.weights[1:].sum() for e in examples)


def _alike(rng: np.random.Generator) -> list[Example]:
    """Examples of which several begin alike; all tokens of some count, of one its own beginning is all there is."""
    begins = [rng.integers(0, 64, n) for n in (9, 12)]
    made = []
    for i, n in enumerate((6, 3, 8, 1, 5, 4, 7)):
        tokens = np.concatenate([begins[i % 3 == 0], rng.integers(0, 64, n)]).astype(np.int32)
        weights = rng.random(len(tokens)).astype(np.float32)
        weights[: 1 if i % 2 else len(tokens) - n] = 0
        made.append(Example(tokens, weights))
    return [*made, made[0], Example(made[0].tokens[:10], made[1].weights[:10]), example(rng, 11)]


def test_a_beginning_that_is_shared_is_computed_once_and_nothing_else_changes(student: Student) -> None:
    examples = _alike(np.random.default_rng(5))
    objective = Likelihood(length=WINDOW)
    alone, shared = (list(pack(examples, WINDOW, 2, share=share)) for share in (False, True))
    assert sum(b.tokens for b in shared) < 0.7 * sum(b.tokens for b in alone)
    assert len(shared) < len(alone)

    @jax.jit
    def taught(trained: Any, batch: Batch) -> Any:
        def loss(trained: Any) -> Any:
            sums = objective(student, trained, student.frozen, batch)
            return sums.loss, sums.weight

        (value, weight), slope = jax.value_and_grad(loss, has_aux=True)(trained)
        return value, weight, slope

    slopes = []
    for batches in (alone, shared):
        found = [taught(student.trained, batch) for batch in batches]
        slopes.append(jax.tree.map(lambda *parts: sum(parts), *found))
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-5)


def test_each_prediction_keeps_its_owner_where_beginnings_are_shared() -> None:
    examples = _alike(np.random.default_rng(6))
    first, found = 0, []
    for batch in pack(examples, WINDOW, 1, share=True):
        counts = batch.weights_W > 0
        places = batch.positions_T[batch.wanted_W] + 1
        found += list(zip(batch.owners_W[counts] + first, places[counts], batch.targets_W[counts],
                          batch.weights_W[counts], strict=True))  # fmt: skip
        first += int(batch.slots_T.max()) + 1
    wanted = [
        (i, at, e.tokens[at], e.weights[at])
        for i, e in enumerate(examples)
        for at in range(1, len(e))
        if e.weights[at]
    ]
    assert sorted(found) == sorted(wanted) and first == len(examples)


def test_a_group_stays_in_one_batch() -> None:
    rng = np.random.default_rng(3)
    examples = [example(rng, int(n)) for n in rng.integers(4, 20, 24)]
    seen = 0
    for batch in pack(examples, WINDOW, 2, together=2):
        count = int(batch.slots_T.max()) + 1
        assert count % 2 == 0
        seen += count
    assert seen == len(examples)
    with pytest.raises(ValueError, match="do not fit"):
        list(pack([example(rng, WINDOW + 1)], WINDOW, 2))


def test_the_training_path_computes_what_the_kernel_serves(weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    weights = open_weights(find("smollm2-135m"))
    tokens = weights.tokenizer().encode(
        "The notice period is three months, unless the contract says otherwise."
    )
    runner = ModelRunner(load_model(weights, mode="f32", window=64), pages=8, window=64)
    served = np.concatenate(list(position_logits(runner, tokens)))
    student = adapted(weights, 64, keep="f32", rank=4)
    T = 64
    ids = np.pad(np.asarray(tokens, np.int32), (0, T - len(tokens)))
    order = np.arange(T, dtype=np.int32)
    slots = np.where(order < len(tokens), 0, -1).astype(np.int32)
    batch = AttentionBatch(order, slots, np.zeros((1, 1), np.int32), np.int32(T))
    parameters = student.parameters(student.trained, student.frozen)

    @jax.jit
    def forward(parameters: Any) -> Any:
        x = hidden(student.config, parameters, ids, batch, TrainingOps(T))
        return logits(student.config, parameters, x, TrainingOps(T))

    learnt = np.asarray(forward(parameters))[: len(tokens)]
    assert np.abs(learnt - served).max() < 2e-2
    assert (learnt.argmax(-1) == served.argmax(-1)).all()


def test_int8_blocks_are_what_the_file_holds(weights_path: Callable[[str], Path]) -> None:
    weights_path("smollm2-135m")
    weights = open_weights(find("smollm2-135m"))
    kept = adapted(weights, 32, keep="int8", rank=1).frozen["layers"]["down"]
    tensor = weights.tensors["blk.3.ffn_down.weight"]
    wide = np.asarray(jax.tree.map(lambda x: x[3], kept).wide())
    exact = tensor.dequantise()
    assert np.abs(wide - exact).max() <= np.abs(exact).max() / 250
    assert not any(x.dtype == jnp.float32 and x.size > 1 << 20 for x in jax.tree.leaves(kept))


def test_preference_pushes_the_answers_apart(student: Student) -> None:
    rng = np.random.default_rng(4)
    a = jax.random.normal(jax.random.key(0), (2, 2, 64)) * 0.1
    low = {name: {"a": a, "b": jnp.zeros((2, 64, 2))} for name in ("q", "o")}
    frozen = student.parameters(student.trained, student.frozen)
    pupil = Student(student.config, frozen, low, 2.0)
    pairs = [(example(rng, 9), example(rng, 12)) for _ in range(6)]
    objective = Preference(length=WINDOW, pairs=6, beta=0.5)
    batches = list(pack([e for p in pairs for e in p], WINDOW, 4, together=2))
    before = [objective(pupil, low, frozen, b) for b in batches]
    assert sum(float(s.weight) for s in before) == 6
    assert sum(float(s.loss) for s in before) == pytest.approx(6 * np.log(2), rel=1e-5)
    trainer = Trainer(pupil, objective, Recipe(steps=30, rate=0.05))
    learnt = trainer.run(lambda step: batches, lambda p: None)
    assert learnt.curve[-1].loss < 0.3
    assert learnt.curve[-1].seen["accuracy"] == 1.0


def data(count: int = 24) -> list[tuple[Example]]:
    rng = np.random.default_rng(5)
    return [(example(rng, int(n)),) for n in rng.integers(6, 30, count)]


COURSE = Course(steps=12, window=WINDOW, micro=1, batch=2 * WINDOW, rate=1e-2, save_every=0.0)


def likelihood(remember: Any) -> Likelihood:
    return Likelihood(length=WINDOW, remember=remember)


def test_accumulated_micro_batches_equal_one_large_batch(student: Student, tmp_path: Path) -> None:
    groups = data(4)
    curves = []
    for micro in (1, 4):
        course = dataclasses.replace(COURSE, steps=3, micro=micro, batch=4 * WINDOW)
        learnt, _ = run(student, groups, likelihood, tmp_path / str(micro), course)
        curves.append([p.loss for p in learnt.curve])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


class Stopper:
    """Ends the run before step `at`."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen > self.at


def test_a_stopped_run_goes_on_as_if_it_had_not(student: Student, tmp_path: Path) -> None:
    whole, _ = run(student, data(), likelihood, tmp_path / "whole", COURSE)
    with pytest.raises(Cancelled):
        run(student, data(), likelihood, tmp_path / "cut", COURSE, stop=Stopper(5))
    seen: list[Point] = []

    class Watch:
        def planned(self, *said: Any) -> None: ...

        def learnt(self, point: Point, steps: int) -> None:
            seen.append(point)

    cut, _ = run(student, data(), likelihood, tmp_path / "cut", COURSE, Watch())
    assert seen[0].step == 5
    assert [p.loss for p in cut.curve] == [p.loss for p in whole.curve]
    for a, b in zip(jax.tree.leaves(cut.trained), jax.tree.leaves(whole.trained), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()
    # A damaged newest checkpoint is passed over; another recipe is refused.
    newest = sorted((tmp_path / "cut" / "checkpoints").glob("step-*"))[-1]
    raw = bytearray((newest / "arrays.safetensors").read_bytes())
    raw[-1] ^= 1
    (newest / "arrays.safetensors").write_bytes(raw)
    again, _ = run(student, data(), likelihood, tmp_path / "cut", COURSE)
    assert [p.loss for p in again.curve] == [p.loss for p in whole.curve]
    with pytest.raises(CheckpointError, match="another recipe"):
        run(student, data(), likelihood, tmp_path / "cut", dataclasses.replace(COURSE, rate=1e-3))


KILLED = """
import sys
from pathlib import Path
from tests.kernel.learn import test_training as t
from llmos.kernel.learn.course import run
import dataclasses
student = t.fresh(dataclasses.replace(t.shape(1, 64, t.WINDOW), layers=2, ffn=96), 0, t.WINDOW)
class Watch:
    def planned(self, *said): pass
    def learnt(self, point, steps): print(point.step, flush=True)
run(student, t.data(), t.likelihood, Path(sys.argv[1]), t.COURSE, Watch())
"""


def test_kill_9_loses_nothing_that_was_kept(student: Student, tmp_path: Path) -> None:
    whole, _ = run(student, data(), likelihood, tmp_path / "whole", COURSE)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3], env=dict(os.environ),
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 4:
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    child.wait()
    resumed, _ = run(student, data(), likelihood, tmp_path / "killed", COURSE)
    assert [p.loss for p in resumed.curve] == [p.loss for p in whole.curve]


def test_a_loss_that_is_no_number_ends_the_run(student: Student, tmp_path: Path) -> None:
    course = dataclasses.replace(COURSE, rate=1e30)
    with pytest.raises(TrainingDiverged, match="step"):
        run(student, data(), likelihood, tmp_path, course)
    kept = sorted((tmp_path / "checkpoints").glob("step-*"))
    assert kept
    from safetensors.numpy import load_file

    for values in load_file(kept[0] / "arrays.safetensors").values():
        assert np.isfinite(values).all()


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    groups = data()
    a, b = Order(groups, COURSE), Order(groups, COURSE)
    for step in (0, 3, 7):
        for x, y in zip(a(step), b(step), strict=True):
            assert (x.tokens_T == y.tokens_T).all()
    other = Order(groups, dataclasses.replace(COURSE, seed=1))
    assert any((x.tokens_T != y.tokens_T).any() for x, y in zip(a(0), other(0), strict=True))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    saved = Checkpoints(tmp_path / "checkpoints")
    tree = {"x": jnp.arange(4.0)}
    saved.save(1, tree, {})

    class Broken:
        shape = (3,)

        def __array__(self, *given: object, **named: object) -> object:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull):
        saved.save(2, {"x": jnp.arange(4.0), "y": Broken()}, {})
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    found = saved.newest(tree)
    assert found is not None
    assert found[1]["step"] == 1
