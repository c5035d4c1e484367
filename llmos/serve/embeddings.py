"""`/v1/embeddings`: vectors by the encoder of the volumes.

What: encodes texts off the loop, some at a time.
Invariant: a text that the encoder would read only the beginning of is an error.
Interface: `embed(kernel, texts) -> (vectors [N, D], tokens)`, `packed(vector)`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmos.memory.embedding import MAX_TOKENS
from llmos.serve.refusal import Refusal

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.memory.embedding import Encoder

BATCH = 128  # texts in one go; whoever leaves is noticed between two
_SPECIAL = 2  # tokens around each text


async def embed(kernel: Kernel, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
    """The texts' unit vectors f32 [N, D], and how many tokens they have.

    Raises:
        Refusal: a text is longer than the encoder reads.
    """
    encoder: Encoder = await asyncio.to_thread(lambda: kernel.library.encoder)
    counts = await asyncio.to_thread(encoder.count, texts)
    most = MAX_TOKENS - _SPECIAL
    for i, count in enumerate(counts):
        if count > most:
            raise Refusal(
                400, f"input[{i}] has {count} tokens; the encoder reads {most} of a text. Split it.",
                param="input", code="context_length_exceeded",
            )  # fmt: skip
    parts = [
        await asyncio.to_thread(encoder.encode, texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)
    ]
    return np.concatenate(parts), sum(counts)


def packed(vector: NDArray[np.float32]) -> str:
    """A vector as clients like it best: its f32 little-endian bytes in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
