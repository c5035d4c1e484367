"""The GGUF reader reads what others write, copies nothing, and refuses what is damaged."""

import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from llmos.abi.errors import CorruptWeights, LLMOSError, ModelNotFound, UnsupportedModel
from llmos.drivers.weights import gguf
from llmos.drivers.weights.gguf import Strings
from tests.drivers.weights import files


def test_reads_what_was_written(tmp_path: Path) -> None:
    read = gguf.read(files.written(tmp_path, "m.gguf", files.small_gguf()))
    assert read.metadata["general.architecture"] == "llama"
    assert read.metadata["llama.rope.freq_base"] == 10000.0
    assert np.array_equal(np.asarray(read.metadata["list"]), np.arange(5))
    tokens = read.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, Strings)
    assert list(tokens) == files.vocabulary()["tokenizer.ggml.tokens"]
    assert tokens[-1] == "</tool_call>"
    assert list(tokens[2:4]) == list(tokens)[2:4]
    tensor = read.tensors["blk.0.q8_0"]
    assert (tensor.shape, tensor.type) == ((4, 64), "Q8_0")
    assert tensor.data.tobytes() == files.blocks("Q8_0", (4, 64), 2)
    assert tensor.dequantise().shape == (4, 64)


def test_tensors_are_read_only_views_of_the_map(tmp_path: Path) -> None:
    read = gguf.read(files.written(tmp_path, "m.gguf", files.small_gguf()))
    for tensor in read.tensors.values():
        assert not tensor.data.flags.owndata
        assert not tensor.data.flags.writeable


def test_equals_the_reference_reader(tmp_path: Path) -> None:
    _equals_the_reference_reader(files.written(tmp_path, "m.gguf", files.small_gguf()))


@pytest.mark.slow  # the reference reader takes its time over 49,152 tokens
def test_equals_the_reference_reader_on_a_real_file(weights_path: Callable[[str], Path]) -> None:
    _equals_the_reference_reader(weights_path("smollm2-135m"))


def _equals_the_reference_reader(path: Path) -> None:
    ours, theirs = gguf.read(path), reference.GGUFReader(path)
    assert len(ours.tensors) == len(theirs.tensors)
    for t in theirs.tensors:
        tensor = ours.tensors[t.name]
        assert tensor.shape == tuple(int(n) for n in reversed(t.shape))
        assert tensor.type == t.tensor_type.name
        assert np.array_equal(tensor.data, t.data.reshape(-1).view(np.uint8))
    for key, found in ours.metadata.items():
        expected = theirs.fields[key].contents()
        got = list(found) if isinstance(found, Strings | np.ndarray) else found
        assert got == expected


@pytest.mark.parametrize("length", [0, 255, 256, 300, 65535, 65536, 70000])
def test_strings_of_any_length(tmp_path: Path, length: int) -> None:
    words = ["a", "é" * (length // 2) + "x" * (length % 2), "", "end"]
    data = files.gguf({"words": words, "after": 7})
    metadata = gguf.read(files.written(tmp_path, "m.gguf", data)).metadata
    assert list(metadata["words"]) == words  # type: ignore[call-overload]
    assert metadata["after"] == 7


def test_the_other_alignments(tmp_path: Path) -> None:
    for alignment in (8, 64, 4096):
        tensors = [(n, (4,), "F32", np.full(4, i, np.float32).tobytes()) for i, n in enumerate("ab")]
        data = files.gguf({"general.alignment": alignment}, tensors, alignment=alignment)
        read = gguf.read(files.written(tmp_path, "m.gguf", data))
        assert read.tensors["b"].dequantise().tolist() == [1, 1, 1, 1]


def _tensor(name: str = "t", shape: tuple[int, ...] = (4,), code: int = 0, offset: int = 0) -> bytes:
    return files.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


def _file(
    tensors: list[bytes], keys: Sequence[bytes] = (), body: int = 64, counts: tuple[int, int] | None = None
) -> bytes:
    head = (
        b"GGUF" + struct.pack("<IQQ", 3, *(counts or (len(tensors), len(keys)))) + b"".join([*keys, *tensors])
    )
    return head + bytes(-len(head) % 32) + bytes(body)


def _key(name: str, kind: int, rest: bytes) -> bytes:
    return files.text(name) + struct.pack("<I", kind) + rest


CORRUPT = {
    "empty": b"",
    "another magic": b"GGML" + bytes(60),
    "header cut": files.small_gguf()[:1000],
    "data cut": files.small_gguf()[:-1],
    "one byte short of a header": b"GGUF" + bytes(19),
    "tensor past the end": _file([_tensor(offset=1 << 20)]),
    "offset that wraps": _file([_tensor(offset=(1 << 64) - 32)]),
    "tensor longer than the file": _file([_tensor(shape=(4096,))]),
    "huge dimension": _file([_tensor(shape=(1 << 40,))]),
    "dimensions whose product wraps": _file([_tensor(shape=(1 << 31, 1 << 31, 1 << 31, 1 << 31))]),
    "empty dimension": _file([_tensor(shape=(0, 4))]),
    "no axes": _file([_tensor(shape=())]),
    "nine axes": _file([_tensor(shape=(1,) * 9)]),
    "overlap": _file([_tensor("a", (16,)), _tensor("b", (4,), offset=32)]),
    "same place": _file([_tensor("a"), _tensor("b")]),
    "name twice": _file([_tensor("a"), _tensor("a", offset=32)]),
    "misaligned": _file([_tensor(offset=4)]),
    "unknown type": _file([_tensor(code=200)]),
    "rows of no whole blocks": _file([_tensor(shape=(33,), code=8)]),
    "key twice": _file([], [_key("k", 7, b"\1"), _key("k", 7, b"\1")]),
    "unknown value type": _file([], [_key("k", 13, bytes(8))]),
    "unknown element type": _file([], [_key("k", 9, struct.pack("<IQ", 77, 1))]),
    "endless string": _file([], [_key("k", 8, struct.pack("<Q", 1 << 63))]),
    "endless array": _file([], [_key("k", 9, struct.pack("<IQ", 4, 1 << 61))]),
    "endless strings": _file([], [_key("k", 9, struct.pack("<IQ", 8, 1 << 60))]),
    "strings past the end": _file(
        [], [_key("k", 9, struct.pack("<IQ", 8, 5) + files.text("x" * 200) + b"\xff" * 8)]
    ),
    "a string whose length wraps": _file([], [_key("k", 9, struct.pack("<IQQ", 8, 2, 1 << 48) + bytes(8))]),
    "more keys than there are": _file([], [_key("k", 7, b"\1")], counts=(0, 2)),
    "a million keys": _file([], counts=(0, 1 << 20)),
    "a billion tensors": _file([], counts=(1 << 30, 0)),
    "alignment 0": _file([], [_key("general.alignment", 4, struct.pack("<I", 0))]),
    "alignment 24": _file([], [_key("general.alignment", 4, struct.pack("<I", 24))]),
    "alignment a text": _file([], [_key("general.alignment", 8, files.text("32"))]),
    "a name that is no UTF-8": _file([], [struct.pack("<Q", 2) + b"\xff\xfe" + struct.pack("<I", 7) + b"\1"]),
}
UNSUPPORTED = {
    "version 1": b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(64),
    "version 9": b"GGUF" + struct.pack("<IQQ", 9, 0, 0) + bytes(64),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(64),
    "array of arrays": _file([], [_key("k", 9, struct.pack("<IQ", 9, 1))]),
    "a type that exists": _file([_tensor(shape=(256,), code=10)], body=128),
    "a part of a split": _file([], [_key("split.count", 2, struct.pack("<H", 3))]),
}


@pytest.mark.parametrize("name", CORRUPT)
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CorruptWeights) as e:
        gguf.read(files.written(tmp_path, "damaged.gguf", CORRUPT[name]))
    assert e.value.what and e.value.why and e.value.do
    assert "damaged.gguf" in str(e.value)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_sound_files_of_another_kind_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedModel) as e:
        gguf.read(files.written(tmp_path, "other.gguf", UNSUPPORTED[name]))
    assert e.value.what and e.value.why and e.value.do


def test_every_cut_of_a_sound_file_is_refused(tmp_path: Path) -> None:
    sound = files.small_gguf()
    for length in range(0, len(sound), 97):
        with pytest.raises(LLMOSError):
            gguf.read(files.written(tmp_path, "cut.gguf", sound[:length]))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        gguf.read(tmp_path / "none.gguf")


def test_a_file_that_is_read_by_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        gguf.read(tmp_path)  # a folder


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, llmos.drivers.weights.weights, llmos.drivers.weights.resolve, llmos.drivers.weights.fetch\n"
        "print(sorted({'jax', 'torch', 'huggingface_hub', 'gguf', 'jinja2', 'pydantic'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert out.stdout.strip() == "[]"
