"""What answers come to."""

from __future__ import annotations

from fractions import Fraction

import pytest

from llmos.kernel.think.answers import code_in, kind_of, number_in, value_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42), ("So she has 3 + 4 = 7 apples left. Well done, 2 people!", 2),
        ("Therefore the total is $1,250.50. It took 3 days.", Fraction("1250.5")), ("\\boxed{17} is it, of 20", 17),
        ("\\boxed{\\frac{3}{4}}", Fraction(3, 4)), ("#### -12", -12), ("x = 3/4", Fraction(3, 4)),
        ("Answer: **8** apples in 2 boxes", 8), ("none at all", None), ("version v2beta", None), ("1/0", None),
        ("The answer is −5", -5), ("9" * 3000, None),
    ],
)  # fmt: skip
def test_numbers(text: str, number: Fraction | int | None) -> None:
    assert number_in(text) == number


def test_equal_values_are_equal_whatever_the_words() -> None:
    def same(kind: str, *texts: str) -> bool:
        values = [value_of(kind, text) for text in texts]  # type: ignore[arg-type]
        return None not in values and len({v.key for v in values if v}) == 1

    assert same("number", "It is 1,000.", "Answer: 1000.0", "\\boxed{1000}")
    assert same("json", '{"a": 1, "b": [2.0]}', '{"b": [2], "a": 1.0}')
    assert (
        not same("json", "[1, 2]", "[2, 1]")
        and not same("json", "1", "true")
        and not same("json", '"1"', "1")
    )
    assert same(
        "code", "```python\ndef f(x):\n    return x+1\n```", 'def f(x):\n    "Adds."\n    return x + 1'
    )
    assert same("words", "The answer is: Paris.", "Let me think.\n\nparis")
    assert not same("words", "Paris", "Rome")


@pytest.mark.parametrize(
    ("kind", "text"),
    [("json", "{"), ("json", ""), ("code", "no code"), ("code", "```python\ndef f(:\n```"), ("number", "many"),
     ("words", " \n ")],
)  # fmt: skip
def test_what_comes_to_nothing_equals_nothing(kind: str, text: str) -> None:
    assert value_of(kind, text) is None  # type: ignore[arg-type]


def test_huge_and_strange_numbers_end() -> None:
    assert value_of("json", "1e999999999") is not None
    assert value_of("json", "[" * 100_000) is None
    assert value_of("json", "NaN") is not None


def test_kinds_are_told_by_the_question_and_a_first_answer() -> None:
    assert kind_of("What is 17 times 24?", "408") == "number"
    assert kind_of("How many legs has a spider?", "It has 8 legs.") == "number"
    assert (
        kind_of("Write a function that adds 2 numbers.", "```python\ndef f(a, b):\n    return a + b\n```")
        == "code"
    )
    assert kind_of("What is the capital of France?", "Paris") == "words"
    assert kind_of("Anything", '{"x": 1}', typed=True) == "json"


def test_code_is_found_in_fences_or_bare() -> None:
    assert code_in("Here:\n```py\nx = 1\n```\n```python\ndef f(): return 1\n```") == "def f(): return 1\n"
    assert code_in("def f():\n    return 1") == "def f():\n    return 1\n"
    assert code_in("def f():\n```") == "def f():\n```\n"
    assert code_in("I cannot.") is None
