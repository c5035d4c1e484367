"""Sentence embeddings: all-MiniLM-L6-v2, a BERT encoder with mean pooling, in JAX.

What: text -> unit vectors of 384 numbers whose dot product is likeness of meaning.
Invariant: a text's vector does not depend on its neighbours in a batch beyond f32 rounding; what is longer
    than MAX_TOKENS is not embedded whole, so callers bound their texts with `count` (the chunker does).
Interface: `Encoder.load(weights_path, tokenizer_path) -> Encoder`; `encoder.encode(texts) -> float32 [N, D]`;
    `encoder.count(texts) -> list[int]` (word pieces, special tokens not counted); `encoder.identity`.
    jax is imported, and the encoder compiled, on the first `encode` only. Thread-safe.

Shapes are buckets, so that few programs are compiled: one text at a time in a short bucket (a query), else
equal batches of texts of like length. The word table (half of the file) is never copied: rows are looked up in
the mapped file. Layers are stacked and scanned: one layer is compiled, not six.
Source: Reimers and Gurevych 2019 (Sentence-BERT); Wang et al. 2020 (MiniLM).
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from llmos.abi.errors import CorruptWeights, UnsupportedModel

MAX_TOKENS = 256  # the length that the model was trained for, special tokens included
DIMENSION = 384
HEADS = 12
EPSILON = 1e-12  # of layer normalisation
QUERY_BUCKETS = (16, 32, 64)  # tokens of a lone text
BATCH_BUCKETS = (64, 128, 160, 192, 224, 256)  # tokens of each text of a batch
BATCH = 8  # texts in a batch
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


@dataclass(frozen=True, slots=True)
class _Bucket:
    rows: int
    length: int


class Encoder:
    """all-MiniLM-L6-v2; build it with `load`."""

    def __init__(self, weights: dict[str, np.ndarray], tokenizer: Tokenizer, identity: str) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self.identity = identity
        self._lock = threading.Lock()
        self._forward: Callable[..., Any] | None = None
        self._parameters: Any = None

    @classmethod
    def load(cls, weights_path: Path | str, tokenizer_path: Path | str) -> Encoder:
        """Map the safetensors file and read `tokenizer.json`; cheap, nothing is compiled yet.

        Raises:
            CorruptWeights: a file is not what its format says, or a tensor is missing.
            UnsupportedModel: the tensors are another model's.
        """
        weights_path, tokenizer_path = Path(weights_path), Path(tokenizer_path)
        weights, header = _map_safetensors(weights_path)
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # tokenizers raises bare Exception
            raise CorruptWeights(
                f"{tokenizer_path.name} is not a tokenizer",
                why=str(error),
                do="verify and pull the model again",
            ) from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        identity = (
            f"minilm-{hashlib.sha256(header + str(weights_path.stat().st_size).encode()).hexdigest()[:16]}"
        )
        return cls(weights, tokenizer, identity)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Word pieces in each text, special tokens not counted; additive over white space."""
        return [len(e.ids) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Unit vectors, float32 [len(texts), 384]; `progress` is told how many texts are done."""
        vectors = np.zeros((len(texts), DIMENSION), np.float32)
        if not texts:
            return vectors
        ids = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
        ids = [row if len(row) <= MAX_TOKENS else row[: MAX_TOKENS - 1] + row[-1:] for row in ids]
        done = 0
        for bucket, rows in _plan([len(row) for row in ids]):
            vectors[rows] = self._run([ids[row] for row in rows], bucket)
            done += len(rows)
            if progress is not None:
                progress(done)
        return vectors

    def _run(self, rows: list[list[int]], bucket: _Bucket) -> np.ndarray:
        ids = np.zeros((bucket.rows, bucket.length), np.int32)
        lengths = np.ones(bucket.rows, np.int32)  # an unused row attends to one token: no division by zero
        for k, row in enumerate(rows):
            ids[k, : len(row)] = row
            lengths[k] = len(row)
        words = self._weights["embeddings.word_embeddings.weight"][ids]
        with self._lock:
            if self._forward is None:
                self._forward, self._parameters = _build(self._weights)
        return np.asarray(self._forward(self._parameters, words, lengths))[: len(rows)]


def _plan(lengths: Sequence[int]) -> list[tuple[_Bucket, list[int]]]:
    """Which rows run together, in which bucket: longest first, so that memory peaks at once and not late."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    if len(order) == 1 and lengths[0] <= QUERY_BUCKETS[-1]:
        return [(_Bucket(1, next(b for b in QUERY_BUCKETS if b >= lengths[0])), order)]
    plan = []
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        plan.append((_Bucket(BATCH, next(b for b in BATCH_BUCKETS if b >= lengths[rows[0]])), rows))
    return plan


def _map_safetensors(path: Path) -> tuple[dict[str, np.ndarray], bytes]:
    """The f32 tensors of a file as read-only views of its mapping, and the raw header."""

    def corrupt(why: str) -> CorruptWeights:
        return CorruptWeights(f"{path.name} is damaged", why=why, do="verify and pull the model again")

    try:
        data = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise corrupt(str(error)) from None
    size = int.from_bytes(data[:8].tobytes(), "little") if data.size >= 8 else 0
    if not 2 <= size <= data.size - 8:
        raise corrupt("the header does not fit the file")
    header = data[8 : 8 + size].tobytes()
    weights: dict[str, np.ndarray] = {}
    try:
        entries = json.loads(header)
        for name, entry in entries.items():
            if name == "__metadata__" or entry["dtype"] != "F32":
                continue
            start, end = (8 + size + int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(n) for n in entry["shape"])
            if (
                not 8 + size <= start <= end <= data.size
                or end - start != 4 * math.prod(shape)
                or min(shape) < 1
            ):
                raise corrupt(f"tensor {name} does not fit the file")
            weights[name.removeprefix("bert.")] = (
                np.ndarray(shape, np.float32, data[start:end].tobytes())
                if (start % 4)
                else data[start:end].view(np.float32).reshape(shape)
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise corrupt(f"its header is not a tensor list ({error})") from None
    expected = {
        "embeddings.word_embeddings.weight": (None, DIMENSION),
        "embeddings.position_embeddings.weight": (None, DIMENSION),
        "embeddings.token_type_embeddings.weight": (None, DIMENSION),
        "embeddings.LayerNorm.weight": (DIMENSION,),
        "embeddings.LayerNorm.bias": (DIMENSION,),
        "encoder.layer.0.intermediate.dense.weight": (4 * DIMENSION, DIMENSION),
    }
    for name, shape in expected.items():
        have = weights[name].shape if name in weights else ()
        if len(have) != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, have, strict=True)
        ):
            raise UnsupportedModel(
                f"{path.name} is not all-MiniLM-L6-v2", why=f"tensor {name} is {have or 'missing'}, not {shape}",
                do="use the catalogue's all-minilm-l6-v2",
            )  # fmt: skip
    return weights, header


def _build(weights: dict[str, np.ndarray]) -> tuple[Callable[..., Any], Any]:
    """The jitted forward (parameters, words_BTD, lengths_B) -> vectors_BD, and its parameters on the device."""
    import jax
    import jax.numpy as jnp

    layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer."))

    def stacked(part: str, leaf: str) -> Any:
        return jnp.asarray(np.stack([weights[f"encoder.layer.{n}.{part}.{leaf}"] for n in range(layers)]))

    try:
        stack = {name: (stacked(part, "weight"), stacked(part, "bias")) for name, part in _LAYER.items()}
    except (KeyError, ValueError) as error:
        raise CorruptWeights(
            "the encoder's layers are incomplete", why=str(error), do="pull the model again"
        ) from None
    places = weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    kinds = weights["embeddings.token_type_embeddings.weight"][0]
    norm = (weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
    parameters = {
        "stack": stack,
        "offset": jnp.asarray(places + kinds),
        "norm": tuple(map(jnp.asarray, norm)),
    }

    def normalise(x_BTD: Any, scale_bias: tuple[Any, Any]) -> Any:
        mean = x_BTD.mean(-1, keepdims=True)
        variance = ((x_BTD - mean) ** 2).mean(-1, keepdims=True)
        return (x_BTD - mean) * jax.lax.rsqrt(variance + EPSILON) * scale_bias[0] + scale_bias[1]

    def linear(x_BTD: Any, weight_bias: tuple[Any, Any]) -> Any:
        return jnp.einsum("btd,fd->btf", x_BTD, weight_bias[0]) + weight_bias[1]

    @jax.jit
    def forward(parameters: Any, words_BTD: Any, lengths_B: Any) -> Any:
        B, T, D = words_BTD.shape
        x_BTD = normalise(words_BTD + parameters["offset"][:T], parameters["norm"])
        real_BT = jnp.arange(T) < lengths_B[:, None]
        bias_B11T = jnp.where(real_BT, 0.0, jnp.finfo(jnp.float32).min)[:, None, None, :]

        def layer(x_BTD: Any, p: Any) -> tuple[Any, None]:
            q, k, v = (
                linear(x_BTD, p[n]).reshape(B, T, HEADS, D // HEADS) for n in ("query", "key", "value")
            )
            scores = jnp.einsum("bthd,bshd->bhts", q, k) * (D // HEADS) ** -0.5 + bias_B11T
            mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, -1), v).reshape(B, T, D)
            x_BTD = normalise(x_BTD + linear(mixed, p["out"]), p["norm1"])
            up = jax.nn.gelu(linear(x_BTD, p["up"]), approximate=False)
            return normalise(x_BTD + linear(up, p["down"]), p["norm2"]), None

        x_BTD, _ = jax.lax.scan(layer, x_BTD, parameters["stack"])
        sums_BD = jnp.einsum("btd,bt->bd", x_BTD, real_BT.astype(x_BTD.dtype))
        return sums_BD / jnp.linalg.norm(sums_BD, axis=-1, keepdims=True)  # the mean's length cancels

    return forward, parameters
