"""Adapters in service: eight of them in one batch against none, and an adapter's words against merged weights'.

What: eight streams decoded together and prompts of eight processes computed together, each with an adapter of its own,
    and the same without any. Keys `overhead_8_adapters` (time of a decoding step with eight, over one without; on the
    largest model measured), `overhead_8_adapters.<model>`, `overhead_8_adapters_prefill.<model>`, `memory_mb.<model>`
    (of the eight on the device); `equal_to_merged`: the share of greedy tokens, in f32, that are those of the model
    with the adapter merged into its matrices.
Invariant: adapters are of rank 16 on every matrix of attention and feed-forward, the usual size and more than most
    change; their values are random, for time does not depend on them. Both sides are measured in turn.
Interface: `run`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.figures import Figures, Progress, models
from benchmarks.llama import filler
from llmos import connect
from llmos.drivers.weights.adapter import MATRICES, Adapter, LowRank
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sequence import BlockingStream, Request
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.lora import shapes
from llmos.kernel.scheduler import Priority

ADAPTERS, RANK = 8, 16
TOKENS = 64  # of each process's context; half a page's worth of steps is then decoded


def random_adapter(config: ModelConfig, seed: int, rank: int = RANK, strength: float = 0.02) -> Adapter:
    """An adapter of every matrix, which changes it by about `strength` of its size a rank."""
    rng, size = np.random.default_rng(seed), shapes(config)

    def change(n: int, k: int) -> LowRank:
        a = rng.standard_normal((rank, k), np.float32) / np.float32(k**0.5)
        return LowRank(a, rng.standard_normal((n, rank), np.float32) * np.float32(strength))

    layers = tuple({name: change(*size[name]) for name in MATRICES} for _ in range(config.layers))
    return Adapter(rank, float(rank), "", layers)


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    values: dict[str, float] = {}
    measured = []
    for name, path in models(quick).items():
        progress(name)
        found = overhead(str(path), 3 if quick else 9, 12 if quick else 32)
        values |= {f"{key}.{name}": value for key, value in found.items()}
        values["overhead_8_adapters"] = found["overhead_8_adapters"]
        measured.append(name)
    progress("merged weights")
    values["equal_to_merged"] = equal_to_merged(4 if quick else 16, 32)
    notes = (
        f"adapters of rank {RANK} on all seven matrices of each layer; streams of {TOKENS} tokens of context",
    )
    return Figures(values, tuple(measured), notes)


def overhead(model: str, rounds: int, tokens: int) -> dict[str, float]:
    """Time with eight adapters over time with none."""
    with connect(model=model, attach=False, window=1024, pool="512MiB") as kernel:
        runner: Any = kernel.runner
        runner.warm_up()
        adapters = [random_adapter(runner.bank._model.config, seed) for seed in range(ADAPTERS)]
        for adapter in adapters:
            kernel.engine.run(lambda adapter=adapter: runner.adapt(adapter))  # type: ignore[misc]
        none: list[Adapter | None] = [None] * ADAPTERS
        seed = iter(range(10_000))
        ratios: dict[str, list[float]] = {"overhead_8_adapters": [], "overhead_8_adapters_prefill": []}
        for _ in range(rounds):
            plain, with_all = (streams(kernel.engine, given, tokens, seed) for given in (none, adapters))
            for key, one, other in zip(ratios, plain, with_all, strict=True):
                ratios[key].append(other / one)
        return {key: statistics.median(found) for key, found in ratios.items()} | {
            "memory_mb": runner.bank.nbytes / 1e6
        }


def streams(
    engine: Engine, adapters: Sequence[Adapter | None], tokens: int, seed: Any
) -> tuple[float, float]:
    """Seconds of a decoding step of these together, and of computing their contexts."""
    prompts = [tuple(filler(TOKENS, seed=next(seed))) for _ in adapters]
    start_s = time.perf_counter()
    running = [
        engine.submit(
            Request(tokens=p, max_tokens=tokens + 4, draft=0, priority=Priority.BATCH, adapter=adapter)
        )
        for p, adapter in zip(prompts, adapters, strict=True)
    ]
    readers = [iter(stream) for stream in running]
    first = [next(reader) for reader in readers]
    filled_s = time.perf_counter() - start_s
    assert len(first) == len(running)
    at = []
    for _ in range(tokens):
        _ = [next(reader) for reader in readers]
        at.append(time.perf_counter())
    _drain(running)
    return (at[-1] - at[1]) / (len(at) - 2), filled_s


def _drain(running: Sequence[BlockingStream]) -> None:
    for stream in running:
        for _ in stream:
            pass


def equal_to_merged(prompts: int, tokens: int) -> float:
    """The share of greedy tokens in f32 that are the merged model's, on the smallest model."""
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.engine.runner import ModelRunner
    from llmos.kernel.model.load import load_model

    weights = open_weights(find(next(iter(models(quick=True)))))
    model = load_model(weights, mode="f32", window=256)
    adapter = random_adapter(model.config, 1, strength=0.01)
    asked = [tuple(filler(48, seed=n)) for n in range(prompts)]

    def said(model: Any, adapter: Adapter | None) -> list[int]:
        engine = Engine(ModelRunner(model, pages=64, window=256))
        try:
            return [
                item.id
                for prompt in asked
                for item in engine.submit(Request(tokens=prompt, max_tokens=tokens, adapter=adapter))
            ]
        finally:
            engine.close()

    served = said(model, adapter)
    del model
    merged = said(_merged(weights, adapter), None)
    same = sum(one == other for one, other in zip(served, merged, strict=True))
    return same / len(merged)


def _merged(weights: Any, adapter: Adapter) -> Any:
    """The model of `weights` in f32 with the adapter in its matrices."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from llmos.drivers import cpu
    from llmos.kernel.model.decoder import Decoder
    from llmos.kernel.model.load import Model, default_backend, operations
    from llmos.kernel.model.parameters import Reader
    from llmos.kernel.model.xla_ops import Dense

    backend = default_backend()
    at: dict[str, int] = {}

    def form(tensor: Any, shape: tuple[int, int], rows: Any) -> Any:
        values = tensor.dequantise().reshape(shape)
        values = values if rows is None else values[rows]
        if (found := _where(tensor.name)) is not None:
            layer, name = found
            change = adapter.layers[layer][name]
            values = values + np.float32(adapter.scale) * (change.b_NR @ change.a_RK)
            at[name] = layer
        values = np.ascontiguousarray(values, np.float32)
        if backend == "cpu":
            return cpu.pack(values.view(np.uint8).reshape(shape[0], -1), "F32", shape, format="f32")
        return Dense(jnp.asarray(values))

    reader = Reader(weights, form)
    parameters = jax.tree.map(
        lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, reader.parameters(256)
    )
    assert set(at) == set(MATRICES)
    graph, state = nnx.split(Decoder(reader.config, parameters, operations(backend)))
    return Model(reader.config, graph, state, "merged", backend, "f32")


def _where(name: str) -> tuple[int, str] | None:
    """Layer and short name of a tensor of a GGUF file; None where it is no matrix that an adapter changes."""
    ours = {
        "attn_q": "q", "attn_k": "k", "attn_v": "v", "attn_output": "o",
        "ffn_gate": "gate", "ffn_up": "up", "ffn_down": "down",
    }  # fmt: skip
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in ours and parts[3] == "weight":
        return int(parts[1]), ours[parts[2]]
    return None
