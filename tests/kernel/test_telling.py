"""What a small model is told behind results, and what its answers hold: pure functions of the words."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.abi.labels import UNTRUSTED, USER
from llmos.kernel.engine.scripted import byte_tokenizer
from llmos.kernel.kernel import Kernel
from llmos.kernel.layout import Layout
from llmos.kernel.prompt import ChatPrompt, Message, Part
from llmos.kernel.syscalls import error_text
from llmos.kernel.telling import AGAIN, MOST, TELL, Result, nearest, remembered, told, written

TABLE = "# Boats\n\nA page.\n\n| Boat | Leaves |\n|---|---|\n| Heron | 9:15 |\n| Osprey | 11:40 |\n"
FRAME = "   name  kg\n0   elk  400\n1   fox    6\n2  hare    4\n3  seal  120"


def test_the_line_of_a_table_comes_with_its_head() -> None:
    found = nearest("When does the Osprey leave?", TABLE)
    assert found.text == "| Boat | Leaves |\n|---|---|\n| Osprey | 11:40 |"
    assert {"11", "40"} <= found.new and "osprey" not in found.new


def test_the_head_of_a_table_is_no_answer() -> None:
    found = nearest("Which name has which kg?", FRAME)
    assert found.text == FRAME and not {"name", "kg"} & found.new


def test_lines_that_only_say_the_question_again_are_not_quoted() -> None:
    assert nearest("What is in notes.txt?", "notes.txt\nbuy milk").text == "buy milk"


def test_a_short_result_is_quoted_whole() -> None:
    assert nearest("What does the recording say?", "Said in the recording:\nIt rains.").text.endswith(
        "It rains."
    )
    long = "\n".join(["Said in the recording:", "It rains. " * MOST])
    assert nearest("What does the recording say?", long).text == "Said in the recording:"


def test_a_long_result_without_such_a_line_is_not_quoted() -> None:
    assert nearest("How old is Ann?", "word " * (MOST + 1)).text == ""
    assert nearest("How old is Ann?", "").text == ""


def test_of_a_long_line_the_sentence_is_quoted() -> None:
    page = "It rains. " * MOST + "Ann is 41 years old. " + "It snows. " * MOST
    assert nearest("How old is Ann?", page).text == "Ann is 41 years old."


def test_no_more_is_quoted_than_can_be_read() -> None:
    lines = "\n".join(f"ann{i} ann and {'more ' * 8}" for i in range(50))
    assert 0 < len(nearest("Where is Ann?", lines).text.split()) <= MOST


def test_results_keep_their_label_in_what_is_told() -> None:
    long = TABLE + "More of it, which nobody asked about.\n" * 20
    parts = told("When does the Osprey leave?", [Part("result", long, UNTRUSTED, "browser.open")], "words")
    assert [(p.kind, p.label) for p in parts] == [("system", USER), ("result", UNTRUSTED), ("system", USER)]
    assert "Osprey" in parts[1].text
    assert told("x", [Part("result", "1")], "words") == (Part("system", TELL),)
    assert told("x", [Part("result", "1")], "call") == (Part("system", AGAIN),)
    assert told("x", [Part("result", "1")], "") == ()


@pytest.mark.parametrize("text", ["300", "two\nlines", TABLE.strip(), "This is the result."])
@pytest.mark.parametrize("follows", ["words", "call", ""])
def test_a_result_is_read_back_from_the_window(prompt: ChatPrompt, text: str, follows: str) -> None:
    results = [Part("result", text)]
    for more in ((), (Part("result", "and another"),)):
        segments = prompt.results([*more, *results], told("Osprey?", results, follows))  # type: ignore[arg-type]
        tokens = [token for segment in segments for token in segment.tokens]
        behind = b"".join(map(prompt._tokenizer.token_bytes, tokens)).decode()
        assert written(behind, prompt.frame).endswith(text)
        assert more or written(behind, prompt.frame) == text


def test_where_nothing_but_errors_came_the_last_is_told() -> None:
    trace = 'Traceback (most recent call last):\n  cell 1, line 1\n    print(x)\nNameError: name "x" is not defined.'
    failed = error_text({"type": "AppFailed", "message": f"before\n{trace}"})
    found = Result.of([("a.b", "{}"), ("interpreter.run", failed)])
    assert not found.verbatim and found.text == "{}", "something came"
    found = Result.of([("interpreter.run", failed)])
    assert found.verbatim == 'I could not do it: NameError: name "x" is not defined.'
    assert not Result.of([("files.read", '{"error": {"code": 3}}')]).verbatim, (
        "a file that says so is no error"
    )


def test_what_an_expert_answers_is_the_answer() -> None:
    assert Result.of([("experts.ask", "Three months [1].")]).verbatim == "Three months [1]."
    assert not Result.of([("experts.ask", "Three months."), ("calculator.evaluate", "3")]).verbatim
    failed = error_text({"type": "AppFailed", "message": "there is no such expert"})
    assert not Result.of([("experts.list", "analyst"), ("experts.ask", failed)]).verbatim


def talk(*said: str) -> Layout:
    """A window behind a conversation in which a user said this, the last of it now."""
    messages = [m for text in said for m in (Message.of("user", text), Message.of("assistant", "I see."))]
    return Layout.of([], byte_tokenizer(), messages=tuple(messages[:-1]))


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("What colour is my car?", "I drive a green car."),
        ("When does my train leave?", "Note this: my train leaves at 7:42."),
        ("What should I feed my dog?", None),  # he did not speak of feeding
        ("What is a car?", None),  # nothing of his own
        ("Who am I?", None),  # no word to find it by
        ("Is my sister well?", None),  # a question is no statement
    ],
)
def test_what_the_user_told_of_his_own_is_found_by_his_words(question: str, told: str | None) -> None:
    before = (
        "I drive a green car.", "Note this: my train leaves at 7:42.", "My dog is called Rufus.",
        "Is my sister well?",
    )  # fmt: skip
    found = remembered(question, talk(*before, question))
    assert (found and found.text) == told


def test_an_answer_that_forgets_what_the_user_said_quotes_it(scripted_kernel: Callable[..., Kernel]) -> None:
    said = {"I drive": "I see.", "What colour": "Your car is red.", "Which colour": "It is green."}

    def script(window: str) -> str:
        asked = window.rpartition("user\n")[2]
        return next(answer for words, answer in said.items() if words in asked)

    with scripted_kernel(script) as kernel:
        p = kernel.spawn()
        p.ask("I drive a green car.").result
        assert p.ask("What colour is my car?").answer == "Your car is red.\n\n> I drive a green car."
        assert p.ask("Which colour is my car?").answer == "It is green."
