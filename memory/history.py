"""What was said before: how much each exchange of a conversation bears on a question.

What: likeness of meaning where an encoder is at hand, and shared words by their rarity in this conversation: the
    retrieval of volumes on a few dozen texts, without an index.
Invariant: pure but for the vectors that are kept, by text. Without an encoder the words alone decide.
Interface: `History(encode)`; `history.relevance(question, texts) -> [value]`, about 0 for what is off the point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from llmos.memory.ranking import lexical_terms

WORDS = 0.3  # what all words of a question add to a cosine, as in `memory.volume`
_KEPT = 4096  # vectors

Encode = Callable[[Sequence[str]], np.ndarray]  # texts -> unit vectors [N, D]


class History:
    """Not thread-safe; one a process."""

    def __init__(self, encode: Encode | None = None) -> None:
        self._encode = encode
        self._vectors: dict[str, np.ndarray] = {}

    def relevance(self, question: str, texts: Sequence[str]) -> list[float]:
        """What each text is worth to the question."""
        words = _words(question, texts)
        if self._encode is None or not texts:
            return [WORDS * share for share in words]
        missing = [text for text in dict.fromkeys([question, *texts]) if text not in self._vectors]
        if missing:
            self._vectors |= dict(zip(missing, self._encode(missing), strict=True))
        asked = self._vectors[question]
        values = [
            float(self._vectors[text] @ asked) + WORDS * share
            for text, share in zip(texts, words, strict=True)
        ]
        while len(self._vectors) > _KEPT:
            del self._vectors[next(iter(self._vectors))]
        return values


def _words(question: str, texts: Sequence[str]) -> list[float]:
    """For each text, the share of the question's words that it holds, rare ones counting more."""
    asked = set(lexical_terms(question))
    held = [asked & set(lexical_terms(text)) for text in texts]
    rarity = {term: math.log(1 + len(texts) / (1 + sum(term in of for of in held))) for term in asked}
    whole = sum(rarity.values()) or 1.0
    return [sum(rarity[term] for term in of) / whole for of in held]
