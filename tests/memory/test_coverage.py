"""Coverage weighs each word once, by its rarity, as the full text knows words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.memory.coverage import coverage
from llmos.memory.ranking import lexical_terms


def test_a_word_counts_once_by_its_rarity() -> None:
    texts = ["pipe pipe pipe pipe", "Pipes of the café", "get_name (pipe)", "name, get", ""]
    rarities = {"pipe": 3.0, "cafe": 1.0, "get_name": 4.0}
    assert coverage(texts, rarities) == pytest.approx([3 / 8, 4 / 8, 7 / 8, 0, 0])
    assert coverage([], rarities) == [] and coverage(["pipe"], {}) == [0.0]


@given(st.text(), st.text())
def test_any_question_and_text_are_safe(question: str, text: str) -> None:
    rarities = dict.fromkeys(lexical_terms(question), 0.1)
    (share,) = coverage([text.encode("utf-8", "replace").decode()], rarities)
    assert 0 <= share <= 1 + 1e-9
