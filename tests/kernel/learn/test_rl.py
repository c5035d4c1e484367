"""A tiny model improves on its own answers: by the right gradient, the same way after a kill, and not by accident."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.abi.errors import Cancelled, CheckpointError, EngineError, LearningError, NoSignal
from llmos.cli.learn_rl import Shown
from llmos.drivers.weights import Weights, find, open_weights
from llmos.drivers.weights.adapter import read_adapter
from llmos.kernel.engine.sampling import Randomness
from llmos.kernel.learn.arena import Arena
from llmos.kernel.learn.course import Course
from llmos.kernel.learn.domains import draw
from llmos.kernel.learn.journey import Plan, travel
from llmos.kernel.learn.ladder import Ladder
from llmos.kernel.learn.objective import log_likelihoods
from llmos.kernel.learn.packing import Batch
from llmos.kernel.learn.policy import START, Chosen, Grouped, Lesson, Policy, batches
from llmos.kernel.learn.rl import Effort, Told, improve
from llmos.kernel.learn.rounds import Rounds
from llmos.kernel.learn.student import Student, adapted
from llmos.kernel.model.config import ModelConfig
from tests.kernel.learn.bandit import Bandit, Constant, Easy
from tests.kernel.learn.little import WINDOW, tiny

EFFORT = Effort(
    rounds=6, groups=6, count=6, window=WINDOW, micro=40, rate=2e-2, rank=8, pull=1e-3, keep="f32", save_every=0.0
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def weights(model: Path) -> Weights:
    return open_weights(find(str(model)))


@pytest.fixture(scope="module")
def arena(weights: Weights) -> Iterator[Arena]:
    with Arena(weights, Bandit(), WINDOW) as made:
        yield made


class Seen:
    """Who watches."""

    def __init__(self) -> None:
        self.rounds: list[Told] = []

    def begins(self, budget: Any, effort: Effort) -> None:
        assert budget.total > 0

    def round(self, told: Told) -> None:
        self.rounds.append(told)


# -- what is learnt from a group


def test_worth_is_what_an_answer_is_above_its_group() -> None:
    worths = Grouped().worths([1, 0, 0, 1])
    assert worths == [1, -1, -1, 1]
    assert Grouped(spread=False).worths([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]
    assert Chosen().worths([1, 0.1, 1, 0]) == [0.5, 0, 0.5, 0]
    for strategy in (Grouped(), Chosen()):
        for same in ([0.0] * 4, [1.0] * 4, [0.1] * 4):
            assert strategy.worths(same) == [0] * 4


def lessons(student: Student, rng: np.random.Generator, count: int = 5) -> list[Lesson]:
    """Answers of random tokens, each with the log-probability that the student gives it."""
    out = []
    for i in range(count):
        size, said = int(rng.integers(6, 20)), int(rng.integers(2, 5))
        tokens = tuple(rng.integers(0, student.config.vocab, size).tolist())
        out.append(Lesson(tokens, (0.0,) * said, float(i - 2)))
    drawn: list[list[float]] = [[] for _ in out]
    (batch,) = batches(out, WINDOW, 8)
    found = _said(student, batch)
    for owner, value, weight in zip(batch.owners_W, found, batch.weights_W, strict=True):
        if weight:
            drawn[owner].append(float(value))
    return [dataclasses.replace(one, logprobs=tuple(d)) for one, d in zip(out, drawn, strict=True)]


def _said(student: Student, batch: Any) -> Any:
    return np.asarray(_sayer(student.config, student.scale)(student.trained, student.frozen, batch))


@lru_cache
def _sayer(config: ModelConfig, scale: float) -> Any:
    """Compiled once for all batches of a shape."""
    student = Student(config, {}, {}, scale)

    def said(trained: Any, frozen: Any, batch: Batch) -> Any:
        return log_likelihoods(student, student.parameters(trained, frozen), batch, WINDOW, "products")[0]

    return jax.jit(said)


@pytest.fixture(scope="module")
def student(weights: Weights) -> Student:
    made = adapted(weights, WINDOW, rank=4, keep="f32")
    trained = jax.tree.map(lambda x: x + 0.02 * jax.random.normal(jax.random.key(1), x.shape), made.trained)
    return dataclasses.replace(made, frozen={**made.frozen, START: made.trained}, trained=trained)


def test_each_prediction_has_its_own_answers_worth_and_what_drew_it(student: Student) -> None:
    made = lessons(student, np.random.default_rng(0), 9)
    for rows in (1, 2, 8):
        seen = []
        for batch in batches(made, WINDOW, rows):
            counted = batch.weights_W > 0
            seen += list(
                zip(batch.targets_W[counted], batch.drawn_W[counted], batch.worth_W[counted], strict=True)
            )
        wanted = [
            (token, np.float32(logprob), np.float32(one.worth))
            for one in made
            for token, logprob in zip(one.tokens[-len(one.logprobs) :], one.logprobs, strict=True)
        ]
        assert sorted(seen) == sorted(wanted)
    (batch,) = batches(made, WINDOW, 16, "answer")
    assert batch.weights_W.sum() == pytest.approx(len(made))


def test_the_gradient_is_the_policys_and_points_to_what_is_worth_more(student: Student) -> None:
    made = lessons(student, np.random.default_rng(1))
    (batch,) = batches(made, WINDOW, 8)
    objective = Policy(length=WINDOW, pull=0.0)

    def loss(trained: Any) -> Any:
        return objective(student, trained, student.frozen, batch).loss

    def worth(trained: Any) -> Any:  # REINFORCE (Williams 1992): what it is where nothing has moved yet
        parameters = student.parameters(trained, student.frozen)
        said_W, _ = log_likelihoods(student, parameters, batch, WINDOW, "products")
        return -jnp.sum(jnp.asarray(batch.weights_W * batch.worth_W) * said_W)

    slope, wanted = jax.jit(jax.grad(loss))(student.trained), jax.jit(jax.grad(worth))(student.trained)
    for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(wanted), strict=True):
        assert np.allclose(a, b, rtol=1e-3, atol=1e-4)
    norm = np.sqrt(sum(float(jnp.vdot(g, g)) for g in jax.tree.leaves(slope)))
    step = 1e-2 / norm
    moved = dataclasses.replace(
        student, trained=jax.tree.map(lambda w, g: w - np.float32(step) * g, student.trained, slope)
    )
    change = (_said(moved, batch) - _said(student, batch)) * batch.weights_W
    risen = [float(change[batch.owners_W == i].sum()) for i in range(len(made))]
    expected = norm * 1e-2  # first order
    assert float(np.dot(risen, [one.worth for one in made])) == pytest.approx(expected, rel=0.1)


def test_what_has_moved_out_of_bounds_is_not_followed_and_distance_pulls_back(student: Student) -> None:
    made = lessons(student, np.random.default_rng(2))
    far = [
        dataclasses.replace(one, logprobs=tuple(p - np.sign(one.worth) for p in one.logprobs)) for one in made
    ]
    (batch,) = batches(far, WINDOW, 8)
    for pull in (0.0, 0.5):
        sums, slope = _slope(Policy(length=WINDOW, pull=pull), student, batch)
        assert float(sums.seen["kl"]) > 0
        out = sum(len(one.logprobs) for one in far if one.worth)
        assert float(sums.seen["out"]) == pytest.approx(out)
        biggest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(slope))
        assert biggest == 0 if not pull else biggest > 0


def _slope(objective: Policy, student: Student, batch: Any) -> tuple[Any, Any]:
    def loss(trained: Any) -> Any:
        sums = objective(student, trained, student.frozen, batch)
        return sums.loss, sums

    (_, sums), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(student.trained)
    return sums, slope


# -- drawing


def test_answers_come_from_the_policy_that_learns_and_share_their_question(
    arena: Arena, weights: Weights, student: Student
) -> None:
    adapter = student.adapter(student.trained)
    tasks = [draw(arena.domain, "train", 0, _rng(i)) for i in range(5)]
    before = arena.sampler.counters.tokens
    groups = arena.ask(tasks, 20, randomness=Randomness(1), adapter=adapter)
    computed = arena.sampler.counters.tokens - before
    every = [one for group in groups for one in group]
    assert [len(group) for group in groups] == [20] * 5
    prompt = len(every[0].prompt)
    shared = prompt // 16 * 16
    assert shared
    assert all(one.drawn.cached >= (len(one.prompt) - 1) // 16 * 16 for group in groups for one in group[1:])
    assert computed < 5 * prompt + 100 * (prompt - shared + arena.domain.tokens) + 100
    assert len({one.text for one in every}) > 30
    ends = weights.tokenizer().eos_ids
    for one in every:
        assert one.drawn.ended == (one.drawn.tokens[-1] in ends)
        assert not ends & set(one.drawn.tokens[:-1])
        assert one.drawn.ended or len(one.drawn.tokens) == arena.domain.tokens
        assert one.verdict.reward == arena.domain.check(one.task, one.text)
    again = arena.ask(tasks[2:3], 3, randomness=Randomness(1), adapter=adapter)[0]
    assert len(again) == 3
    told = [Lesson((*one.prompt, *one.drawn.tokens), one.drawn.logprobs, 1.0) for one in every[:12]]
    off = [
        abs(np.asarray(batch.drawn_W - _said(student, batch))[batch.weights_W > 0])
        for batch in batches(told, WINDOW, 4)
    ]
    assert np.concatenate(off).max() < 0.1  # 8-bit products against f32


def _rng(seed: int) -> Any:
    from random import Random

    return Random(seed)


def test_the_same_randomness_draws_the_same_whoever_else_is_drawn(arena: Arena) -> None:
    tasks = [draw(arena.domain, "train", 0, _rng(i)) for i in range(3)]
    a = arena.ask(tasks, 9, randomness=Randomness(3))
    b = arena.ask(tasks[:1], 4, randomness=Randomness(3))
    assert [one.drawn.tokens for one in b[0]] == [one.drawn.tokens for one in a[0][:4]]
    greedy = arena.ask(tasks[:1], 3, randomness=Randomness(9), greedy=True)[0]
    assert len({one.drawn.tokens for one in greedy}) == 1
    with pytest.raises(EngineError, match="fit"):
        arena.sampler.draw([[1] * WINDOW], 1, tokens=4, randomness=Randomness(0))
    assert arena.ask(tasks[:1], 1, randomness=Randomness(3))[0][0].drawn == b[0][0].drawn


def test_levels_that_teach_are_asked() -> None:
    ladder = Ladder(levels=3, count=8)
    assert np.allclose(ladder.shares([]), 1 / 3)
    history = [{0: (32.0, 32), 1: (16.0, 32), 2: (0.0, 32)}] * 3
    easy, right, hard = ladder.shares(history)
    assert right > 0.5 > easy and hard > 0.04
    assert ladder.shares([*history, {0: (0.0, 64)}, {0: (0.0, 64)}])[0] > easy  # it has forgotten


# -- runs


@pytest.mark.parametrize("strategy", [Grouped(), Chosen()])
def test_the_reward_rises(arena: Arena, weights: Weights, tmp_path: Path, strategy: Any) -> None:
    watch = Seen()
    effort = dataclasses.replace(EFFORT, rounds=10, strategy=strategy)
    before = arena.marks(24, greedy=False)
    done = improve(weights, Bandit(), tmp_path, effort, arena=arena, watch=watch)
    rewards = [told.reward for told in watch.rounds]
    assert np.mean(rewards[-3:]) > rewards[0] + 0.5, rewards
    assert done.told == tuple(watch.rounds)
    assert done.told[0].kl == pytest.approx(0, abs=1e-6) and done.told[-1].kl > 0
    after = arena.marks(24, adapter=done.adapter, greedy=False)
    for old, new in zip(before, after, strict=True):
        assert new.reward > old.reward + 0.5, new.split
    said = json.loads((tmp_path / "rounds" / "round-00003.json").read_text())
    assert said["shown"][0].startswith("go ")
    assert len(json.loads((tmp_path / "rounds.json").read_text())) == len(done.told)


class Stopper:
    """Ends the run before step `at`."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self) -> bool:
        self.seen += 1
        return self.seen > self.at


def _same(a: Any, b: Any) -> bool:
    return bool(a.adapter.version == b.adapter.version)


def test_a_stopped_run_goes_on_the_way_it_went(arena: Arena, weights: Weights, tmp_path: Path) -> None:
    effort = dataclasses.replace(EFFORT, rounds=4, updates=2)
    whole = improve(weights, Bandit(), tmp_path / "whole", effort, arena=arena)
    with pytest.raises(Cancelled):
        improve(weights, Bandit(), tmp_path / "cut", effort, arena=arena, stop=Stopper(5))
    watch = Seen()
    cut = improve(weights, Bandit(), tmp_path / "cut", effort, arena=arena, watch=watch)
    assert _same(cut, whole)
    assert [told.number for told in watch.rounds] == [2, 3]
    assert [told.reward for told in cut.told] == [told.reward for told in whole.told]
    done = improve(weights, Bandit(), tmp_path / "cut", effort, arena=arena)  # nothing is left to do
    assert _same(done, whole)
    with pytest.raises(CheckpointError, match="another run"):
        improve(weights, Bandit(), tmp_path / "cut", dataclasses.replace(effort, seed=1), arena=arena)
    for checkpoint in (tmp_path / "cut" / "checkpoints").iterdir():
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    again = improve(weights, Bandit(), tmp_path / "cut", effort, arena=arena)  # from what was drawn alone
    assert _same(again, whole)
    (tmp_path / "cut" / "rounds" / "round-00001.json").write_text("{")
    with pytest.raises(CheckpointError, match="damaged"):
        improve(weights, Bandit(), tmp_path / "cut", effort, arena=arena)
    assert Rounds(tmp_path / "cut" / "rounds").get(9) is None


KILLED = """
import sys
from pathlib import Path
from llmos.drivers.weights import find, open_weights
from llmos.kernel.learn.rl import improve
from tests.kernel.learn.bandit import Bandit
from tests.kernel.learn import test_rl
class Watch:
    def begins(self, *said): pass
    def round(self, told): print(told.number, flush=True)
improve(open_weights(find(sys.argv[1])), Bandit(), Path(sys.argv[2]), test_rl.EFFORT, watch=Watch())
"""


@pytest.mark.slow
def test_kill_9_changes_nothing(arena: Arena, model: Path, weights: Weights, tmp_path: Path) -> None:
    whole = improve(weights, Bandit(), tmp_path / "whole", EFFORT, arena=arena)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(model), str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[3], env=dict(os.environ),
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 2:
            child.send_signal(signal.SIGKILL)
            break
    child.stdout.close()
    child.wait()
    assert _same(improve(weights, Bandit(), tmp_path / "killed", EFFORT, arena=arena), whole)


def test_where_all_is_worth_the_same_nothing_is_learnt(weights: Weights, tmp_path: Path) -> None:
    for worth, told in ((0.0, "imitate"), (0.1, "each got 0.1"), (1.0, "all is right")):
        effort = dataclasses.replace(EFFORT, patience=2, groups=2)
        with pytest.raises(NoSignal, match=told) as raised:
            improve(weights, Constant(worth=worth), tmp_path / str(worth), effort)
        assert raised.value.mastered == (worth == 1.0)
        assert not (tmp_path / str(worth) / "adapter").exists()


def test_what_was_learnt_is_left_where_nothing_more_can_be(weights: Weights, tmp_path: Path) -> None:
    effort = dataclasses.replace(EFFORT, rounds=40, patience=1)
    done = improve(weights, Easy(), tmp_path / "easy", effort)
    assert done.mastered and 0 < len(done.told) < effort.rounds
    off, out = tmp_path / "off", tmp_path / "out"

    class Off(Stopper):
        """All is worth the same from step `at` on."""

        def __call__(self) -> bool:
            if super().__call__():
                off.touch()
            return False

    with pytest.raises(NoSignal, match="round 2") as raised:
        improve(weights, Bandit(off=str(off)), out, effort, stop=Off(2))
    assert not raised.value.mastered
    learnt = read_adapter(out / "adapter")
    assert any(low.b_NR.any() for layer in learnt.layers for low in layer.values())
    assert len(json.loads((out / "rounds.json").read_text())) == 2


def test_a_check_that_hangs_costs_its_answer_alone(weights: Weights, tmp_path: Path) -> None:
    effort = dataclasses.replace(EFFORT, rounds=1)
    domain = Bandit(odd="hang")
    with Arena(weights, domain, WINDOW, seconds=1.0) as arena:
        arena._referee.judge(domain.task(0, _rng(0), False), "ab")
        done = improve(weights, domain, tmp_path / "hangs", effort, arena=arena)
        assert 0 < done.told[0].faults < 36 * effort.patience
    with (
        Arena(weights, Bandit(odd="always"), WINDOW) as arena,
        pytest.raises(LearningError, match="one behind the other") as raised,
    ):
        improve(weights, Bandit(odd="always"), tmp_path / "broken", effort, arena=arena)
    assert "I never like it" in raised.value.why


def test_a_journey_is_measured_on_its_way_and_nothing_twice(weights: Weights, tmp_path: Path) -> None:
    effort = dataclasses.replace(EFFORT, rounds=2)
    course = Course(epochs=1.0, window=WINDOW, batch=8 * WINDOW, micro=8, rank=8, keep="f32")
    plan = Plan(imitate=24, course=course, effort=effort, held_out=4)
    told, again = io.StringIO(), io.StringIO()
    done = travel(weights, Bandit(), tmp_path, plan, watch=Shown(told))
    assert len(done.improved.told) == 2 and (tmp_path / "adapter" / "adapter_config.json").is_file()
    stages = [f"{stage}{kind}" for stage in ("before", "imitation", "after") for kind in ("", ", drawn")]
    assert set(done.marks) == {"teacher", *stages}
    for part in ("before", "teacher", "round   2 of 2", "KL", "0 s left", "other wording 0 of 4"):
        assert part in told.getvalue(), part
    assert travel(weights, Bandit(), tmp_path, plan, watch=Shown(again)).marks == done.marks
    assert "round " not in again.getvalue() and "step " not in again.getvalue()
    with pytest.raises(CheckpointError, match="another run"):
        travel(weights, Bandit(), tmp_path, dataclasses.replace(plan, held_out=5))
    (tmp_path / "journey" / "marks.json").write_text("[]")
    with pytest.raises(CheckpointError, match="damaged"):
        travel(weights, Bandit(), tmp_path, plan)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_goes_all_the_way(
    run_llmos: Callable[..., subprocess.CompletedProcess[str]], model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = (
        f"learn rl --domain tests.kernel.learn.bandit:Bandit --model {model} --out {out} --imitate 40 --rounds 2 "
        f"--groups 4 --count 4 --window {WINDOW} --held-out 4 --json --rate 0.01"
    ).split()
    done = run_llmos(*words, timeout=1000)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["rounds"] == 2 and Path(said["adapter"]).is_dir()
    assert said["marks"]["teacher"].keys() == {"fresh", "wording", "size"}
    assert "round   2 of 2" in done.stderr


def test_a_domain_that_is_not_there(
    run_llmos: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    refused = run_llmos("learn", "rl", "--domain", "sums", "--out", str(tmp_path))
    assert refused.returncode == 1 and "arithmetic, calculator" in refused.stderr
    both = run_llmos("learn", "rl", "--domain", "arithmetic", "--out", "x", "--imitate", "4", "--start", "y")
    assert both.returncode == 2 and "not allowed with" in both.stderr
