"""Training: tokens a second of an adapter for SmolLM2 and of a 10M model from nothing, beside PyTorch.

What: two tasks, each given to both sides with the same weights, examples, optimiser and schedule: `lora` (rank 16
    on all matrices of SmolLM2-135M, conversations of Python's documentation, f32 arithmetic) and `scratch` (a
    decoder of ten million parameters, windows of 512 tokens of the same documents). PyTorch is transformers, peft
    and torch, eager, in an interpreter of its own.
Invariant: sides take turns (A B A B), each in the micro-batch that was its fastest; loss curves are compared step by
    step; `tokens` are those of examples, padding aside. `mfu` counts 6 operations a trained parameter and token, 4 a
    frozen one, no recomputation, over this machine's best measured f32 product. Peak memory is each process's own. A
    run that was broken off goes on with the task where it was.
Interface: `run(quick, progress)`. Keys `<figure>.<task>`; without PyTorch those that need it are left out.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.figures import Figures, Progress, digest
from benchmarks.kept import Kept
from benchmarks.page_in_set import Entry, _entries
from benchmarks.plots import picture
from benchmarks.retrieval_set import FOLDERS
from llmos.abi.errors import DocumentError
from llmos.connect import load_config
from llmos.kernel.learn import budget

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODEL, DEPTH, VOCAB, WINDOW = "smollm2-135m", 5, 11_264, 512
WORKER = Path(__file__).with_name("reference") / "torch_training.py"
NEEDS = ("torch==2.13.*", "transformers>=5", "peft>=0.19")  # as the extra `bench-train` has them
PROBES = {"ours": (2, 2, 4, 4, 8, 8), "torch": (4, 1, 2, 4, 8, 16)}  # rows; examples. A step each
Steps = list[list[tuple[list[int], list[int]]]]  # examples by step: tokens, and whether each is a target


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    learn = Path(budget.__file__).parent
    made_by = digest(learn, sorted(file.stem for file in learn.glob("*.py")), PROBES, NEEDS)
    kept = Kept(load_config(None).machine.cache / "benchmarks" / f"train{'-quick' * quick}.jsonl", made_by)
    peak = max(budget.speed() for _ in range(3))
    python = interpreter(progress)
    notes = [f"best f32 product of this machine: {peak / 1e9:.0f} GFLOP/s"]
    if python is None:
        notes.append("PyTorch, transformers and peft could not be installed: no comparison")
    values: dict[str, float] = {}
    curves: dict[str, dict[str, list[float]]] = {}
    turns, each = (2, 1) if quick else (4, 3)
    for name, make in (("lora", _lora), ("scratch", _scratch)):
        if kept.get(name) is None:
            with tempfile.TemporaryDirectory() as folder:
                task = make(Path(folder), len(PROBES["ours"]) + turns * each)
                progress(f"{name}: {task['operations'] / 1e6:.0f} million operations a token")
                kept.put(name, _measured(name, Path(folder), task, python, turns, each, peak, progress))
        found, curves[name], told = kept.get(name)
        values |= found
        notes += told
    notes += kept.notes
    kept.done()
    return Figures(values, (MODEL,), tuple(notes), partial(_draw, curves))


def _measured(
    name: str, folder: Path, task: dict[str, Any], python: str | None, turns: int, each: int, peak: float,
    progress: Progress,
) -> tuple[dict[str, float], dict[str, list[float]], list[str]]:  # fmt: skip
    """Figures, the losses of each side, and what to know beside them."""
    notes = list[str]()
    commands = {"ours": [sys.executable, "-m", "benchmarks.train_ours", str(folder)]}
    if python is not None:
        commands["torch"] = [python, str(WORKER), str(folder)]
    sides = {side: Side(command) for side, command in commands.items()}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    try:
        for side, worker in sides.items():
            worker.choose(PROBES[side], task["tokens"])
            progress(f"{name}, {side}: fastest with {worker.micro} a micro-batch")
            notes.append(f"{name}: {side} {worker.version}, {worker.micro} a micro-batch")
        for turn in range(turns):
            first = len(PROBES["ours"]) + turn * each
            for side, worker in sides.items():
                seconds = worker.ask(first, first + each, worker.micro)
                rates[side].append(sum(task["tokens"][first : first + each]) / seconds)
                progress(f"{name}, {side}: {rates[side][-1]:.0f} tokens/s, loss {worker.losses[-1]:.4f}")
    finally:
        for worker in sides.values():
            worker.close()
    values: dict[str, float] = {}
    for side, worker in sides.items():
        prefix, rate = ("" if side == "ours" else "torch_"), statistics.median(rates[side])
        values |= {
            f"{prefix}tokens_per_s.{name}": rate, f"{prefix}mfu.{name}": rate * task["operations"] / peak,
            f"{prefix}peak_mib.{name}": worker.peak_mib,
        }  # fmt: skip
    if "torch" in sides:
        ours, theirs = (np.array(sides[side].losses) for side in ("ours", "torch"))
        ratios = [a / b for a, b in zip(rates["ours"], rates["torch"], strict=True)]
        values[f"vs_torch_ratio.{name}"] = statistics.median(ratios)
        values[f"loss_gap.{name}"] = float(np.abs(ours / theirs - 1).max())
    return values, {side: worker.losses for side, worker in sides.items()}, notes


def _draw(curves: dict[str, dict[str, list[float]]], folder: Path) -> list[Path]:
    """The losses of both sides, step by step."""

    def paint(axes: Axes) -> None:
        for number, (task, sides) in enumerate(curves.items()):
            for (side, losses), style in zip(sides.items(), ("-", "o"), strict=False):
                axes.plot(range(1, len(losses) + 1), losses, style, color=f"C{number}", label=f"{task}, {side}",
                          fillstyle="none")  # fmt: skip
        axes.set(xlabel="step", ylabel="loss (nats a token)", title="The same steps here and in PyTorch")
        axes.legend()

    return picture(folder, "train", paint)


class Side:
    """One side's process."""

    def __init__(self, command: Sequence[str]) -> None:
        quiet = {
            **os.environ,
            "OMP_WAIT_POLICY": "PASSIVE",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_OFFLINE": "1",
        }
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=quiet
        )
        self.version: str = self._answer()["version"]
        self.micro, self.losses, self.peak_mib = 0, list[float](), 0.0

    def ask(self, first: int, end: int, micro: int) -> float:
        """Seconds of the steps from `first` to before `end`."""
        assert self._process.stdin is not None
        print(json.dumps({"steps": [first, end], "micro": micro}), file=self._process.stdin, flush=True)
        said = self._answer()
        self.losses += said["losses"]
        self.peak_mib = said["peak_mib"]
        seconds: float = said["seconds"]
        return seconds

    def choose(self, candidates: Sequence[int], tokens: Sequence[int]) -> None:
        """Takes the micro-batch with the most tokens a second; of one that is tried twice the second time counts."""
        rates = {m: tokens[step] / self.ask(step, step + 1, m) for step, m in enumerate(candidates)}
        self.micro = max(rates, key=lambda m: rates[m])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


# -- the tasks


def _lora(folder: Path, steps: int) -> dict[str, Any]:
    """An adapter beside SmolLM2: 16 questions and answers a step, the answers count."""
    from llmos.drivers.weights import find, open_weights
    from llmos.drivers.weights.adapter import write_adapter
    from llmos.kernel.learn.data import Conversations, Row
    from llmos.kernel.learn.pretrain import save_model
    from llmos.kernel.learn.student import adapted, whole

    weights = open_weights(find(MODEL))
    conversations = Conversations(weights, WINDOW)
    chosen = [e for e in entries() if 200 <= len(e.text) <= 1_200][: 16 * steps]
    examples = []
    for i, entry in enumerate(chosen):
        row = Row(str(i), {"prompt": f"What is {entry.name}?", "completion": entry.text})
        example = conversations.example(row)
        examples.append((example.tokens.tolist(), example.weights.astype(int).tolist()))
    student = whole(weights, WINDOW)
    _folder(folder / "model")
    save_model(student.config, student.trained, folder / "model")
    taught = adapted(weights, WINDOW, rank=16)
    write_adapter(taught.adapter(taught.trained), folder / "adapter")
    trained, held = taught.count()
    operations = 4 * (held - trained) + 6 * trained
    by_step = [examples[at : at + 16] for at in range(0, len(examples), 16)]
    return _task(folder, by_step, {"model": MODEL, "rate": 2e-4, "operations": operations})


def _scratch(folder: Path, steps: int) -> dict[str, Any]:
    """A new decoder: 16 windows a step."""
    from tokenizers import Tokenizer

    from llmos.kernel.learn.pretrain import END, save_model, shape, vocabulary
    from llmos.kernel.learn.student import fresh

    _folder(folder / "model")
    texts = [entry.chunk for entry in entries()]
    tokenizer: Tokenizer = vocabulary(texts, VOCAB, folder / "model")
    end = tokenizer.token_to_id(END)
    stream = [t for e in tokenizer.encode_batch(texts) for t in (*e.ids, end)]
    windows = [
        (stream[at : at + WINDOW], [0] + [1] * (WINDOW - 1)) for at in range(0, len(stream) - WINDOW, WINDOW)
    ]
    vocab = tokenizer.get_vocab_size()
    student = fresh(shape(DEPTH, vocab, WINDOW), 0, WINDOW)
    save_model(student.config, student.trained, folder / "model")
    by_step = [[windows[i % len(windows)] for i in range(16 * s, 16 * s + 16)] for s in range(steps)]
    about = {"depth": DEPTH, "vocab": vocab, "rate": 1e-3, "operations": 6 * student.count()[0]}
    return _task(folder, by_step, about)


def _task(folder: Path, steps: Steps, about: dict[str, Any]) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for i, examples in enumerate(steps):
        arrays[f"{i}.tokens"] = np.concatenate([np.array(tokens) for tokens, _ in examples])
        arrays[f"{i}.counts"] = np.concatenate([np.array(counts) for _, counts in examples])
        arrays[f"{i}.ends"] = np.cumsum([len(tokens) for tokens, _ in examples])
    np.savez(folder / "steps.npz", **arrays)
    task = {
        "steps": len(steps), "window": WINDOW, "warm_up": 0.1, "floor": 0.1, "clip": 1.0, "betas": [0.9, 0.99],
        "threads": os.cpu_count(), "tokens": [sum(len(t) for t, _ in examples) for examples in steps], **about,
    }  # fmt: skip
    (folder / "task.json").write_text(json.dumps(task))
    return task


def _folder(path: Path) -> None:
    path.mkdir(parents=True)


def entries() -> list[Entry]:
    """The entries of Python's documentation, in an order that is a function of them.

    Raises:
        DocumentError: python3.11-doc is not installed.
    """
    if not FOLDERS[0].exists():
        raise DocumentError(f"{FOLDERS[0]} is not here", do="install Debian's package python3.11-doc")
    found = [e for folder in FOLDERS for file in sorted(folder.glob("*.rst.txt")) for e in _entries(file)]
    return sorted(found, key=lambda e: hashlib.sha256(e.chunk.encode()).digest())


# -- PyTorch


def interpreter(progress: Progress) -> str | None:
    """A Python with PyTorch: this one, else one in the cache, made where it is missing; None where that fails."""
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft")):
        return sys.executable
    home = load_config(None).machine.cache / "bench-train"
    python = home / "bin" / "python"
    try:
        if not (home / "whole").exists():
            progress(f"installing {', '.join(NEEDS)} into the cache")
            venv.create(home, clear=True, with_pip=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS], check=True, stdout=sys.stderr)
            (home / "whole").touch()
    except (OSError, subprocess.CalledProcessError):
        return None
    return str(python)
