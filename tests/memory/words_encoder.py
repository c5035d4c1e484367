"""A small real embedder for tests of storage: hashed bags of words, so likeness is shared words. No download."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np


class WordsEncoder:
    """Vectors of 64 numbers; counts the texts that it has embedded."""

    def __init__(self, identity: str = "words-1") -> None:
        self.identity = identity
        self.embedded = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        self.embedded += len(texts)
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            row[0] = 1e-3
            for word in re.findall(r"\w+", text.lower()):
                row[zlib.crc32(word.encode()) % 64] += 1
            row /= np.linalg.norm(row)
        if progress is not None and texts:
            progress(len(texts))
        return vectors
