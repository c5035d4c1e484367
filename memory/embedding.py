"""Sentence embeddings: all-MiniLM-L6-v2, a BERT encoder with mean pooling, in JAX.

What: text -> unit vectors of 384 numbers whose dot product is likeness of meaning.
Invariant: a text's vector does not depend on its neighbours in a batch beyond f32 rounding; what is longer
    than MAX_TOKENS is embedded by its beginning, so callers bound their texts with `count` (the chunker does).
Interface: `Encoder.find(model)` or `Encoder.load(weights_path, tokenizer_path)`; `encoder.encode(texts) ->
    float32 [N, D]`; `encoder.count(texts) -> list[int]` (word pieces, special tokens not counted);
    `encoder.identity`. jax is imported, and the encoder compiled, on the first `encode` only. Thread-safe.

Shapes are buckets, so that few programs are compiled: one text at a time in a short bucket (a query), else
equal batches of texts of like length. The word table (half of the file) is never copied: rows are looked up
in the mapped file. Layers are stacked and scanned: one layer is compiled, not six (unrolled, it compiled
three times as long and ran no faster).
Source: Reimers and Gurevych 2019 (Sentence-BERT); Wang et al. 2020 (MiniLM).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from llmos.abi.errors import CorruptWeights, UnsupportedModel

Floats = npt.NDArray[np.float32]

MAX_TOKENS = 256  # the length that the model was published for, special tokens included
DIMENSION = 384
HEADS = 12
EPSILON = 1e-12  # of layer normalisation
QUERY_BUCKETS = (16, 32, 64)  # tokens of a lone text
BATCH_BUCKETS = (
    64,
    128,
    192,
    256,
)  # tokens of each text of a batch; each costs a second or two to compile, once
BATCH = 8  # texts in a batch; 4 to 32 are equally fast, and small ones tell progress sooner
_UNUSED = frozenset({"embeddings.position_ids"})  # a table 0, 1, 2, … that some files carry
_WORDS = "embeddings.word_embeddings.weight"
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
    """all-MiniLM-L6-v2; build it with `find` or `load`."""

    def __init__(self, weights: Mapping[str, Floats], tokenizer: Tokenizer, identity: str) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self.identity = identity
        self._lock = threading.Lock()
        self._forward: Callable[..., Any] | None = None
        self._parameters: Any = None

    @classmethod
    def find(cls, model: str = "all-minilm-l6-v2") -> Encoder:
        """The encoder by catalogue name or path; fetched when it is in the catalogue and not on this machine.

        Raises:
            ModelNotFound, DownloadFailed: there are no such files.
            CorruptWeights, UnsupportedModel: see `load`.
        """
        from llmos.drivers.weights import find

        files = find(model)
        return cls.load(files.path, files.folder / "tokenizer.json")

    @classmethod
    def load(cls, weights_path: Path | str, tokenizer_path: Path | str) -> Encoder:
        """Map the safetensors file and read `tokenizer.json`; cheap, nothing is compiled yet.

        Raises:
            ModelNotFound: a file cannot be opened.
            CorruptWeights: a file is not what its format says, or a tensor is missing.
            UnsupportedModel: the tensors are another model's.
        """
        import hashlib

        from llmos.drivers.weights.safetensors import read_file

        weights_path, tokenizer_path = Path(weights_path), Path(tokenizer_path)
        tensors, header = read_file(weights_path, _UNUSED)
        weights: dict[str, Floats] = {}
        for name, tensor in tensors.items():
            aligned = tensor.type == "F32" and tensor.data.ctypes.data % 4 == 0
            values = tensor.data.view(np.float32).reshape(tensor.shape) if aligned else tensor.dequantise()
            weights[name.removeprefix("bert.")] = values
        _check(weights, weights_path.name)
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises nothing narrower
            raise CorruptWeights(
                f"{tokenizer_path} is not a tokenizer", why=str(error), do="verify and pull the model again"
            ) from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        mark = hashlib.sha256(header.tobytes())
        mark.update(weights[_WORDS][:64].tobytes())  # a fine-tuned copy has the same header
        mark.update(weights["encoder.layer.0.output.dense.weight"][:16].tobytes())
        return cls(weights, tokenizer, f"minilm-{mark.hexdigest()[:16]}")

    def count(self, texts: Sequence[str]) -> list[int]:
        """Word pieces in each text, special tokens not counted; additive over white space."""
        return [len(e.ids) for e in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Floats:
        """Unit vectors, float32 [len(texts), 384]; `progress` is told how many texts are done."""
        vectors = np.zeros((len(texts), DIMENSION), np.float32)
        if not texts:
            return vectors
        ids = [e.ids for e in self._tokenizer.encode_batch_fast(list(texts))]
        ids = [row if len(row) <= MAX_TOKENS else row[: MAX_TOKENS - 1] + row[-1:] for row in ids]
        done = 0
        for bucket, rows in _plan([len(row) for row in ids]):
            vectors[rows] = self._run([ids[row] for row in rows], bucket)
            done += len(rows)
            if progress is not None:
                progress(done)
        return vectors

    def _run(self, rows: Sequence[Sequence[int]], bucket: _Bucket) -> Floats:
        ids = np.zeros((bucket.rows, bucket.length), np.int32)
        lengths = np.ones(bucket.rows, np.int32)  # an unused row attends to one token: no division by zero
        for k, row in enumerate(rows):
            ids[k, : len(row)] = row
            lengths[k] = len(row)
        words_BTD = self._weights[_WORDS][ids]
        with self._lock:
            if self._forward is None:
                self._forward, self._parameters = _build(self._weights)
        return np.asarray(self._forward(self._parameters, words_BTD, lengths))[: len(rows)]


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


def _check(weights: Mapping[str, Floats], name: str) -> None:
    """Every tensor that the forward reads is there, in the shape that it needs."""
    table: dict[str, tuple[int | None, ...]] = {
        _WORDS: (None, DIMENSION),
        "embeddings.position_embeddings.weight": (None, DIMENSION),
        "embeddings.token_type_embeddings.weight": (None, DIMENSION),
        "embeddings.LayerNorm.weight": (DIMENSION,),
        "embeddings.LayerNorm.bias": (DIMENSION,),
    }
    wide = {"up": (4 * DIMENSION, DIMENSION), "down": (DIMENSION, 4 * DIMENSION)}
    for layer in range(_layers(weights)):
        for part, path in _LAYER.items():
            square = wide.get(part, (DIMENSION, DIMENSION))
            table[f"encoder.layer.{layer}.{path}.weight"] = (DIMENSION,) if "norm" in part else square
            table[f"encoder.layer.{layer}.{path}.bias"] = square[:1]
    for tensor, shape in table.items():
        have = weights[tensor].shape if tensor in weights else None
        fits = have is not None and len(have) == len(shape)
        if not fits or any(want not in (None, got) for want, got in zip(shape, have or (), strict=True)):
            raise UnsupportedModel(
                f"{name} is not all-MiniLM-L6-v2",
                why=f"tensor {tensor} is {'missing' if have is None else f'{have}, not {shape}'}",
                do="use the catalogue's all-minilm-l6-v2",
            )


def _layers(weights: Mapping[str, Floats]) -> int:
    numbers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
    return max((int(n) + 1 for n in numbers if n.isdecimal()), default=1)


def _build(weights: Mapping[str, Floats]) -> tuple[Callable[..., Any], Any]:
    """The jitted forward (parameters, words_BTD, lengths_B) -> vectors_BD, and its parameters on the device."""
    import jax
    import jax.numpy as jnp

    layers = range(_layers(weights))

    def stacked(*parts: str) -> tuple[Any, Any]:
        """Weights [L, in, out] (a norm's [L, 1, out]), biases [L, 1, out]; several parts side by side."""
        names = [[f"encoder.layer.{n}.{_LAYER[part]}" for part in parts] for n in layers]
        weight = np.stack(
            [np.concatenate([np.atleast_2d(weights[f"{n}.weight"].T) for n in row], -1) for row in names]
        )
        bias = np.stack([np.concatenate([weights[f"{n}.bias"] for n in row])[None] for row in names])
        return jnp.asarray(weight), jnp.asarray(bias)

    places = weights["embeddings.position_embeddings.weight"][:MAX_TOKENS]
    kinds = weights["embeddings.token_type_embeddings.weight"][0]
    parameters = {
        "offset": jnp.asarray(places + kinds),
        "norm": tuple(
            jnp.asarray(weights[f"embeddings.LayerNorm.{leaf}"][None]) for leaf in ("weight", "bias")
        ),
        "stack": {"qkv": stacked("query", "key", "value")}
        | {part: stacked(part) for part in ("out", "norm1", "up", "down", "norm2")},
    }

    def normalise(x: Any, p: tuple[Any, Any]) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * p[0] + p[1]

    @jax.jit
    def forward(parameters: Any, words_BTD: Any, lengths_B: Any) -> Any:
        B, T, D = words_BTD.shape
        H = D // HEADS
        real_BT = jnp.arange(T)[None, :] < lengths_B[:, None]
        hide_B11T = jnp.where(real_BT, 0.0, -1e30)[:, None, None, :]
        x = normalise((words_BTD + parameters["offset"][None, :T]).reshape(B * T, D), parameters["norm"])

        def layer(x: Any, p: Any) -> tuple[Any, None]:
            qkv = (x @ p["qkv"][0] + p["qkv"][1]).reshape(B, T, 3, HEADS, H)
            q, k, v = qkv.transpose(2, 0, 3, 1, 4).reshape(3, B * HEADS, T, H)
            scores = (q @ k.transpose(0, 2, 1)).reshape(B, HEADS, T, T) * H**-0.5 + hide_B11T
            mixed = jax.nn.softmax(scores, -1).reshape(B * HEADS, T, T) @ v
            mixed = mixed.reshape(B, HEADS, T, H).transpose(0, 2, 1, 3).reshape(B * T, D)
            x = normalise(x + mixed @ p["out"][0] + p["out"][1], p["norm1"])
            up = jax.nn.gelu(x @ p["up"][0] + p["up"][1], approximate=False)
            return normalise(x + up @ p["down"][0] + p["down"][1], p["norm2"]), None

        x, _ = jax.lax.scan(layer, x, parameters["stack"])
        sums_BD = jnp.einsum("btd,bt->bd", x.reshape(B, T, D), real_BT.astype(x.dtype))
        return sums_BD / jnp.linalg.norm(sums_BD, axis=-1, keepdims=True)  # the mean's length cancels

    return forward, parameters
