"""Adapters as files: what PEFT writes is read, what is written is whole, what would change the result is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmos.abi.errors import (
    AdapterMismatch,
    CorruptWeights,
    DiskFull,
    LLMOSError,
    ModelNotFound,
    UnsupportedModel,
)
from llmos.drivers.weights import adapter as module
from llmos.drivers.weights.adapter import CONFIG, TENSORS, Adapter, LowRank, read_adapter, write_adapter

SHAPES = {
    "q": (16, 12),
    "k": (8, 12),
    "v": (8, 12),
    "o": (12, 16),
    "gate": (20, 12),
    "up": (20, 12),
    "down": (12, 20),
}


def made(rank: int = 4, names: str = "q v down", layers: int = 2, seed: int = 0, **more: Any) -> Adapter:
    rng = np.random.default_rng(seed)

    def change(name: str) -> LowRank:
        n, k = SHAPES[name]
        return LowRank(
            rng.standard_normal((rank, k)).astype(np.float32),
            rng.standard_normal((n, rank)).astype(np.float32),
        )

    given = tuple({name: change(name) for name in names.split()} for _ in range(layers))
    return Adapter(**{"rank": rank, "alpha": 8.0, "base": "some/model", "layers": given, **more})


def changed(folder: Path, **settings: Any) -> None:
    """Other settings in a folder's configuration."""
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | settings))


@pytest.mark.parametrize("more", [{}, {"rslora": True}, {"alpha": 0.1}, {"weights": "f00d"}, {"base": ""}])
def test_what_is_written_is_read_again(tmp_path: Path, more: dict[str, Any]) -> None:
    adapter = made(**more)
    again = read_adapter(write_adapter(adapter, tmp_path / "a"))
    assert (again.version, again.scale, again.base, again.weights) == (
        adapter.version, adapter.scale, adapter.base, adapter.weights
    )  # fmt: skip
    for one, other in zip(adapter.layers, again.layers, strict=True):
        assert one.keys() == other.keys()
        for name, change in one.items():
            np.testing.assert_array_equal(change.a_RK, other[name].a_RK)
            np.testing.assert_array_equal(change.b_NR, other[name].b_NR)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_file_that_was_written_here_needs_no_other(tmp_path: Path) -> None:
    adapter = made()
    write_adapter(adapter, tmp_path / "a")
    alone = (tmp_path / "a" / TENSORS).rename(tmp_path / "alone.safetensors")
    assert read_adapter(alone).version == adapter.version
    save_file(load_file(alone), tmp_path / "theirs.safetensors")
    with pytest.raises(ModelNotFound, match=CONFIG):
        read_adapter(tmp_path / "theirs.safetensors")
    write_adapter(adapter, tmp_path / "b")
    assert read_adapter(tmp_path / "b" / TENSORS).version == adapter.version


def test_the_version_is_of_all_that_makes_the_result() -> None:
    one = made()
    assert made(base="elsewhere", weights="f00d").version == one.version
    others = [
        made(seed=1),
        made(alpha=9.0),
        made(rslora=True),
        made(rank=5),
        made(names="q v"),
        made(layers=1),
    ]
    assert len({one.version, *(other.version for other in others)}) == 7
    assert made(layers=2).scale == 2.0 and made(rslora=True).scale == 4.0


def test_other_types_are_read_as_f32(tmp_path: Path) -> None:
    write_adapter(made(), tmp_path / "a")
    tensors = {
        name: values.astype(np.float16) for name, values in load_file(tmp_path / "a" / TENSORS).items()
    }
    save_file(tensors, tmp_path / "a" / TENSORS)
    again = read_adapter(tmp_path / "a").layers[0]["q"].a_RK
    np.testing.assert_array_equal(again, made().layers[0]["q"].a_RK.astype(np.float16).astype(np.float32))


def test_patterns_of_rank_and_alpha_are_those_of_peft(tmp_path: Path) -> None:
    adapter = made(rank=2, names="q v")
    write_adapter(adapter, tmp_path / "a")
    tensors = load_file(tmp_path / "a" / TENSORS)
    wide = made(rank=4, names="v", seed=3).layers[0]["v"]
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_"
    tensors |= {f"{name}A.weight": wide.a_RK, f"{name}B.weight": wide.b_NR}
    save_file(tensors, tmp_path / "a" / TENSORS)
    changed(tmp_path / "a", rank_pattern={"1.self_attn.v_proj": 4}, alpha_pattern={"q_proj": 2})
    again = read_adapter(tmp_path / "a")
    assert again.rank == 4

    def effect(adapter: Adapter, layer: int, name: str) -> np.ndarray:
        change = adapter.layers[layer][name]
        return adapter.scale * (change.b_NR @ change.a_RK)

    q = adapter.layers[0]["q"]
    np.testing.assert_allclose(effect(again, 0, "q"), 2 / 2 * (q.b_NR @ q.a_RK), rtol=1e-5)
    np.testing.assert_allclose(effect(again, 0, "v"), effect(adapter, 0, "v"), rtol=1e-5)
    np.testing.assert_allclose(effect(again, 1, "v"), 8 / 4 * (wide.b_NR @ wide.a_RK), rtol=1e-5)
    assert read_adapter(write_adapter(again, tmp_path / "b")).version == again.version


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"), ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"), ({"modules_to_save": ["lm_head"]}, "whole modules"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"), ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "base weights"), ({"trainable_token_indices": [1]}, "trainable"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow"), ({"lora_bias": True}, "lora_bias"),
    ],
)  # fmt: skip
def test_a_setting_that_changes_the_result_is_refused(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    write_adapter(made(), tmp_path / "a")
    changed(tmp_path / "a", **settings)
    with pytest.raises(UnsupportedModel, match=said):
        read_adapter(tmp_path / "a")


def test_matrices_that_are_not_the_decoders_are_refused(tmp_path: Path) -> None:
    write_adapter(made(), tmp_path / "a")
    for name in (
        "base_model.model.model.embed_tokens.lora_embedding_A", "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.vision_tower.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.experts.lora_A.weight",
    ):  # fmt: skip
        tensors = load_file(tmp_path / "a" / TENSORS) | {name: np.ones((4, 4), np.float32)}
        (tmp_path / "b").mkdir(exist_ok=True)
        save_file(tensors, tmp_path / "b" / TENSORS)
        (tmp_path / "b" / CONFIG).write_bytes((tmp_path / "a" / CONFIG).read_bytes())
        with pytest.raises(UnsupportedModel, match="low-rank changes"):
            read_adapter(tmp_path / "b")


def test_wrong_ranks_are_refused(tmp_path: Path) -> None:
    write_adapter(made(), tmp_path / "a")
    changed(tmp_path / "a", r=8)
    with pytest.raises(AdapterMismatch, match="of rank 4"):
        read_adapter(tmp_path / "a")
    with pytest.raises(AdapterMismatch, match="rank 4 and B of rank 3"):
        LowRank(np.ones((4, 2), np.float32), np.ones((2, 3), np.float32))
    with pytest.raises(AdapterMismatch, match="of rank 4"):
        Adapter(3, 1.0, "", made().layers)
    for rank in (0, -1, 257):
        with pytest.raises(AdapterMismatch, match="ranks go from"):
            Adapter(rank, 1.0, "", made().layers)


def test_damage_is_told(tmp_path: Path) -> None:
    write_adapter(made(), tmp_path / "a")
    good, config = (tmp_path / "a" / TENSORS).read_bytes(), (tmp_path / "a" / CONFIG).read_text()
    rng = np.random.default_rng(0)
    for _ in range(60):  # whatever becomes of the bytes: an error of ours, or an adapter
        raw = bytearray(good)
        for _ in range(3):
            raw[rng.integers(len(raw) // 2)] = rng.integers(256)
        cut = int(rng.integers(len(raw))) if rng.random() < 0.3 else len(raw)
        (tmp_path / "a" / TENSORS).write_bytes(bytes(raw[:cut]))
        try:
            read_adapter(tmp_path / "a")
        except LLMOSError as error:
            assert error.what and error.why
    (tmp_path / "a" / TENSORS).write_bytes(good)
    for text in (
        "{",
        "[]",
        config.replace('"r": 4', '"r": "4"'),
        config.replace('"lora_alpha": 8', '"lora_alpha": null'),
    ):
        (tmp_path / "a" / CONFIG).write_text(text)
        with pytest.raises(CorruptWeights):
            read_adapter(tmp_path / "a")
    (tmp_path / "a" / CONFIG).write_text(config)
    tensors = load_file(tmp_path / "a" / TENSORS)
    half = next(name for name in tensors if "lora_B" in name)
    save_file({name: values for name, values in tensors.items() if name != half}, tmp_path / "a" / TENSORS)
    with pytest.raises(CorruptWeights, match="lacks its lora_B"):
        read_adapter(tmp_path / "a")
    save_file(tensors | {half: tensors[half] * np.float32(np.nan)}, tmp_path / "a" / TENSORS)
    with pytest.raises(CorruptWeights, match="finite"):
        read_adapter(tmp_path / "a")
    save_file({}, tmp_path / "a" / TENSORS)
    with pytest.raises(CorruptWeights, match="changes nothing"):
        read_adapter(tmp_path / "a")


def test_nothing_there_and_pickles(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no adapter"):
        read_adapter(tmp_path / "gone")
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelNotFound, match="pickle"):
        read_adapter(tmp_path)


def test_it_fits_its_own_model_only() -> None:
    adapter = made(weights="one")
    adapter.check(SHAPES, 2, "one")
    adapter.check(SHAPES, 3)
    made().check(SHAPES, 2, "another")  # where nobody said, shapes must do
    with pytest.raises(AdapterMismatch, match="other weights"):
        adapter.check(SHAPES, 2, "another")
    with pytest.raises(AdapterMismatch, match="has 1 layers"):
        adapter.check(SHAPES, 1)
    with pytest.raises(
        AdapterMismatch, match="its q of layer 0 changes a matrix of 16 x 12; the model's is 32 x 12"
    ):
        adapter.check(SHAPES | {"q": (32, 12)}, 2)


def test_what_stands_there_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = made(), made(seed=1)
    write_adapter(one, tmp_path / "a")

    def full(path: Path, blob: bytes) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", full)
        with pytest.raises(DiskFull):
            write_adapter(two, tmp_path / "a")
    assert read_adapter(tmp_path / "a").version == one.version
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    write_adapter(two, tmp_path / "a")
    assert read_adapter(tmp_path / "a").version == two.version
    with monkeypatch.context() as patch:  # where the file system cannot exchange folders
        patch.setattr(module.ctypes, "CDLL", lambda *_, **__: object())
        write_adapter(one, tmp_path / "a")
    assert read_adapter(tmp_path / "a").version == one.version
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    for place in (tmp_path / "mine", tmp_path / "mine" / "letter.txt"):
        with pytest.raises(CorruptWeights, match="is no adapter"):
            write_adapter(one, place)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
