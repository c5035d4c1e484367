"""Damaged weights files: whatever the bytes, a typed error or a file that can be read to its end.

The quick part tries a few hundred inputs, the slow part more than ten thousand.
"""

import json
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.abi.errors import LLMOSError
from llmos.drivers.weights import WeightsFiles, gguf, open_weights
from llmos.drivers.weights.gguf import Strings
from llmos.drivers.weights.safetensors import read_file
from tests.drivers.weights import files

QUICK, SLOW = 300, 6_000
SECONDS = 20.0  # one input may take this long on a busy machine; a sound one takes 5 ms
EXTREMES = [0, 1, 2, 7, 8, 9, 255, 256, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 62, (1 << 63) - 1,
            1 << 63, (1 << 64) - 32, (1 << 64) - 1]  # fmt: skip
Mutation = Callable[[bytearray], None]


def flip(at: int, bit: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        data[at % len(data)] ^= 1 << bit

    return mutate


def overwrite(at: int, value: int, width: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at % len(data)
        data[start : start + width] = (value % (1 << 8 * width)).to_bytes(width, "little")

    return mutate


def cut(at: int, length: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at % len(data)
        del data[start : start + length]

    return mutate


def insert(at: int, what: bytes) -> Mutation:
    def mutate(data: bytearray) -> None:
        data[at % len(data) : at % len(data)] = what

    return mutate


def copy(at: int, to: int, length: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start, target = at % len(data), to % len(data)
        data[target : target + length] = data[start : start + length]

    return mutate


def mutations(size: int) -> st.SearchStrategy[list[Mutation]]:
    """Lists of mutations, most of them in the first `size` bytes."""
    places = st.one_of(st.integers(0, size), st.integers(0, 1 << 20))
    return st.lists(
        st.one_of(
            st.builds(flip, places, st.integers(0, 7)),
            st.builds(overwrite, places, st.sampled_from(EXTREMES), st.sampled_from([1, 2, 4, 8])),
            st.builds(cut, places, st.one_of(st.integers(1, 64), st.just(1 << 20))),
            st.builds(insert, places, st.binary(min_size=1, max_size=32)),
            st.builds(copy, places, places, st.integers(1, 128)),
        ),
        min_size=1,
        max_size=6,
    )


def damaged(sound: bytes, changes: list[Mutation]) -> bytes:
    data = bytearray(sound)
    for change in changes:
        if data:
            change(data)
    return bytes(data)


def read_all_of_gguf(path: Path) -> None:
    """Opens a file and looks at everything in it."""
    weights = open_weights(WeightsFiles("fuzz", "gguf", path.parent, (path,)))
    for value in weights.metadata.values():
        if isinstance(value, Strings):
            assert len(list(value)) == len(value)
    assert len(weights.identity) == 32
    with np.errstate(all="ignore"):
        for tensor in weights.tensors.values():
            assert tensor.dequantise().shape == tensor.shape
    for part in (weights.tokenizer, weights.template):
        try:
            built = part()
        except LLMOSError:
            continue
        if part == weights.tokenizer:
            ids = built.encode("hello <|im_end|> wörld\n\n 1")  # type: ignore[union-attr]
            assert not built.control_ids.intersection(ids)  # type: ignore[union-attr]
            built.decode([*ids, *range(0, built.vocab_size, 17)])  # type: ignore[union-attr]
            built.encode_control("<|im_start|>hello")  # type: ignore[union-attr]
        else:
            built.render([{"role": "user", "content": "x"}])  # type: ignore[union-attr]


def read_all_of_safetensors(path: Path) -> None:
    tensors, _ = read_file(path)
    with np.errstate(all="ignore"):
        for tensor in tensors.values():
            assert tensor.dequantise().shape == tensor.shape


def survives(read: Callable[[Path], None], path: Path, data: bytes) -> bool:
    """Whether the file could be read; raises what is no typed error, and for too much time."""
    path.write_bytes(data)
    began = time.process_time()
    try:
        read(path)
    except LLMOSError as e:
        assert e.what
        return False
    finally:
        assert time.process_time() - began < SECONDS
    return True


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "fuzz.bin"


SMALL_GGUF = files.small_gguf()
# Where the header is all there is, more of the mutations hit something.
BARE_GGUF = files.gguf(
    {
        "general.architecture": "llama",
        "words": ["a", "bc"],
        "numbers": np.arange(3, dtype=np.int32),
        "x": 1.5,
    },
    [("t", (2, 32), "Q8_0", files.blocks("Q8_0", (2, 32))), ("u", (4,), "F32", bytes(16))],
)
SMALL_SAFETENSORS = files.small_safetensors()
HEADER = 8 + int.from_bytes(SMALL_SAFETENSORS[:8], "little")


def fuzz_gguf(file: Path, changes: list[Mutation]) -> None:
    survives(read_all_of_gguf, file, damaged(SMALL_GGUF, changes))


def fuzz_bare_gguf(file: Path, changes: list[Mutation]) -> None:
    survives(read_all_of_gguf, file, damaged(BARE_GGUF, changes))


def fuzz_safetensors(file: Path, changes: list[Mutation]) -> None:
    survives(read_all_of_safetensors, file, damaged(SMALL_SAFETENSORS, changes))


def fuzz_descriptions(file: Path, tensors: dict[str, object]) -> None:
    """Sound JSON that says strange things."""
    head = json.dumps(tensors).encode()
    survives(read_all_of_safetensors, file, struct.pack("<Q", len(head)) + head + bytes(256))


NUMBERS = st.one_of(st.integers(-3, 300), st.sampled_from(EXTREMES), st.floats(), st.none(), st.booleans())
DESCRIPTIONS = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "?", 5]),
                "shape": st.lists(NUMBERS, max_size=5),
                "data_offsets": st.lists(NUMBERS, max_size=3),
            }
        ),
        st.fixed_dictionaries(
            {
                "dtype": st.just("F32"),
                "shape": st.just([4]),
                "data_offsets": st.sampled_from([[0, 16], [16, 32], [8, 24]]),
            }
        ),
        st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    ),
    max_size=4,
)
TARGETS = [
    (fuzz_gguf, mutations(len(SMALL_GGUF))),
    (fuzz_bare_gguf, mutations(300)),
    (fuzz_safetensors, mutations(HEADER)),
    (fuzz_descriptions, DESCRIPTIONS),
]


def run(target: Callable[..., None], strategy: st.SearchStrategy[object], file: Path, cases: int) -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]

    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=checks)
    @given(strategy)
    def each(what: object) -> None:
        target(file, what)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    each()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 << 10  # KiB: no input makes the loaders allocate what it merely claims


@pytest.mark.parametrize(("target", "strategy"), TARGETS, ids=lambda t: getattr(t, "__name__", ""))
def test_damaged_files_quick(
    target: Callable[..., None], strategy: st.SearchStrategy[object], file: Path
) -> None:
    run(target, strategy, file, QUICK // len(TARGETS))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("target", "strategy"), TARGETS, ids=lambda t: getattr(t, "__name__", ""))
def test_damaged_files_slow(
    target: Callable[..., None], strategy: st.SearchStrategy[object], file: Path
) -> None:
    run(target, strategy, file, SLOW)


def test_the_sound_files_are_read(file: Path) -> None:
    assert survives(read_all_of_gguf, file, SMALL_GGUF)
    assert not survives(read_all_of_gguf, file, SMALL_GGUF[:-1])
    path = file.with_name("sound.safetensors")
    assert survives(read_all_of_safetensors, path, SMALL_SAFETENSORS)
    assert gguf.read(
        file.with_name("bare") if file.with_name("bare").write_bytes(BARE_GGUF) else file
    ).tensors


@pytest.mark.parametrize("at", range(0, len(BARE_GGUF) - 8, 4))
def test_extremes_at_every_place_of_a_header(file: Path, at: int) -> None:
    for value in EXTREMES:
        survives(read_all_of_gguf, file, damaged(BARE_GGUF, [overwrite(at, value, 8)]))
