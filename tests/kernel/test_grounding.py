"""Grounded answers: citations are what the answer names and what supports it, written while it streams."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.demo.questions import draw, questions, right, right_citations
from llmos.abi.events import Citation
from llmos.abi.labels import STORE
from llmos.drivers.weights.tokenizer import Added, Tokenizer
from llmos.kernel import grounding
from llmos.kernel.engine.grammar import PlainText
from llmos.kernel.grounding import NOT_SAID, UNSUPPORTED, CitingGrammar, extract
from llmos.kernel.support import about, answerable, excerpt, names, supporting, weights, words
from llmos.memory.volume import Passage

END = 256


@dataclass(frozen=True, slots=True)
class Bytes:
    """A vocabulary of the 256 bytes."""

    size: int = 257

    def encode(self, text: str, *, start: bool) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < END else b""


TOKENIZER = Tokenizer(Bytes(), {END: Added("<end>", control=True)}, frozenset({END}))
MAIL = "The system-wide mail directory is /var/mail. The old location /var/spool/mail is deprecated."
GAMES = "Binaries of games should be installed in the directory /usr/games. Their manual pages go to man6."
QUESTION = "Where is the system-wide mail directory?"


def passage(text: str, heading: str = "", similarity: float = 0.7, n: int = 1) -> Passage:
    return Passage(n, f"file{n}.html", f"lines {n}-9", text, heading, STORE, 0.03, similarity)


PASSAGES = [passage(GAMES, "11.11. Games"), passage(MAIL, "9.1.3. The mail directory", n=2)]


def write(
    text: str, question: str = QUESTION, passages: list[Passage] | None = None, *, alone: bool = True
) -> str:
    """What comes out where the model wants to say `text` and then to stop."""
    grammar = CitingGrammar(
        question,
        PASSAGES if passages is None else passages,
        TOKENIZER,
        PlainText((), TOKENIZER.vocab_size),
        None,
        alone,
    )
    out = b""
    for token in [*text.encode(), END]:
        taken = grammar.instead(token)
        if taken is None:
            grammar.accept(token)
            taken = [token] if token != END else []
        out += bytes(taken)
        if grammar.finished:
            break
    return out.decode()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("The mail directory is /var/mail.", "The mail directory is /var/mail. [2]"),
        ("/var/mail", "/var/mail [2]"),
        (
            "The mail directory is /var/mail. Games go to /usr/games.",
            "The mail directory is /var/mail. [2] Games go to /usr/games. [1]",
        ),
        ("- mail: /var/mail\n- games: /usr/games", "- mail: /var/mail [2]\n- games: /usr/games [1]"),
        ("It is /srv/mail.", f"It is /srv/mail.{UNSUPPORTED}"),
        (NOT_SAID, NOT_SAID),
        ("", NOT_SAID),
    ],
)  # fmt: skip
def test_claims_are_closed_by_what_supports_them(said: str, shown: str) -> None:
    assert write(said) == shown


def test_a_citation_that_the_model_begins_is_written_for_it() -> None:
    # After its own "[" it finds the whole mark in its window, and goes on from there.
    assert write("The mail directory is /var/mail [") == "The mail directory is /var/mail [2]"


def test_what_is_streamed_is_the_answer() -> None:
    shown = write("The mail directory is /var/mail. Games go to /usr/games.")
    found = extract(shown, PASSAGES, QUESTION)
    assert found.answer == shown
    assert found.dropped == 0
    assert [c.number for c in found.citations] == [2, 1]
    assert found.citations[0] == Citation(2, "file2.html", "lines 2-9", MAIL, STORE)


def test_a_repeated_claim_ends_the_answer() -> None:
    shown = write("It is /var/mail. " * 6)
    assert shown.strip() == "It is /var/mail. [2] It is /var/mail."


def test_numbers_in_code_are_not_citations() -> None:
    assert write("Use a[1] of /var/mail.") == "Use a[1] of /var/mail. [2]"
    assert write("x = [1] for /var/mail") == "x = [1] for /var/mail [2]"


def test_abbreviations_and_paths_do_not_end_a_claim() -> None:
    said = "The mail directory, e.g. The old location, is /var/mail."
    assert write(said) == f"{said} [2]"


@pytest.mark.parametrize(
    ("answer", "shown", "numbers", "dropped"),
    [
        ("It is /var/mail. [2]", "It is /var/mail. [2]", [2], 0),
        ("It is /var/mail. [7]", "It is /var/mail.", [], 1),
        ("It is /var/mail. [0] [2]", "It is /var/mail. [2]", [2], 1),
        ("It is /var/mail. [1]", "It is /var/mail.", [], 1),  # supplied, but it says nothing of the kind
        ("It is /var/mail. [2] [2] [2]", "It is /var/mail. [2]", [2], 2),
        ("It is a[2].", "It is a[2].", [], 0),
        (f"{NOT_SAID} [1]", NOT_SAID, [], 1),
        ("", "", [], 0),
    ],
)
def test_extraction_drops_and_counts(answer: str, shown: str, numbers: list[int], dropped: int) -> None:
    found = extract(answer, PASSAGES, QUESTION)
    assert (found.answer, [c.number for c in found.citations], found.dropped) == (shown, numbers, dropped)


@given(st.text(alphabet=" []0123459.\nabMail/var", max_size=60))
def test_no_citation_that_was_not_supplied_survives(answer: str) -> None:
    found = extract(answer, PASSAGES, QUESTION)
    assert {c.number for c in found.citations} <= {1, 2}
    named = {int(n) for n in re.findall(r"(?:(?<=\s)|^)\[(\d{1,3})\]", found.answer)}
    assert named == {c.number for c in found.citations}


@given(st.text(max_size=80))
def test_any_text_streams_whole_and_ends(said: str) -> None:
    grammar = CitingGrammar(QUESTION, PASSAGES, TOKENIZER, PlainText((), TOKENIZER.vocab_size), None)
    for token in [*said.encode("utf-8", "replace"), END]:
        if grammar.instead(token) is None:
            grammar.accept(token)
        if grammar.finished:
            return
    pytest.fail("the end of the text did not end the answer")


def test_at_most_two_passages_a_claim() -> None:
    parts = [
        passage(f"The {w} weighs {n} kg.", n=n) for n, w in enumerate(("anvil", "barrel", "crate"), start=1)
    ]
    claim = "The anvil weighs 1 kg, the barrel weighs 2 kg and the crate weighs 3 kg."
    assert len(supporting(claim, "What do they weigh?", parts)) <= 2
    assert sorted(supporting("The anvil weighs 1 kg and the barrel 2 kg.", "What?", parts)) == [1, 2]


@pytest.mark.parametrize(
    "claim", ["The UID is 65535.", "It is in /etc/mail.", "It was written by Ada Lovelace."]
)
def test_a_number_a_path_or_a_name_that_no_passage_holds_is_not_supported(claim: str) -> None:
    assert supporting(claim, "What is it?", [passage("The UID is 65534, and it is in /var/mail.")]) == []


def test_what_is_not_near_is_refused_without_asking_the_model() -> None:
    far = [replace(p, similarity=0.2) for p in PASSAGES]
    question = "How long does bread need in the oven?"
    assert not answerable(question, far)
    assert not answerable(question, [])
    assert write("Forty minutes.", question, far) == NOT_SAID
    assert write("Forty minutes.", question, []) == NOT_SAID
    named = [replace(p, similarity=0.45) for p in PASSAGES]
    assert answerable("Where is the mail directory?", named)
    assert not answerable("Where is the mail directory of Firefox?", named)


def test_code_of_another_name_is_not_what_was_asked_about() -> None:
    near = [
        replace(p, similarity=0.9)
        for p in (passage("crc32(data) sums. New in version 3.0.", "zlib.crc32(data)"),)
    ]
    for question in ("When is zlib.crc32 new?", "What does zlib.crc32() do?", "What does crc32 sum?"):
        assert answerable(question, near), question
    for question in ("When is zlib.adler32 new?", "When is binascii.crc32 new?", "When is crc_hqx new?"):
        assert not answerable(question, near), question
    # A method that its own documentation names without its class; names of files and hosts are the user's own.
    method = [passage("Runner.close() waits. run(coro) runs it until close().", similarity=0.9)]
    assert answerable("What does asyncio.Runner.run do?", method)
    assert not answerable("What does asyncio.Runner.wait do?", method)
    for question in (
        "How long does /etc/mail.conf last?",
        "Does it run on mail.example.org?",
        "Why is a.txt close?",
    ):
        assert answerable(question, method), question


def test_what_a_question_is_about_is_kept_and_what_is_far_behind_is_not() -> None:
    best, near, far = (
        replace(p, score=score) for p, score in zip((*PASSAGES, PASSAGES[0]), (0.8, 0.5, 0.3), strict=True)
    )
    assert about("Where are games?", [best, near, far]) == [best, near]
    assert about("Where are games?", []) == []
    named = replace(far, text="crc32(data) sums.", heading="zlib.crc32(data)")
    assert about("What is zlib.crc32?", [best, near, named]) == [named]
    assert about("What is zlib.adler32?", [best, near, named]) == [best, near]


def test_a_dotted_name_may_be_cut_at_its_front() -> None:
    parts = [passage("Changed in version 3.5. It is tried again.", "selectors.BaseSelector.select(timeout)")]
    for said in ("BaseSelector.select", "`BaseSelector.select`", "selectors.BaseSelector.select"):
        claim = f"In 3.5, {said} was changed."
        assert supporting(claim, "When was selectors.BaseSelector.select changed?", parts) == [1], said
    assert supporting("In 3.5, BaseSelector.close was changed.", "When was it changed?", parts) == []
    assert supporting("It is new in 5.3.", "When is it new?", [passage("It is new in 3.5.3.")]) == []


def test_names_of_code_are_told_from_other_words() -> None:
    assert names(
        "Is max_size of io.BytesIO.read1() in 3.11.2, e.g. myFile, or on mail.example.org, in /etc/a_b?"
    ) == [
        "max_size",
        "io.BytesIO.read1",
        "myFile",
    ]


def test_what_results_of_calls_say_is_neither_refused_nor_remarked_on() -> None:
    question = "What is 17 % of 2340?"
    assert write("It is 397.8.", question, []) == NOT_SAID
    assert write("It is 397.8.", question) == f"It is 397.8.{UNSUPPORTED}"
    for passages in ([], PASSAGES):
        assert write("It is 397.8.", question, passages, alone=False) == "It is 397.8."
    said = "The system-wide mail directory is /var/mail."
    assert write(said, alone=False) == f"{said} [2]"


def test_an_answer_does_not_open_with_a_bare_yes_or_no() -> None:
    class Verdicts(Bytes):
        def encode(self, text: str, *, start: bool) -> list[int]:
            return [ord(text[0])] if text in ("Yes", "No") else list(text.encode())

    grammar = CitingGrammar(
        QUESTION,
        PASSAGES,
        replace(TOKENIZER, vocabulary=Verdicts()),
        PlainText((), TOKENIZER.vocab_size),
        None,
    )
    out = np.full((1, 9), 0xFFFFFFFF, np.uint32)
    grammar.masks([], out)
    forbidden = {i for i in range(257) if not out[0, i // 32] >> (i % 32) & 1}
    assert forbidden == {ord("Y"), ord("N")}
    grammar.accept(ord("A"))
    out[:] = 0xFFFFFFFF
    grammar.masks([], out)
    assert (out == 0xFFFFFFFF).all()


def test_an_answer_that_only_restates_the_question_is_made_to_go_on() -> None:
    grammar = CitingGrammar(QUESTION, PASSAGES, TOKENIZER, PlainText((), TOKENIZER.vocab_size), None)
    for token in b"The system-wide mail directory is there.":
        assert grammar.instead(token) is None
        grammar.accept(token)
    more = grammar.instead(END)
    assert more is not None and bytes(more) == b" Namely, the" and not grammar.finished
    mask = np.full((1, 9), 0xFFFFFFFF, np.uint32)
    grammar.masks([], mask)
    assert not mask[0, END // 32] >> (END % 32) & 1  # it cannot stop right there
    for token in b" one in /var/mail":
        assert grammar.instead(token) is None
        grammar.accept(token)
    last = grammar.instead(END)
    assert last is not None and bytes(last) == b" [2]" and grammar.finished
    # Once only, and not where something new was said.
    assert "Namely" not in write("The system-wide mail directory is /var/mail.")
    assert write("The mail directory is system-wide.").count("Namely") == 1


def test_an_answer_without_the_number_that_was_asked_for_is_made_to_go_on() -> None:
    leave = [passage("Leave may be carried over until 31 March; after that it is lost.")]
    for question in ("Until when can leave be carried over?", "How long may leave be carried over?"):
        assert write("After that it is lost.", question, leave).count("Namely") == 1, question
        assert "Namely" not in write("Until 31 March it may be carried over.", question, leave), question
        assert "Namely" not in write("The documents do not say.", question, leave), question
    assert "Namely" not in write("After that it is lost.", "What happens to leave after March?", leave)


def test_what_is_asked_for_need_not_stand_in_the_documents() -> None:
    password = [passage("Passwords have at least 14 characters.", similarity=0.5)]
    assert answerable("How long does a password have to be?", password)
    assert not answerable("How long does a telephone have to be?", password)


def test_the_excerpt_is_whole_sentences_nearest_to_the_question() -> None:
    filler = " ".join(f"Sentence {n} is about nothing at all." for n in range(60))
    p = passage(f"{filler} The mail directory is /var/mail. {filler}")
    text = excerpt(p, weights(QUESTION, [p]), 30)
    assert "The mail directory is /var/mail." in text
    assert len(text.split()) <= 30
    assert all(sentence.endswith(".") for sentence in text.splitlines())
    assert excerpt(passage("short"), {}) == "short"
    assert excerpt(passage(""), {}) == ""


def test_knowledge_is_numbered_from_one_with_headings() -> None:
    first, second = grounding.knowledge_text(PASSAGES, QUESTION)
    assert "[1] Games: " in first
    assert second.startswith("[2] The mail directory: ")
    assert grounding.knowledge_text([], QUESTION) == []


def test_words_keep_identifiers_whole() -> None:
    assert words("The file /etc/cron.d has 7 fields") == [
        "fil",
        "etc/cron.d",
        "etc",
        "cron",
        "d",
        "7",
        "field",
    ]
    assert words("") == []


def test_uncited_is_the_answer_without_its_marks() -> None:
    assert grounding.uncited("It is /var/mail. [2] See a[1]. [1] [2]") == "It is /var/mail. See a[1]."


def test_the_demo_has_twenty_questions_with_patterns_that_compile_and_can_fail() -> None:
    asked = questions()
    assert len(asked) == len({q.id for q in asked}) == 20
    assert draw(3) == draw(3)
    for q in asked:
        for pattern in (*q.accept, *q.evidence, q.source):
            re.compile(pattern)
        assert not right(q, q.text), f"{q.id}: the question itself would pass as an answer"
        assert not right(q, NOT_SAID)


def test_a_citation_is_right_where_the_passage_states_the_answer() -> None:
    question = next(q for q in questions() if q.id == "setuid-mode")
    good = Citation(
        1, "policy/ch-files.html", "lines 1-2", "Setuid executables should be mode\n4755 or 2755."
    )
    assert right_citations(question, [good]) == [good]
    assert right_citations(question, [replace(good, text="Directories should be mode 755.")]) == []
    assert right_citations(question, [replace(good, source="policy/ch-docs.html")]) == []
    assert right(question, "They should have mode `4755`. [1]")
    assert not right(question, "Mode 755. [4755]")
