"""Every family against `transformers`: tiny random checkpoints, committed with the logits they should give.

The checkpoints and logits were made by benchmarks/reference/transformers_fixture.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.weights import find, open_weights
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.score import position_logits
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.load import Backend, default_backend, load_model

FIXTURES = Path(__file__).parent / "fixtures"
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3")

backends = pytest.mark.parametrize(
    "backend",
    [
        "xla",
        pytest.param("cpu", marks=pytest.mark.skipif(not cpu.available(), reason="kernels not built here")),
    ],
)


def runner_of(folder: Path, backend: Backend) -> ModelRunner:
    model = load_model(open_weights(find(str(folder))), mode="f32", backend=backend)
    return ModelRunner(model, pages=9, page=8, window=64, processes=16, budget=16)


def error(runner: ModelRunner, folder: Path, chunk: int) -> float:
    """The largest difference between our logits, `chunk` tokens a step, and the reference's."""
    reference = np.load(folder / "reference.npz")
    ours = [np.concatenate(list(position_logits(runner, t.tolist(), chunk))) for t in reference["tokens"]]
    return float(np.abs(np.stack(ours) - reference["logits"]).max())


@backends
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers(family: str, backend: Backend) -> None:
    folder = FIXTURES / family
    runner = runner_of(folder, backend)
    assert error(runner, folder, chunk=16) < 1e-4
    assert error(runner, folder, chunk=1) < 1e-4, "decoding token by token differs"


def config_of(folder: Path, description: dict[str, Any]) -> ModelConfig:
    return ModelConfig.from_metadata("hf", description, open_weights(find(str(folder))).tensors)


def older_form(config: dict[str, Any]) -> dict[str, Any]:
    """The same description in the keys of files written before transformers 5."""
    old = {k: v for k, v in config.items() if k not in ("rope_parameters", "layer_types", "dtype")}
    rope = config["rope_parameters"]
    if "full_attention" in rope:  # Gemma 3
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        old["sliding_window_pattern"] = 6
        rope = rope["full_attention"]
    old["rope_theta"] = rope["rope_theta"]
    scaling = {k: v for k, v in rope.items() if k != "rope_theta"}
    if scaling["rope_type"] != "default":
        old["rope_scaling"] = scaling
    return old


@pytest.mark.parametrize("family", FAMILIES)
def test_older_descriptions_mean_the_same(family: str) -> None:
    folder = FIXTURES / family
    description = json.loads((folder / "config.json").read_text())
    new, old = config_of(folder, description), config_of(folder, older_form(description))
    assert old == new


def test_gemma_inside_a_multimodal_checkpoint(tmp_path: Path) -> None:
    """Gemma 3's larger checkpoints nest the text model's description, and its tensors have a longer name."""
    import ml_dtypes  # noqa: F401  # teaches numpy bfloat16
    from safetensors.numpy import load_file, save_file

    source = FIXTURES / "gemma3"
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    description = {"model_type": "gemma3", "text_config": json.loads((source / "config.json").read_text())}
    (tmp_path / "config.json").write_text(json.dumps(description))
    tensors = load_file(source / "model.safetensors")
    save_file({f"language_model.{name}": t for name, t in tensors.items()}, tmp_path / "model.safetensors")
    assert error(runner_of(tmp_path, default_backend()), tmp_path, chunk=16) < 1e-4


def test_gemma_descriptions_may_leave_out_what_is_usual() -> None:
    """As published for the 4B: transformers' defaults fill the rest."""
    text = dict(
        hidden_size=2560, intermediate_size=10240, model_type="gemma3_text", num_hidden_layers=34,
        rope_scaling={"factor": 8.0, "rope_type": "linear"}, sliding_window=1024,
    )  # fmt: skip
    config = ModelConfig.from_metadata("hf", {"model_type": "gemma3", "text_config": text}, ())
    assert (config.heads, config.kv_heads, config.head_dim, config.vocab) == (8, 4, 256, 262_208)
    assert config.scale == 1 / 16
    assert [i for i in range(34) if config.layer(i).window == 0] == [5, 11, 17, 23, 29]
    scaling = config.layer(5).rope_scaling
    assert scaling is not None and scaling.factor == 8.0
    assert (config.layer(0).rope_theta, config.layer(0).rope_scaling) == (1e4, None)
