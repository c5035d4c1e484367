"""Who leaves a window first, and what an exchange is worth to a question."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from llmos.memory.history import History
from llmos.memory.paging import Held, LeastValue, Oldest

from .words_encoder import WordsEncoder

HELD = st.lists(
    st.builds(
        Held,
        kind=st.sampled_from(["knowledge", "exchange"]),
        tokens=st.integers(1, 500),
        value=st.floats(0, 1.3),
        age=st.integers(0, 40),
        pin=st.booleans(),
    ),
    max_size=30,
)


@given(HELD)
def test_everything_that_is_not_pinned_can_leave_once(held: list[Held]) -> None:
    for policy in (LeastValue(), Oldest()):
        order = policy.leaving(held)
        assert sorted(order) == [i for i, h in enumerate(held) if not h.pin]


def test_knowledge_goes_first_and_the_best_of_it_last() -> None:
    knowledge = [Held("knowledge", 100, 0.9), Held("knowledge", 100, 0.5), Held("knowledge", 10, 0.3)]
    exchanges = [Held("exchange", 50, 0.2, age=n) for n in (3, 2, 1, 0)]
    assert LeastValue().leaving([*knowledge, *exchanges]) == [1, 0, 3, 4, 5, 6, 2]
    assert Oldest().leaving([*knowledge, *exchanges]) == [2, 1, 3, 4, 5, 6, 0]


def test_what_bears_on_the_question_stays_however_old() -> None:
    exchanges = [Held("exchange", 50, 0.1, age=n) for n in range(9, -1, -1)]
    exchanges[2] = replace(exchanges[2], value=0.8)
    assert LeastValue(new=0.3).leaving(exchanges) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 2]
    exchanges[2] = replace(exchanges[2], value=0.3)
    assert LeastValue(new=0.3).leaving(exchanges) == [0, 1, 3, 4, 5, 6, 7, 8, 2, 9]
    assert Oldest().leaving(exchanges) == list(range(10))


def test_what_was_looked_at_is_worth_more() -> None:
    exchanges = [Held("exchange", 50, 0.1, age=n) for n in range(9, -1, -1)]
    exchanges[4] = replace(exchanges[4], attention=0.4)
    assert LeastValue().leaving(exchanges) == [0, 1, 2, 3, 5, 6, 7, 4, 8, 9]
    assert LeastValue(used=0).leaving(exchanges) == list(range(10))
    knowledge = [Held("knowledge", 100, 0.5), Held("knowledge", 100, 0.4, attention=0.9)]
    assert LeastValue().leaving(knowledge) == [0, 1]


SAID = ["My cat is called Miso.", "It rains today.", "I work at the harbour.", "What is a ship?"]


def test_words_alone_find_what_was_said() -> None:
    values = History().relevance("What is my cat called?", SAID)
    assert max(range(4), key=values.__getitem__) == 0 and values[1] == 0
    assert History().relevance("", SAID) == [0, 0, 0, 0] and History().relevance("cat", []) == []


def test_meaning_is_computed_once_for_each_text() -> None:
    encoder = WordsEncoder()
    history = History(encoder.encode)
    first = history.relevance("the cat called Miso", SAID)
    before = encoder.embedded
    assert history.relevance("the cat called Miso", SAID) == first and encoder.embedded == before
    assert max(range(4), key=first.__getitem__) == 0
    history.relevance("the cat called Miso", [*SAID, "a new one"])
    assert encoder.embedded == before + 1
