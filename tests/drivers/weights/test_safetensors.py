"""The safetensors reader reads what the reference writes, whole or in shards, and refuses what is damaged."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as reference

from llmos.abi.errors import CorruptWeights, LLMOSError, ModelNotFound, UnsupportedModel
from llmos.drivers.weights import find, open_weights
from llmos.drivers.weights.safetensors import read_file
from tests.drivers.weights import files

DRAW = np.random.default_rng(0)
ARRAYS = {
    "a": DRAW.standard_normal((4, 8)).astype(np.float32),
    "b": DRAW.standard_normal((3, 5)).astype(np.float16),
    "c": DRAW.standard_normal((7,)).astype(np.float32),
    "scalar": np.array(2.5, np.float32),
}


def _folder(folder: Path) -> Path:
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}')
    return folder


def _sharded(folder: Path) -> Path:
    shards = {
        "model-00001-of-00002.safetensors": ["a", "b"],
        "model-00002-of-00002.safetensors": ["c", "scalar"],
    }
    for file, names in shards.items():
        reference.save_file({n: ARRAYS[n] for n in names}, folder / file)
    index = {"weight_map": {n: file for file, names in shards.items() for n in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return _folder(folder)


def test_a_single_file(tmp_path: Path) -> None:
    reference.save_file(ARRAYS, _folder(tmp_path) / "model.safetensors")
    weights = open_weights(find(str(tmp_path)))
    assert weights.source == "hf"
    assert weights.metadata["model_type"] == "llama"
    assert weights.tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        tensor = weights.tensors[name]
        assert tensor.shape == array.shape
        assert not tensor.data.flags.owndata and not tensor.data.flags.writeable
        assert np.array_equal(tensor.dequantise(), array.astype(np.float32))


def test_shards(tmp_path: Path) -> None:
    weights = open_weights(find(str(_sharded(tmp_path))))
    assert weights.tensors.keys() == ARRAYS.keys()
    assert np.array_equal(weights.tensors["c"].dequantise(), ARRAYS["c"])
    assert len(weights.files.weights) == 2


def test_bfloat16(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38], np.float32)
    raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    head = json.dumps({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    path = files.written(tmp_path, "x.safetensors", struct.pack("<Q", len(head)) + head + raw.tobytes())
    tensors, _ = read_file(path)
    assert np.array_equal(tensors["x"].dequantise(), (raw.astype(np.uint32) << 16).view(np.float32))


def test_a_missing_shard(tmp_path: Path) -> None:
    (_sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelNotFound, match="00002"):
        find(str(tmp_path))


def test_a_tensor_that_the_index_promises_is_missing(tmp_path: Path) -> None:
    path = _sharded(tmp_path) / "model-00002-of-00002.safetensors"
    reference.save_file({"c": ARRAYS["c"]}, path)
    with pytest.raises(CorruptWeights, match="scalar"):
        open_weights(find(str(tmp_path)))


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    path = _sharded(tmp_path) / "model-00002-of-00002.safetensors"
    reference.save_file({n: ARRAYS[n] for n in ("a", "c", "scalar")}, path)
    with pytest.raises(CorruptWeights, match="'a'"):
        open_weights(find(str(tmp_path)))


def test_an_index_that_points_outside(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (_folder(tmp_path) / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptWeights, match="outside"):
        find(str(tmp_path))


@pytest.mark.parametrize("config", ["", "[1]", "{", "\xff", "[" * 100_000])
def test_a_damaged_config(tmp_path: Path, config: str) -> None:
    reference.save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config, "latin-1")
    with pytest.raises(CorruptWeights, match=r"config\.json"):
        open_weights(find(str(tmp_path)))


def test_no_config(tmp_path: Path) -> None:
    reference.save_file(ARRAYS, tmp_path / "model.safetensors")
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        open_weights(find(str(tmp_path)))


def _header(**tensors: object) -> bytes:
    head = json.dumps(tensors).encode()
    return struct.pack("<Q", len(head)) + head + bytes(64)


def _info(shape: object = (4,), offsets: object = (0, 16), kind: object = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": offsets}


CORRUPT = {
    "empty": b"",
    "header longer than the file": struct.pack("<Q", 1 << 20) + b"{}" + bytes(60),
    "header length that wraps": b"\xff" * 8 + b"{}" + bytes(60),
    "no JSON": struct.pack("<Q", 4) + b"nope" + bytes(60),
    "no UTF-8": struct.pack("<Q", 4) + b'"\xff"}' + bytes(60),
    "a list": struct.pack("<Q", 2) + b"[]" + bytes(60),
    "deep": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a name twice": struct.pack("<Q", 13) + b'{"a":1,"a":2}' + bytes(60),
    "a number as tensor": _header(a=5),
    "no shape": _header(a={"dtype": "F32", "data_offsets": [0, 16]}),
    "negative dimension": _header(a=_info(shape=(-4,))),
    "fractional dimension": _header(a=_info(shape=(4.0,))),
    "true as a dimension": _header(a=_info(shape=(True,), offsets=(0, 4))),
    "huge dimension": _header(a=_info(shape=(1 << 62, 1 << 62))),
    "past the end": _header(a=_info(offsets=(1 << 20, (1 << 20) + 16))),
    "backwards": _header(a=_info(offsets=(16, 0))),
    "negative offset": _header(a=_info(offsets=(-16, 0))),
    "one offset": _header(a=_info(offsets=(16,))),
    "size that is not the shape's": _header(a=_info(offsets=(0, 12))),
    "overlap": _header(a=_info(), b=_info(offsets=(8, 24))),
    "same place": _header(a=_info(), b=_info()),
    "unknown type": _header(a=_info(kind="Q9")),
    "a list as type": _header(a=_info(kind=["F32"])),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptWeights) as e:
        read_file(files.written(tmp_path, "damaged.safetensors", CORRUPT[name]))
    assert e.value.what and e.value.why and e.value.do


def test_a_buffer_beside_the_weights_is_listed_but_not_run(tmp_path: Path) -> None:
    head = _header(a=_info(kind="I64", shape=(2,)), b=_info(offsets=(16, 32)))
    tensors, _ = read_file(files.written(tmp_path, "x.safetensors", head))
    assert tensors["b"].dequantise().shape == (4,)
    with pytest.raises(UnsupportedModel, match="I64"):
        tensors["a"].dequantise()


def test_every_cut_is_refused(tmp_path: Path) -> None:
    sound = files.small_safetensors()
    for length in range(len(sound)):
        with pytest.raises(LLMOSError):
            read_file(files.written(tmp_path, "cut.safetensors", sound[:length]))
