"""Run by test_mesh.py in a process of its own, with 8 simulated devices: prints one line of JSON a case."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np

from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Greedy, Randomness
from llmos.kernel.engine.score import position_logits
from llmos.kernel.engine.sequence import Request
from llmos.kernel.model.load import Model, load_model
from llmos.kernel.model.mesh import Layout, make_mesh
from tests.kernel.tiny import CONFIG, tiny_model

MESHES = [(2, 1), (4, 1), (8, 1), (1, 2), (2, 2)]
TOKENS = list(range(1, 41))


def runner_of(model: Model, mesh: jax.sharding.Mesh | None) -> ModelRunner:
    return ModelRunner(model, pages=16, page=8, window=64, processes=16, budget=16, mesh=mesh)


def logits_of(runner: ModelRunner) -> np.ndarray:
    return np.concatenate(list(position_logits(runner, TOKENS)))


def answer(runner: ModelRunner) -> list[int]:
    engine = Engine(runner)
    stream = engine.submit(
        Request(tokens=tuple(TOKENS), max_tokens=8, strategy=Greedy(), randomness=Randomness(0))
    )
    tokens = [item.id for item in stream]
    engine.close()
    return tokens


def sums(runner: ModelRunner) -> int:
    """Sums over devices in the compiled step."""
    shapes = np.zeros((3, 16), np.int32), np.zeros((17, 8), np.int32), np.zeros(18, np.int32)
    text = runner._forward.lower(runner._arrays, runner.pools, *shapes).compile().as_text()
    return len(re.findall(r" all-reduce\(", text))


def main(fixtures: Path) -> None:
    models = {
        "tiny": tiny_model(CONFIG, backend="xla", mode="f32"),
        "gemma3": load_model(open_weights(find(str(fixtures / "gemma3"))), mode="f32", backend="xla"),
    }
    for name, model in models.items():
        alone = runner_of(model, None)
        expected = logits_of(alone)
        text = answer(alone)
        for tensor, data in MESHES if name == "tiny" else MESHES[:1]:
            mesh = make_mesh(tensor, data)
            runner = runner_of(model, mesh)
            error = float(np.abs(logits_of(runner) - expected).max())
            same = answer(runner) == text if (tensor, data) == (2, 2) else None
            pool = runner.pools[0]
            case = {
                "model": name,
                "mesh": [tensor, data],
                "error": error,
                "same_answer": same,
                "whole": sorted(Layout.of(model, mesh, 16).whole),
                "heads_here": pool.addressable_shards[0].data.shape[2],
                "devices": len(pool.sharding.device_set),
                "identity": runner.identity.removeprefix(alone.identity),
                "sums": sums(runner) if (name, tensor, data) == ("tiny", 2, 1) else None,
                "layers": model.config.layers,
                "kv_heads": model.config.kv_heads,
            }
            print(json.dumps(case), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
