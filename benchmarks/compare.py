"""Everything against llama.cpp in one run: decoding, prefill, streams, cold start, memory, drafting, quality.

What: the ratios of decode, prefill, streams and boot under fixed keys, the share of the machine's measured read
    bandwidth that decoding uses, and the perplexity paid. Keys: `decode_ratio.<model>.<context>`,
    `prefill_ratio.<model>.<tokens>`, `streams_ratio.<model>.<n>`, `first_token_ratio.<model>` (time, below 1 is
    sooner), `peak_mib_<side>.<model>`, `drafting_ratio`, `drafting_identical`, `bandwidth_share.<model>`,
    `mean_kl*` and `top1_agreement*` as parity.py has them, `perplexity.<side or mode>`, `perplexity_loss.<mode>`
    (against llama.cpp on the same file; 0.005 is half a percent), and the absolute figures behind each ratio.
Invariant: same file, same prompts, A B A B, medians (duel.py).
Interface: `run`.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks import boot, decode, drafting, llama, parity, prefill, streams
from benchmarks.account import read_bytes
from benchmarks.figures import Figures, Progress
from benchmarks.machine import read_bandwidth
from benchmarks.reference.prompts import PROMPTS

QUALITY_MODEL = "qwen2.5-coder-0.5b"


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    notes: list[str] = []
    measured: tuple[str, ...] = ()
    for title, module in {"decode": decode, "prefill": prefill, "streams": streams}.items():
        part = module.run(quick, progress)
        measured = part.models
        notes += part.notes
        for key, value in part.values.items():
            side, _, rest = key.partition(".")
            values[f"{title}_{side}.{rest}"] = value
    cold = boot.run(quick, progress)
    for key, value in cold.values.items():
        side, _, rest = key.partition(".")
        values[key if side.startswith("peak") else f"first_token_{side}.{rest}"] = value
    drafts = drafting.run(quick, progress)
    values |= {k if k.startswith("drafting") else f"drafting_{k}": v for k, v in drafts.values.items()}
    values |= parity.run(quick, progress).values
    values |= _bandwidth(values, measured)
    progress("perplexity")
    values |= _perplexity()
    return Figures(values, measured, tuple(dict.fromkeys([*notes, *cold.notes])))


def _bandwidth(values: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """Bytes of weights that decoding reads a second, as a share of what the machine can read."""
    from llmos.drivers.weights import find, open_weights

    best = max(read_bandwidth(1), read_bandwidth(2))
    shares = {"read_gb_per_s": best / 1e9}
    for name in names:
        read = read_bytes(open_weights(find(name)).tensors)
        shares[f"bandwidth_share.{name}"] = read * values[f"decode_ours.{name}.128"] / best
    return shares


def _perplexity() -> dict[str, float]:
    """Perplexity of the public texts among the reference prompts, first token aside."""
    from llmos.drivers.weights import find, open_weights

    weights = open_weights(find(QUALITY_MODEL))
    texts = [weights.tokenizer().encode(p.text) for p in PROMPTS if p.kind == "text"]
    found: dict[str, float] = {}
    for mode in ("native", "bf16"):
        runner = parity.load(QUALITY_MODEL, mode)
        losses = []
        for tokens in texts:
            ids = np.asarray(tokens, np.int32)
            rows = parity.forced_logits(runner, ids[:-1], len(ids) - 1)
            losses.append(_loss(np.concatenate(list(rows)), ids))
        found[f"perplexity.{mode}"] = math.exp(float(np.concatenate(losses).mean()))
    if llama.installed():
        with llama.Llama(weights.files.path, llama.Settings(), context=2048) as model:
            losses = [_loss(model.evaluate(t[:-1]), np.asarray(t, np.int32)) for t in texts]
        found["perplexity.llama_cpp"] = theirs = math.exp(float(np.concatenate(losses).mean()))
        for mode in ("native", "bf16"):
            found[f"perplexity_loss.{mode}"] = found[f"perplexity.{mode}"] / theirs - 1
    return found


def _loss(logits: llama.Logits, ids: np.ndarray) -> np.ndarray:
    """Negative log-probability of each next token, [T - 1], from logits [T - 1, V]."""
    wide = logits.astype(np.float64)
    best = wide.max(-1)
    total = best + np.log(np.exp(wide - best[:, None]).sum(-1))
    chosen = np.take_along_axis(wide, ids[1:, None].astype(np.int64), -1)[:, 0]
    return np.asarray(total - chosen)
