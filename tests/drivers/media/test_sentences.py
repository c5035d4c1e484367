"""Sentences out of text that is still being written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.media.sentences import LONGEST, Sentences, sayable, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith paid 3.50 euros. He left.", ["Dr. Smith paid 3.50 euros.", "He left."]),
        ("See e.g. J. R. Tolkien. Then go.", ["See e.g. J. R. Tolkien.", "Then go."]),
        ('"Really?" she said. "Yes."', ['"Really?"', "she said.", '"Yes."']),
        ("**Good day.** It is _noon._ Yes", ["**Good day.**", "It is _noon._", "Yes"]),
        ("Wait ... what", ["Wait ...", "what"]),
        ("A title\n\nAnd text.", ["A title", "And text."]),
        ("First:\n1. Milk\n2. Bread", ["First:", "1. Milk", "2. Bread"]),
        ("好。很好！走", ["好。很好！", "走"]),
        ("", []),
    ],
)
def test_where_sentences_end(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@given(st.text(alphabet="aB1 .!?,\n\"'`-。", max_size=300), st.integers(1, 7))
def test_nothing_is_lost_and_pieces_are_bounded(text: str, step: int) -> None:
    cutter = Sentences()
    pieces = [p for at in range(0, len(text), step) for p in cutter.feed(text[at : at + step])]
    pieces += cutter.rest()
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(0 < len(piece) <= LONGEST for piece in pieces)


def test_a_sentence_is_there_as_soon_as_the_next_begins() -> None:
    cutter = Sentences()
    assert cutter.feed("It costs 3.") == []
    assert cutter.feed("5 euros. ") == []  # a full stop at the end may be followed by anything
    assert cutter.feed("Th") == ["It costs 3.5 euros."]
    assert cutter.rest() == ["Th"]


def test_long_text_is_cut_behind_commas_else_between_words() -> None:
    listed = ", ".join(f"thing number {i}" for i in range(100))
    assert all(piece.endswith(",") for piece in sentences(listed)[:-1])
    assert max(map(len, sentences("x" * 1000))) == LONGEST


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("**Bold** and `code` [link](http://x.org/y)", "Bold and code link"),
        ("As it says [1], so [12].", "As it says, so."),
        ("# Title", "Title"),
        ("See https://docs.python.org/3/library/os.html now", "See docs.python.org now"),
        ("```python\nprint(1)\n```", ""),
        ("| a | b |", "a b"),
        ("--- ...", ""),
        ("snake_case _word_", "snake_case word"),
    ],
)
def test_what_is_only_for_the_eye_is_not_said(text: str, said: str) -> None:
    assert sayable(text) == said
