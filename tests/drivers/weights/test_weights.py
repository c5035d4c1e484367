"""Finding a model by any of its names, and what identifies opened weights."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import CorruptWeights, ModelNotFound
from llmos.drivers.weights import find, open_weights
from tests.drivers.weights import files


def test_a_path_to_a_gguf(tmp_path: Path) -> None:
    path = files.written(tmp_path, "mine.gguf", files.small_gguf())
    found = find(str(path))
    assert (found.name, found.format, found.path, found.size) == ("mine", "gguf", path, path.stat().st_size)
    assert open_weights(found).source == "gguf"
    assert find(str(tmp_path)) == found  # the folder that holds it alone


def test_a_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    files.written(tmp_path, "mine.gguf", files.small_gguf())
    assert find("~/mine.gguf").path == tmp_path / "mine.gguf"


def test_a_path_to_a_safetensors_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    path = files.written(tmp_path, "model.safetensors", files.small_safetensors())
    assert find(str(path)).weights == (path,) == find(str(tmp_path)).weights


def test_a_folder_with_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="0 safetensors files"):
        find(str(tmp_path))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(CorruptWeights, match="GGUF"):
        open_weights(
            find(str(files.written(tmp_path, "notes.txt", b"some notes, and more than a few of them")))
        )


def test_the_encoder_is_a_folder_of_its_own(weights_path: Callable[[str], Path]) -> None:
    files_ = find("all-minilm-l6-v2")
    assert files_.format == "hf" and (files_.folder / "tokenizer.json").is_file()
    weights = open_weights(files_)
    assert weights.metadata["hidden_size"] == 384
    assert weights.tensors["embeddings.word_embeddings.weight"].shape == (30522, 384)
    ids = weights.tokenizer().encode("hello world")
    assert ids == [7592, 2088]


def test_identity_is_the_contents_and_not_the_place(tmp_path: Path) -> None:
    path = files.written(tmp_path, "a.gguf", files.small_gguf())
    first = open_weights(find(str(path))).identity
    other = tmp_path / "b.gguf"
    shutil.copy(path, other)
    assert open_weights(find(str(other))).identity == first
    data = np.frombuffer(files.small_gguf(), np.uint8).copy()
    for tensor in open_weights(find(str(path))).tensors.values():
        changed = data.copy()
        at = files.small_gguf().index(tensor.data.tobytes()) + tensor.data.size // 2
        changed[at] ^= 1
        assert open_weights(find(str(files.written(tmp_path, "c.gguf", changed.tobytes())))).identity != first


def test_identity_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    path = files.written(tmp_path, "model.safetensors", files.small_safetensors())
    first = open_weights(find(str(path))).identity
    assert len(first) == 32
    data = bytearray(files.small_safetensors())
    data[-1] ^= 1
    path.write_bytes(data)
    assert open_weights(find(str(path))).identity != first
    path.write_bytes(files.small_safetensors())
    assert open_weights(find(str(path))).identity == first
    (tmp_path / "config.json").write_text('{"rope_theta": 5}')
    assert open_weights(find(str(path))).identity != first


def test_tokenizer_and_template_are_built_once(tmp_path: Path) -> None:
    weights = open_weights(find(str(files.written(tmp_path, "a.gguf", files.small_gguf()))))
    assert weights.tokenizer() is weights.tokenizer()
    assert weights.template() is weights.template()
