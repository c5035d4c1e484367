"""The child of `test_volume_memory`: mounts so many files, and prints its peak memory in MiB and its chunks.

What: files of made-up words and an encoder that draws vectors at random; everything else is a mount as it is.
Interface: `python -m tests.memory.grown FILES`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import peak_mib
from llmos.memory.minilm import DIMENSION
from llmos.memory.volume import Volume

PARAGRAPHS = 100  # of a file, each a chunk or nearly


class Drawn:
    """Counts words; its vectors are random."""

    identity = "drawn"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        vectors = self._rng.standard_normal((len(texts), DIMENSION), np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def main() -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as name:
        documents = Path(name, "documents")
        documents.mkdir()
        for n in range(int(sys.argv[1])):
            texts = (f"Of {n} and {p}: " + "some words " * 80 for p in range(PARAGRAPHS))
            Path(documents, f"{n}.txt").write_text("\n\n".join(texts))
        volume = Volume.open(Path(name, "volume"), Drawn())
        volume.mount(documents)
        print(peak_mib(), len(volume))
        volume.close()


if __name__ == "__main__":
    main()
