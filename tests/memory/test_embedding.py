"""The JAX encoder against `transformers`, and what it does with files that are not its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import CorruptWeights, ModelNotFound, UnsupportedModel
from llmos.drivers import cpu
from llmos.memory.embedding import ALONE, BATCH_ROWS, LENGTHS, MAX_TOKENS, Encoder, _Bucket, _plan
from llmos.memory.minilm import Numerics, numerics

REFERENCE = json.loads((Path(__file__).parent / "data" / "minilm_reference.json").read_text())


AGREE = {"f32": 2e-6, "q8": 2e-3}  # of a vector's numbers; an 8-bit rounding may fall the other way


@pytest.fixture(scope="module")
def encoder(weights_path: Callable[[str], Path]) -> Encoder:
    return Encoder.find("all-minilm-l6-v2", numerics="f32")


@pytest.fixture(scope="module")
def fast(weights_path: Callable[[str], Path]) -> Encoder:
    if not cpu.available():
        pytest.skip("the CPU kernels are not built here")
    return Encoder.find("all-minilm-l6-v2", numerics="q8")


@pytest.fixture(params=["f32", "q8"])
def either(request: pytest.FixtureRequest) -> Encoder:
    found: Encoder = request.getfixturevalue({"f32": "encoder", "q8": "fast"}[request.param])
    return found


def test_vectors_equal_those_of_transformers(encoder: Encoder) -> None:
    """Made by data/make_minilm_reference.py; accents, scripts, emoji, and a text that is too long among them."""
    vectors = encoder.encode(REFERENCE["texts"])
    assert np.abs(vectors - np.array(REFERENCE["vectors"])).max() < 2e-6
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    sizes = [min(n + 2, MAX_TOKENS) for n in encoder.count(REFERENCE["texts"])]
    assert sizes == REFERENCE["tokens"]


def test_8_bit_vectors_stay_close_to_the_reference(fast: Encoder) -> None:
    vectors = fast.encode(REFERENCE["texts"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    cosines = (vectors * np.array(REFERENCE["vectors"])).sum(1)
    assert cosines.mean() > 0.9995
    assert cosines.min() > 0.998  # of the oddest text


def test_8_bit_vectors_of_passages_equal_f32(fast: Encoder, encoder: Encoder) -> None:
    """On prose, batched and alone, in every bucket."""
    prose = (Path(__file__).parents[2] / "LICENSE").read_text().split()
    texts = [
        " ".join(prose[n : n + size]) for size in (8, 20, 60, 90, 120, 150, 400) for n in range(0, 500, 31)
    ]
    cosines = (fast.encode(texts) * encoder.encode(texts)).sum(1)
    assert cosines.min() > 0.999


def test_numerics_are_part_of_the_identity(fast: Encoder, encoder: Encoder) -> None:
    assert fast.identity != encoder.identity
    assert Encoder.find("all-minilm-l6-v2").identity in (fast.identity, encoder.identity)


def test_without_kernels_the_encoder_is_f32(monkeypatch: pytest.MonkeyPatch) -> None:
    best: Numerics = "q8" if cpu.available() and cpu.isa() != "portable" else "f32"
    assert numerics() == best
    monkeypatch.setattr(cpu, "available", lambda: False, raising=False)
    assert numerics() == "f32"


def test_a_text_means_the_same_alone_and_among_others(either: Encoder) -> None:
    texts = REFERENCE["texts"]
    together = either.encode([*texts, *(f"neighbour number {n}, " * 30 for n in range(9))])
    alone = np.stack([either.encode([text])[0] for text in texts])
    assert np.abs(together[: len(texts)] - alone).max() < AGREE[either.numerics]
    assert either.encode([]).shape == (0, 384)


def test_counts_are_additive_over_white_space(encoder: Encoder) -> None:
    """The chunker sums the sizes of sentences and lines."""
    parts = [text.strip() for text in REFERENCE["texts"]]
    assert encoder.count(["\n\n".join(parts)])[0] == sum(encoder.count(parts))


def test_progress_counts_texts(encoder: Encoder) -> None:
    seen: list[int] = []
    encoder.encode([f"text {n}" for n in range(11)], seen.append)
    assert seen[-1] == 11
    assert seen == sorted(seen)


def test_every_length_has_a_bucket_and_every_row_a_place() -> None:
    assert _plan([10]) == [(_Bucket(32, 32), [0])]
    assert LENGTHS[-1] == ALONE[-1] == MAX_TOKENS
    assert _plan([MAX_TOKENS] * 9)[-1] == (
        _Bucket(MAX_TOKENS, MAX_TOKENS),
        [8],
    )  # what is left over runs alone
    plan = _plan([n % (MAX_TOKENS + 1) or 1 for n in range(1000)])
    assert sorted(row for _, rows in plan for row in rows) == list(range(1000))
    assert all(len(rows) * bucket.length <= bucket.rows for bucket, rows in plan)
    assert sum(bucket.rows for bucket, _ in plan) < 1.15 * sum(n % (MAX_TOKENS + 1) or 1 for n in range(1000))
    assert max(bucket.rows for bucket, _ in plan) == BATCH_ROWS


def test_loading_imports_no_jax(weights_path: Callable[[str], Path]) -> None:
    weights = weights_path("all-minilm-l6-v2")
    code = (
        "import sys; from llmos.memory.embedding import Encoder\n"
        f"e = Encoder.load({str(weights)!r}, {str(weights.parent / 'tokenizer.json')!r})\n"
        "assert e.count(['two words']) == [2] and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_other_files_are_refused(tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    weights = weights_path("all-minilm-l6-v2")
    tokenizer = weights.parent / "tokenizer.json"
    with pytest.raises(ModelNotFound):
        Encoder.load(tmp_path / "gone.safetensors", tokenizer)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(CorruptWeights):
        Encoder.load(cut, tokenizer)
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "other.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UnsupportedModel, match="word_embeddings"):
        Encoder.load(tmp_path / "other.safetensors", tokenizer)
    shutil.copy(tokenizer, tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptWeights, match="is not a tokenizer"):
        Encoder.load(weights, tmp_path / "tokenizer.json")
