"""An adapter that PEFT made gives the logits that PEFT computes; see make_peft_fixture.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.weights.adapter import Adapter, read_adapter, write_adapter
from llmos.drivers.weights.weights import WeightsFiles, open_weights
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.model.load import Backend, load_model

FIXTURES = Path(__file__).parent / "fixtures" / "peft"
needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built here")


@pytest.fixture(scope="module", params=[pytest.param("cpu", marks=needs_kernels), "xla"])
def runner(request: pytest.FixtureRequest) -> ModelRunner:
    backend: Backend = request.param
    folder = FIXTURES / "base"
    weights = open_weights(WeightsFiles("base", "hf", folder, (folder / "model.safetensors",)))
    return ModelRunner(load_model(weights, mode="f32", backend=backend), pages=8, window=64, budget=32)


def logits(runner: ModelRunner, adapter: Adapter | None, tokens: np.ndarray) -> np.ndarray:
    tables, n = empty_tables(runner), len(tokens)
    tables[0, :2] = [1, 2]
    at = np.arange(n, dtype=np.int32)
    batch = Batch(tokens, at, np.zeros(n, np.int32), tables, at, (adapter,))
    return np.asarray(runner.forward(batch))[:n]


@pytest.mark.parametrize("name", ["base", "plain", "patterned"])
def test_logits_are_pefts(runner: ModelRunner, name: str, tmp_path: Path) -> None:
    reference = np.load(FIXTURES / "reference.npz")
    adapters = [None]
    if name != "base":
        adapter = read_adapter(FIXTURES / name)
        runner.check(adapter)
        adapters = [adapter, read_adapter(write_adapter(adapter, tmp_path / "again"))]
    for given in adapters:
        for tokens, want in zip(reference["tokens"], reference[name], strict=True):
            np.testing.assert_allclose(logits(runner, given, tokens), want, atol=1e-4 * np.abs(want).max())
    if name != "base":
        assert np.abs(reference[name] - reference["base"]).max() > 0.5
