"""Sentence embeddings: all-MiniLM-L6-v2 with mean pooling.

What: text -> unit vectors of 384 numbers whose dot product is likeness of meaning.
Invariant: a text's vector does not depend on its neighbours in a batch beyond f32 rounding; what is longer
    than MAX_TOKENS is embedded by its beginning, so callers bound their texts with `count` (the chunker does).
    Vectors of encoders with different `identity` are never compared: it names the weights and the numerics.
Interface: `Encoder.find(model)` or `Encoder.load(weights_path, tokenizer_path)`; `encoder.encode(texts) ->
    float32 [N, D]`; `encoder.count(texts) -> list[int]` (word pieces, special tokens not counted);
    `encoder.identity`. jax is imported for `identity` and `encode` only. Thread-safe.

Texts of like length run together, BATCH_ROWS tokens at a time, a few texts alone in short programs (a query).
The word table (half of the file) is never copied: rows are looked up in the mapped file.
Source: Reimers and Gurevych 2019 (Sentence-BERT); Wang et al. 2020 (MiniLM).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from llmos.abi.errors import CorruptWeights
from llmos.memory.minilm import DIMENSION, KINDS, PLACES, WORDS, Floats, MiniLM, Numerics, check, numerics

MAX_TOKENS = 256  # the length that the model was published for, special tokens included
ALONE = (32, 64, 256)  # tokens of a text that runs by itself
BATCH_ROWS = 2048  # of tokens that run together
# Tokens of each text of a batch: just below whole parts of BATCH_ROWS; each costs 0.15 s to compile, once.
LENGTHS = (32, 48, 64, 80, 96, 112, 128, 144, 168, 184, 200, 224, 256)
_UNUSED = frozenset({"embeddings.position_ids"})  # a table 0, 1, 2, … that some files carry


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A program's shape: `rows` of tokens in all, `length` for each text."""

    rows: int
    length: int


class Encoder:
    """all-MiniLM-L6-v2; build it with `find` or `load`."""

    def __init__(
        self,
        weights: Mapping[str, Floats],
        tokenizer: Tokenizer,
        mark: str,
        numerics: Numerics | Literal["auto"],
    ) -> None:
        self._weights = weights
        self._tokenizer = tokenizer
        self._mark = mark
        self._asked = numerics
        self._lock = threading.Lock()
        self._network: MiniLM | None = None

    @cached_property
    def numerics(self) -> Numerics:
        """How matrix products are computed (see minilm.py)."""
        return numerics() if self._asked == "auto" else self._asked

    @property
    def identity(self) -> str:
        """Names the weights and the numerics: vectors are compared only where it is the same."""
        return f"minilm-{self._mark}-{self.numerics}"

    @classmethod
    def find(
        cls, model: str = "all-minilm-l6-v2", *, numerics: Numerics | Literal["auto"] = "auto"
    ) -> Encoder:
        """The encoder by catalogue name or path; fetched when it is in the catalogue and not on this machine.

        Raises:
            ModelNotFound, DownloadFailed: there are no such files.
            CorruptWeights, UnsupportedModel: see `load`.
        """
        from llmos.drivers.weights import find

        files = find(model)
        return cls.load(files.path, files.folder / "tokenizer.json", numerics=numerics)

    @classmethod
    def load(
        cls,
        weights_path: Path | str,
        tokenizer_path: Path | str,
        *,
        numerics: Numerics | Literal["auto"] = "auto",
    ) -> Encoder:
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
        check(weights, weights_path.name)
        try:
            tokenizer = Tokenizer.from_file(str(tokenizer_path))
        except Exception as error:  # the library raises nothing narrower
            raise CorruptWeights(
                f"{tokenizer_path} is not a tokenizer", why=str(error), do="verify and pull the model again"
            ) from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        mark = hashlib.sha256(header.tobytes())
        mark.update(weights[WORDS][:64].tobytes())  # a fine-tuned copy has the same header
        mark.update(weights["encoder.layer.0.output.dense.weight"][:16].tobytes())
        return cls(weights, tokenizer, mark.hexdigest()[:16], numerics)

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
        """Unit vectors of texts that fit one bucket."""
        T = bucket.length
        x_ND = np.zeros((bucket.rows, DIMENSION), np.float32)
        for k, row in enumerate(rows):
            x_ND[k * T : k * T + len(row)] = self._weights[WORDS][row] + self._places[: len(row)]
        with self._lock:
            if self._network is None:
                self._network = MiniLM(self._weights, self.numerics)
        seen_ND = self._network(x_ND, [len(row) for row in rows], T)
        sums = np.stack([seen_ND[k * T : k * T + len(row)].sum(0) for k, row in enumerate(rows)])
        unit: Floats = sums / np.linalg.norm(sums, axis=-1, keepdims=True)  # the mean's length cancels
        return unit

    @cached_property
    def _places(self) -> Floats:
        """What a token's place and kind add to its word: f32 [MAX_TOKENS, D]."""
        places: Floats = self._weights[PLACES][:MAX_TOKENS] + self._weights[KINDS][0]
        return places


def _plan(lengths: Sequence[int]) -> list[tuple[_Bucket, list[int]]]:
    """Which rows run together, in which bucket: longest first, so that memory peaks at once and not late."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    plan = []
    while order:
        length = _least(LENGTHS, lengths[order[0]])
        some, order = order[: BATCH_ROWS // length], order[BATCH_ROWS // length :]
        if sum(_least(ALONE, lengths[row]) for row in some) * 2 <= BATCH_ROWS:
            plan += [(_Bucket(n := _least(ALONE, lengths[row]), n), [row]) for row in some]
        else:
            plan.append((_Bucket(BATCH_ROWS, length), some))
    return plan


def _least(buckets: Sequence[int], length: int) -> int:
    return next(bucket for bucket in buckets if bucket >= length)
