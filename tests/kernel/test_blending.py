"""Which passages are computed last, where the others stand, and where pieces end."""

from __future__ import annotations

from llmos.abi.labels import UNTRUSTED, USER
from llmos.kernel import grounding
from llmos.kernel.blending import blended, ends
from llmos.kernel.prompt import Message, Part
from llmos.kernel.recompute import BORDER, SHARE, arrange, borders
from llmos.memory.volume import Passage
from llmos.memory.window import Segment


def passage(number: int, text: str, source: str = "a.md", heading: str = "") -> Passage:
    return Passage(number, source, f"line {number}", text, heading, UNTRUSTED, 1.0 / number, 0.5)


FILLER = "It is on the list of things that will be looked at again when there is time, and no sooner. "
PASSAGES = [
    passage(n, f"The {room} door of the house is {colour}. {FILLER * 2}")
    for n, (room, colour) in enumerate(
        [("attic", "red"), ("cellar", "blue"), ("porch", "green"), ("hall", "grey")], 1
    )
]
QUESTION = "Which colour is the porch door?"


def test_the_passage_with_the_rare_words_of_the_question_stands_last() -> None:
    first, last = arrange(QUESTION, PASSAGES, [100] * 4)
    assert (first, last) == ([0, 1, 3], [2])


def test_more_are_computed_where_they_fit_the_share() -> None:
    many = [*PASSAGES, *(passage(n, f"Paint {n} is dear. {FILLER}") for n in range(5, 60))]
    sizes = [200] * len(many)
    first, last = arrange(QUESTION, many, sizes)
    assert last[-1] == 2 and 1 < len(last) == int((SHARE * sum(sizes) - 2 * BORDER * len(many)) / 200)
    assert sorted(first + last) == list(range(len(many)))
    assert arrange(QUESTION, PASSAGES, [100, 100, 9000, 100])[1] == [2]  # one, however long it is


def test_of_what_is_put_together_both_ends_are_computed_again() -> None:
    assert borders([20, 60, 75, 75, 78, 100]) == [60, 61, 73, 74, 75, 76, 77, 78, 79, 98, 99]
    assert borders([20, 60]) == borders([20]) == []  # the first passage stands where it was computed


def test_identifiers_count_whole() -> None:
    entries = [passage(n, f"{name}(key, default=None)\nReturn the value of key.") for n, name in enumerate(
        ["mapping.get", "mapping.get_all", "mailbox.get", "mapping.pop"], 1)]  # fmt: skip
    assert arrange("What is the signature of mailbox.get?", entries, [20] * 4)[1][-1] == 2


def messages(*earlier: Message) -> list[Message]:
    knowledge = [Part("knowledge", f"[{n}] …", p.label) for n, p in enumerate(PASSAGES, 1)]
    outside = Part("system", "(Not shown of this conversation: turn 1.)\n\n")
    asked = Part("user", grounding.question_text(QUESTION))
    return [Message.of("system", "Be brief."), *earlier, Message("user", (outside, *knowledge, asked))]


def test_pieces_stand_at_the_front_and_what_is_asked_about_with_the_question() -> None:
    made, shown, pieces = blended(messages(), QUESTION, PASSAGES[::-1])
    assert [p.chunk_id for p in shown] == [1, 2, 4, 3] and pieces == 3
    texts = [part.text for part in made[-1].parts]
    assert (
        texts[0] == "Documents:\n\n"
        and texts[1].startswith("The attic door")
        and texts[-2].startswith("The porch")
    )
    assert texts[4].startswith("(Not shown") and texts[-1] == grounding.question_text(QUESTION)
    assert {part.label for part in made[-1].parts if part.kind == "knowledge"} == {UNTRUSTED}


def test_a_conversation_stands_between_them_and_changes_nothing_in_front() -> None:
    earlier = [Message.of("user", "Hello?"), Message.of("assistant", "Hello.")]
    alone, _, _ = blended(messages(), QUESTION, PASSAGES)
    made, shown, pieces = blended(messages(*earlier), QUESTION, PASSAGES)
    assert made[1].parts[:4] == alone[1].parts[:4] and made[1].parts[4].text == "Hello?"
    assert [part.kind for part in made[-1].parts] == ["system", "knowledge", "user"]
    assert (len(shown), pieces) == (4, 3)


def test_a_passage_has_the_same_words_whatever_is_asked() -> None:
    plain = passage(1, "Miso is a cat.", heading="House > 2.1 Pets")
    assert grounding.whole_text(plain) == "Pets: Miso is a cat."
    assert (
        grounding.whole_text(passage(1, "Pets\n\nMiso is a cat.", heading="House > 2.1 Pets"))
        == "Pets\n\nMiso is a cat."
    )


def segment(kind: str, tokens: int) -> Segment:
    return Segment(kind, (1,) * tokens, USER)  # type: ignore[arg-type]


def test_pieces_end_where_their_segments_end() -> None:
    window = [
        segment("system", 5),
        segment("user", 3),
        *(segment("knowledge", n) for n in (4, 6, 7)),
        segment("user", 9),
    ]
    assert ends(window, 2) == (8, 12, 18)
    assert ends(window, 0) == () and ends(window, 4) == ()
    assert ends(window[2:], 2) == ()  # nothing stands in front of them
    mixed = [window[0], window[2], window[1], window[3]]
    assert ends(mixed, 2) == ()
