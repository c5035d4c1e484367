"""Where a token's time goes: one stream, greedy, milliseconds a token beside the time to read the weights once.

What: `token_ms.<model>.<context>` is the whole of it. Its parts: `layers_ms.<model>` (the layers' products, norms and
    gates), `head_ms.<model>` (the product with the vocabulary), `attention_ms.<model>.<context>` (what else a step
    takes), `sample_ms.<model>`, `host_ms.<model>.<context>` (scheduling, the stream, the way to its reader).
    `limit_ms.<model>` is what reading the weights takes at this machine's best measured rate.
Invariant: one run; parts are programs of their own on the same shapes, medians of rounds in turn. `attention_ms` and
    `host_ms` are differences: together the parts are the whole.
Interface: `run`.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.figures import Figures, Progress, models
from benchmarks.llama import filler
from benchmarks.machine import read_bandwidth
from benchmarks.ours import Ours
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.batch import Batch, SampleBatch, empty_tables
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model.decoder import Decoder
from llmos.kernel.model.load import Model, load_model

CONTEXTS = (128, 2048)
WINDOW = 2304


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    names, contexts = tuple(models(quick)), CONTEXTS[:1] if quick else CONTEXTS
    best = max(read_bandwidth(1), read_bandwidth(2))
    for name in names:
        limit = values[f"limit_ms.{name}"] = 1e3 * read_bytes(open_weights(find(name)).tensors) / best
        rounds: dict[str, list[float]] = defaultdict(list)
        with Ours(name) as ours:
            for _ in range(1 if quick else 3):
                for part, took in _round(ours, name, contexts):
                    rounds[part].append(took)
        took = {part: statistics.median(found) for part, found in rounds.items()}
        values |= {f"{part}_ms.{name}": took[part] for part in ("layers", "head", "sample")}
        for context in contexts:
            token, step = took[f"token.{context}"], took[f"step.{context}"]
            values[f"token_ms.{name}.{context}"] = token
            values[f"attention_ms.{name}.{context}"] = step - took["layers"] - took["head"]
            values[f"host_ms.{name}.{context}"] = token - step - took["sample"]
        token = took[f"token.{CONTEXTS[0]}"]
        progress(f"{name}: {token:.1f} ms a token, its weights can be read in {limit:.1f}")
    return Figures(values, names)


def _round(ours: Ours, name: str, contexts: Sequence[int]) -> Iterator[tuple[str, float]]:
    """Each part once, in milliseconds: whole tokens beside the steps they consist of."""
    model = load_model(open_weights(find(name)), window=WINDOW)
    runner = ModelRunner(model, pages=WINDOW // 16 + 1, page=16, window=WINDOW)
    for context in contexts:
        yield f"token.{context}", 1e3 / ours.decode(context, 48)
        yield f"step.{context}", _ms(partial(runner.forward, _step(runner, context)))
    logits = runner.forward(_step(runner, contexts[0]))
    yield "sample", _ms(partial(runner.sample, logits, _greedy()))
    yield "layers", _ms(_layers(model))
    yield "head", _ms(_head(model))


def read_bytes(tensors: Any) -> int:
    """Bytes of weights that a token must read: an embedding that is no head as well is read a row at a time."""
    tied = "output.weight" not in tensors
    return sum(t.data.nbytes for key, t in tensors.items() if tied or key != "token_embd.weight")


def _ms(call: Callable[[], object], seconds: float = 1.5) -> float:
    """Median milliseconds of a call, waited for."""
    jax.block_until_ready(call())
    took: list[float] = []
    while sum(took) < seconds:
        began = time.perf_counter()
        jax.block_until_ready(call())
        took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took)


def _layers(model: Model) -> Callable[[], object]:
    """One row through every layer, its attention left out."""
    c = model.config

    @jax.jit
    def through(state: Any, x_TD: Any, rows: Any) -> Any:
        decoder: Decoder = nnx.merge(model.graph, state)
        for attention, feed_forward in zip(decoder.attention, decoder.feed_forward, strict=True):
            linear, bias = decoder.ops.linear, attention.bias
            qkv_TC = linear(
                x_TD, attention.qkv.get_value(), rows, norm=attention.norm.get_value(), eps=c.norm_eps,
                bias=None if bias is None else bias.get_value(),
            )  # fmt: skip
            x_TD = linear(qkv_TC[:, : c.heads * c.head_dim], attention.out.get_value(), rows, residual=x_TD)
            x_TD = feed_forward(x_TD, rows)
        return x_TD

    x_TD, rows = _row(model)
    return lambda: through(model.state, x_TD, rows)


def _head(model: Model) -> Callable[[], object]:
    @jax.jit
    def head(state: Any, x_TD: Any, rows: Any) -> Any:
        decoder: Decoder = nnx.merge(model.graph, state)
        return decoder.logits(x_TD, rows)

    x_TD, rows = _row(model)
    return lambda: head(model.state, x_TD, rows)


def _row(model: Model) -> tuple[Any, Any]:
    """A bucket of 16 rows with one that is valid."""
    x_TD = np.random.default_rng(0).normal(size=(16, model.config.dim)).astype(np.float32)
    return jax.device_put(x_TD), jax.device_put(np.int32(1))


def _step(runner: ModelRunner, context: int) -> Batch:
    """The next token behind `context` others, whose keys and values are computed first."""
    tables_BP = empty_tables(runner)
    used = context // runner.page + 1
    tables_BP[0, :used] = np.arange(1, used + 1)
    tokens = np.asarray(filler(context + 1, seed=context), np.int32)

    def batch(start: int, end: int) -> Batch:
        n = end - start
        positions, rows = np.arange(start, end, dtype=np.int32), np.asarray([n - 1], np.int32)
        return Batch(tokens[start:end], positions, np.zeros(n, np.int32), tables_BP, rows)

    for start in range(0, context, runner.budget):
        jax.block_until_ready(runner.forward(batch(start, min(start + runner.budget, context))))
    return batch(context, context + 1)


def _greedy() -> SampleBatch:
    one = np.zeros(1, np.float32)
    return SampleBatch(
        one, np.zeros(1, np.int32), one + 1, one, one + 1, one, np.full((1, 256), -1, np.int32), None, 0
    )
