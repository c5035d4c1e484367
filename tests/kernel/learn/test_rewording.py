"""Corrected questions in other words."""

from __future__ import annotations

from llmos.kernel.learn.data import Row
from llmos.kernel.learn.rewording import reworded, wordings
from llmos.kernel.support import words

KEY = ("Who has the key of the mill?", "Ada has the key of the mill.")


def test_a_question_becomes_a_wish_a_heading_words_and_a_gap() -> None:
    assert wordings(*KEY) == [
        "Tell me: who has the key of the mill?",
        "I would like to know who has the key of the mill.",
        "Do you know who has the key of the mill?",
        "key mill",
        "The key of the mill?",
        "What do you know about the key of the mill?",
        "Tell me about the key of the mill.",
        "The key of the mill: who has the key of the mill?",
        "mill key",
        "Complete the sentence: … has the key of the mill.",
    ]


def test_a_topic_that_is_not_all_of_the_question_does_not_stand_alone() -> None:
    """Else "when was the bridge built" and "who painted the bridge" would both become "tell me about the bridge"."""
    found = wordings("When was the bridge built?", "In 1890 the bridge was finished.")
    assert found and not [wording for wording in found if "about" in wording]
    assert all("built" in wording for wording in found if not wording.startswith("Complete"))


def test_no_wording_gives_the_answer_away() -> None:
    cases = (KEY, ("Which colour has the door?", "The door is dark green."), ("How old is Tom?", "Tom is 7."))
    for question, answer in cases:
        new = set(words(answer)) - set(words(question))
        assert new and not [wording for wording in wordings(question, answer) if new & set(words(wording))]


def test_names_keep_their_capitals() -> None:
    assert "Tell me: Mary's cat is how old?" in wordings("Mary's cat is how old?", "It is 3.")


def test_what_is_no_plain_question_is_let_be() -> None:
    for question in ("Write a poem.", "", "?", "one?\ntwo?", "Who " + "very " * 60 + "long?"):
        assert wordings(question, "Yes.") == []


def test_rows_keep_what_stands_before_and_their_answer() -> None:
    system = {"role": "system", "content": "Be brief."}
    row = Row(
        "here:1", {"prompt": [system, {"role": "user", "content": KEY[0]}], "completion": KEY[1], "x": 1}
    )
    rows = reworded(row)
    assert [each.fields["prompt"][-1]["content"] for each in rows] == wordings(*KEY)
    assert all(
        each.place == row.place
        and each.fields["prompt"][0] == system
        and (each.fields["completion"], each.fields["x"]) == (KEY[1], 1)
        for each in rows
    )


def test_a_question_that_follows_an_answer_means_what_stands_before_it() -> None:
    before = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good morning."}]
    assert (
        reworded(Row("x", {"prompt": [*before, {"role": "user", "content": KEY[0]}], "completion": KEY[1]}))
        == []
    )
