"""How two rankings become one.

What: the fusion of likeness (cosines) and words (BM25), BM25 over several volumes as if they were one, and the
    removal of passages that say the same again (a manual that lies there as text and as HTML).
Invariant: the order is a function of the scores alone; ties go to the smaller id.
Interface: `fuse(similar, matching, weight) -> [(id, score)]`, `pooled([TermMatches]) -> [{id: BM25}]`,
    `distinct(texts, k) -> [index]`, `lexical_terms(text)`.
Source: Bruch, Gai and Ingber 2023 (a weighted sum of scores beats reciprocal rank fusion; it did here too).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

DUPLICATE = 0.8  # share of the smaller passage's word triples that the other one also has
MAX_TERMS = 64  # of a query; a pasted page is searched by its first words
_WORD = re.compile(r"\w+")
_STOP_WORDS = """
a about after all also am an and any are as at be been before being but by can could did do does doing
done each else for from get had has have having he her here hers him his how i if in into is it its
itself just me more most my no nor not of on once only or other our out over own same she should so some
such than that the their them then there these they this those through to too under until up upon us very
was we were what when where whether which while who whom whose why will with within would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


class Ordered(Protocol):
    """What ids are: numbers, or tuples of them."""

    def __lt__(self, other: Any, /) -> bool: ...
    def __hash__(self) -> int: ...


Id = TypeVar("Id", bound=Ordered)


@dataclass(frozen=True, slots=True)
class TermMatches:
    """What one volume knows of the words of a question."""

    chunks: int  # in the volume
    frequency: Mapping[str, int]  # in how many of them a word is
    scores: Mapping[
        str, Mapping[int, float]
    ]  # BM25 of chunks for the word alone, by the volume's own frequencies


def fuse(similar: Mapping[Id, float], matching: Mapping[Id, float], weight: float) -> list[tuple[Id, float]]:
    """Ids with their scores, greatest first: likeness + weight * BM25 / greatest BM25.

    Args:
        similar: the cosine with the question, of every candidate.
        matching: BM25 scores (greater is better) of those that share a word with it.
        weight: what the best match of words adds to a cosine.
    """
    best = max(matching.values(), default=0.0) or 1.0
    scores = {id_: cosine + weight * matching.get(id_, 0.0) / best for id_, cosine in similar.items()}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def pooled(volumes: Sequence[TermMatches]) -> list[dict[int, float]]:
    """BM25 of each volume's chunks as if all volumes were one.

    BM25 adds what each word of the question is worth, by how rare it is among the chunks: a word that is rare in
    one volume may be common in the next, so scores of two volumes are comparable only by the frequencies of both.
    """
    total = sum(volume.chunks for volume in volumes)
    merged: list[dict[int, float]] = []
    for volume in volumes:
        sums: dict[int, float] = {}
        for word, scores in volume.scores.items():
            own = _rarity(volume.chunks, volume.frequency[word])
            all_ = _rarity(total, sum(other.frequency.get(word, 0) for other in volumes))
            for id_, score in scores.items():
                sums[id_] = sums.get(id_, 0.0) + score * all_ / own
        merged.append(sums)
    return merged


def _rarity(chunks: int, holding: int) -> float:
    """The inverse document frequency of FTS5's BM25."""
    return max(math.log((chunks - holding + 0.5) / (holding + 0.5)), 1e-6)


def distinct(texts: Iterable[str], k: int) -> list[int]:
    """Indices of the first k texts, leaving out any that mostly repeats one taken before."""
    taken: list[tuple[int, frozenset[tuple[str, ...]]]] = []
    triples: frozenset[tuple[str, ...]]
    for n, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        triples = frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset(
            (word,) for word in words
        )
        if all(len(triples & other) <= DUPLICATE * min(len(triples), len(other)) for _, other in taken):
            taken.append((n, triples))
            if len(taken) == k:
                break
    return [n for n, _ in taken]


def lexical_terms(text: str) -> list[str]:
    """The text's words, each once; stop words are left out unless there is nothing else."""
    words = list(dict.fromkeys(_WORD.findall(text.lower())))
    return ([word for word in words if word not in STOP_WORDS] or words)[:MAX_TERMS]
