"""Fusion is deterministic, duplicates are left out, and no question can break the full-text query."""

from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from llmos.memory.ranking import MAX_TERMS, distinct, fuse, lexical_terms
from llmos.memory.store import quoted


def test_fusion_adds_weighted_words_to_likeness_and_breaks_ties_by_id() -> None:
    assert fuse({1: 0.5, 2: 0.4, 3: 0.1}, {2: 8.0, 3: 4.0}, 0.4) == [(2, 0.8), (1, 0.5), (3, 0.1 + 0.2)]
    assert [id_ for id_, _ in fuse({9: 0.5, 3: 0.5, 5: 0.5}, {}, 0.3)] == [3, 5, 9]
    assert [id_ for id_, _ in fuse({1: 0.9, 2: 0.1}, {1: 0.0, 2: 0.0}, 0.3)] == [1, 2]


def test_a_passage_that_repeats_another_is_left_out() -> None:
    one = "Every package must have a maintainer, except for orphaned packages."
    same = "Every  package must have a maintainer, except for orphaned packages. 3"
    other = "Every package must have a priority value."
    assert distinct([one, same, other, one], 3) == [0, 2]
    assert distinct([one, other], 1) == [0]
    assert distinct(["x", "y", "x"], 3) == [0, 1]


def test_a_question_becomes_words() -> None:
    assert lexical_terms('What is "AND" OR (foo*) NEAR/3 -bar:baz ^qux') == [
        "foo",
        "near",
        "3",
        "bar",
        "baz",
        "qux",
    ]
    assert lexical_terms("who is it?") == ["who", "is", "it"]
    assert lexical_terms("?! …") == []
    assert len(lexical_terms(" ".join(f"w{n}" for n in range(999)))) == MAX_TERMS


@given(st.text())
def test_any_text_is_a_valid_query(text: str) -> None:
    db = sqlite3.connect(":memory:")
    try:
        db.execute(
            "CREATE VIRTUAL TABLE words USING fts5 (text, tokenize='porter unicode61 remove_diacritics 2')"
        )
        for term in (*lexical_terms(text), text.replace("\0", "").encode(errors="ignore").decode()):
            if term:
                assert db.execute(
                    "SELECT count(*) FROM words WHERE words MATCH ?", (quoted(term),)
                ).fetchone() == (0,)
    finally:
        db.close()
