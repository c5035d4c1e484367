"""The questions on Python's documentation: the halves share nothing, and a passage is known by its first words."""

from __future__ import annotations

import pytest

from benchmarks.page_in_set import SOURCES
from benchmarks.retrieval_set import ASKED, BEGINNING, Question, passages, questions


def test_a_passage_is_a_text_that_holds_the_first_words_without_markup() -> None:
    asked = [
        Question(
            "name", "What does os.pipe do?", ("create", "a", "pipe", "return", "a", "pair", "of", "file")
        ),
        Question("name", "What is x?", tuple("abcdefgh")),
    ]
    texts = {
        3: ".. function:: pipe()\n\n   Create a pipe.  Return a pair of *file* descriptors ``(r, w)``.",
        4: "Create a pipe. Return a pair of",
        9: "... to create a :term:`pipe`. Return a pair of file descriptors",
    }
    assert passages(asked, texts) == [{3, 9}, set()]


@pytest.mark.skipif(not SOURCES.exists(), reason="Debian's package python3.11-doc is not installed")
def test_the_halves_are_large_enough_and_share_nothing() -> None:
    tuning, published = questions("tuning"), questions("published")
    assert len(published) == len(tuning) == 2 * ASKED
    assert not {q.beginning for q in tuning} & {q.beginning for q in published}
    assert all(len(q.beginning) == BEGINNING for q in published)
    assert published == questions("published")
