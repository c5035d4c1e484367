"""How two rankings become one.

What: the fusion of likeness (cosines) and words (BM25), and the removal of passages that say the same again
    (a manual that lies there as text and as HTML).
Invariant: the order is a function of the scores alone; ties go to the smaller id.
Interface: `fuse(similar, matching, weight) -> [(id, score)]`, `distinct(texts, k) -> [index]`,
    `lexical_query(text)`.
Source: Bruch, Gai and Ingber 2023 (a weighted sum of scores beats reciprocal rank fusion; it did here too).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

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


def fuse(
    similar: Mapping[int, float], matching: Mapping[int, float], weight: float
) -> list[tuple[int, float]]:
    """Ids with their scores, greatest first: likeness + weight * BM25 / greatest BM25.

    Args:
        similar: the cosine with the question, of every candidate.
        matching: BM25 scores (greater is better) of those that share a word with it.
        weight: what the best match of words adds to a cosine.
    """
    best = max(matching.values(), default=0.0) or 1.0
    scores = {id_: cosine + weight * matching.get(id_, 0.0) / best for id_, cosine in similar.items()}
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


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


def lexical_query(text: str) -> str:
    """An FTS5 query that matches any of the text's words; "" where it has none.

    Every word is quoted, so no character of the text can become an operator; stop words are left out unless
    there is nothing else.
    """
    words = list(dict.fromkeys(_WORD.findall(text.lower())))
    kept = [word for word in words if word not in STOP_WORDS] or words
    return " OR ".join(f'"{word}"' for word in kept[:MAX_TERMS])
