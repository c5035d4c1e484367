"""Our logits against llama.cpp's in f32: top-1 agreement and mean KL, in f32 and in the default mode.

What: scores the recorded prompts (benchmarks/reference) with our runner, teacher-forced, and compares the 64
    forced positions of each. Keys: `top1_agreement.<model>` and `mean_kl.<model>` in f32, `*_quantised.<model>`
    in the default mode, and llama.cpp's own loss on the same file as `llama_cpp_*`.
Invariant: KL is over the reference's 64 likeliest tokens and one bucket for the rest (reference/kl.py).
Interface: `run`; `compare(runner, reference)` is what the parity tests call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.figures import Figures, Progress, models
from benchmarks.reference.kl import Head, divergence
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model.load import Mode

FOLDER = Path(__file__).parent / "reference"
WINDOW = 1024


@dataclass(frozen=True, slots=True)
class Recorded:
    """One prompt of the reference: all tokens, and the heads of its last `len(head.ids)` predictions."""

    tokens: npt.NDArray[np.int32]
    head: Head


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near we are, over all forced positions."""

    mean_kl: float
    max_kl: float
    top1: float


def reference(model: str, prompts: int | None = None) -> list[Recorded]:
    """The recorded prompts of a model, the first `prompts` of them."""
    data = np.load(FOLDER / f"{model}.npz")
    ends = np.cumsum(data["lengths"])
    return [
        Recorded(
            data["tokens"][end - length : end],
            Head(data["ids"][i], data["logprobs"][i], data["rest"][i]),
        )
        for i, (end, length) in enumerate(zip(ends[:prompts], data["lengths"], strict=False))
    ]


def llama_quantised(model: str) -> dict[str, float]:
    """What llama.cpp's own quantised arithmetic loses on the original file, by the same yardstick."""
    known: dict[str, dict[str, float]] = json.loads((FOLDER / "llama_quantised.json").read_text())
    return known[model]


def load(model: str, mode: Mode) -> ModelRunner:
    """A runner with just enough pool for one prompt."""
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.model.load import load_model

    loaded = load_model(open_weights(find(model)), mode=mode, window=WINDOW)
    return ModelRunner(loaded, pages=WINDOW // 16 + 1, page=16, window=WINDOW)


def forced_logits(
    runner: ModelRunner, tokens: npt.NDArray[np.int32], keep: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Logits f32 [n, V] after each of the last `keep` tokens; what stands before is computed without logits."""
    tables_BP = empty_tables(runner)
    used = -(-len(tokens) // runner.page)
    tables_BP[0, :used] = np.arange(1, used + 1)
    at, first = 0, len(tokens) - keep
    while at < len(tokens):
        scored = at >= first
        n = min(16, len(tokens) - at) if scored else min(runner.budget, first - at)
        rows = np.arange(n) if scored else np.asarray([n - 1])
        logits = runner.forward(
            Batch(
                tokens[at : at + n],
                np.arange(at, at + n, dtype=np.int32),
                np.zeros(n, np.int32),
                tables_BP,
                rows.astype(np.int32),
            )
        )
        if scored:
            yield np.asarray(logits)[:n]
        at += n


def compare(runner: ModelRunner, recorded: list[Recorded]) -> Agreement:
    """Score every prompt."""
    kls, same = [], []
    for item in recorded:
        at, head = 0, item.head
        for logits in forced_logits(runner, item.tokens[:-1], len(head.ids)):
            part = slice(at, at + len(logits))
            kls.append(divergence(Head(head.ids[part], head.logprobs[part], head.rest[part]), logits))
            same.append(logits.argmax(-1) == head.ids[part, 0])
            at += len(logits)
    kl = np.concatenate(kls)
    return Agreement(float(kl.mean()), float(kl.max()), float(np.concatenate(same).mean()))


def run(quick: bool, progress: Progress) -> Figures:
    """All recorded prompts; `quick`: four of SmolLM2's and two of the 0.5B's."""
    values: dict[str, float] = {}
    names = [name for name in models(quick) if (FOLDER / f"{name}.npz").exists()]
    for name in names:
        recorded = reference(name)[:: 8 if name.startswith("qwen") else 4] if quick else reference(name)
        modes: tuple[tuple[Mode, str], ...] = (("f32", ""), ("native", "_quantised"))
        for mode, suffix in modes:
            progress(f"{name} in {mode}, {len(recorded)} prompts")
            found = compare(load(name, mode), recorded)
            progress(f"mean KL {found.mean_kl:.2e}, top-1 {found.top1:.2%}")
            values[f"mean_kl{suffix}.{name}"] = found.mean_kl
            values[f"max_kl{suffix}.{name}"] = found.max_kl
            values[f"top1_agreement{suffix}.{name}"] = found.top1
        theirs = llama_quantised(name)
        values[f"llama_cpp_mean_kl_quantised.{name}"] = theirs["mean_kl"]
        values[f"llama_cpp_top1_agreement_quantised.{name}"] = theirs["top1_agreement"]
    return Figures(
        values,
        tuple(names),
        (
            "reference: llama.cpp in f32 on the same file dequantised, recorded once (benchmarks/reference)",
            "llama_cpp_*: llama.cpp's own quantised arithmetic on the original file, recorded with it",
        ),
    )
