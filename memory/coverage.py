"""Which of a question's words a passage has, headings included: what ranks again what was found.

What: BM25 adds up how often words occur, so one word said five times can outweigh two others; coverage asks how much of
    the question a passage speaks of at all, each word weighed by its rarity. Measured in benchmarks/retrieval.py.
Invariant: words are told apart exactly as in the volume's full text, for the same tokeniser of SQLite does it.
Interface: `coverage(texts, rarities) -> [share]`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping, Sequence

from llmos.memory.store import TOKENIZER, quoted


def coverage(texts: Sequence[str], rarities: Mapping[str, float]) -> list[float]:
    """For each text the share of the words' weights that it has, 0 to 1.

    Args:
        texts: some dozens, as they were found; each costs about 20 µs.
        rarities: the weight of each word of the question, greater than 0.
    """
    shares = [0.0] * len(texts)
    total = sum(rarities.values())
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE words USING fts5 (text, content='', tokenize='{TOKENIZER}')")
        db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(texts))
        for word, rarity in rarities.items():
            for (n,) in db.execute("SELECT rowid FROM words WHERE words MATCH ?", (quoted(word),)):
                shares[n] += rarity / total
    return shares
