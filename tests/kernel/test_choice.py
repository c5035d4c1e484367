"""To call or not: evidence from the model and from the question's words; and how functions are written down."""

from __future__ import annotations

from math import log

import pytest

from llmos.abi.manifest import Manifest, Syscall
from llmos.apps.calculator import Calculator
from llmos.kernel.choice import Choice, choice_of
from llmos.kernel.forms import as_said
from llmos.kernel.stubs import stub

CHOICE = Choice(opening=0.3, name=4.0, description=5.0, number=-2.0, threshold=1.9, words=1.9)
WILLING = [("<", log(0.6)), ("```", log(0.3)), ("The", log(0.1))]
UNWILLING = [("The", log(0.98)), ("{", log(0.02))]


def function(name: str, description: str) -> Syscall:
    return Syscall(
        name=name, tool=name, description=description, parameters={"type": "object", "properties": {}},
        effect="none", retry="safe", returns="user", deadline=1.0,
    )  # fmt: skip


RATES = function("bank.exchange_rate", "The exchange rate between two currencies.")
WEATHER = function("weather.forecast", "The weather forecast for a place.")


@pytest.mark.parametrize(
    ("question", "first", "calls"),
    [
        ("What is the exchange rate of euro and dollar at the bank?", WILLING, True),
        ("What is the exchange rate of euro and dollar at the bank?", UNWILLING, True),
        ("Who wrote Faust?", WILLING, False),
        ("Who wrote Faust?", UNWILLING, False),
        ("Which currencies are there?", UNWILLING, False),
    ],
)
def test_the_question_decides_more_than_the_model(
    question: str, first: list[tuple[str, float]], calls: bool
) -> None:
    assert CHOICE.calls(question, [RATES], first) == ([RATES] if calls else [])


def test_the_best_of_several_functions_counts() -> None:
    question = "What is the weather forecast for Oslo?"
    assert not CHOICE.calls(question, [RATES], UNWILLING)
    assert CHOICE.calls(question, [RATES, WEATHER], UNWILLING)


def test_a_number_that_is_needed_must_have_been_said() -> None:
    needs = {"type": "object", "properties": {"speed": {"type": "number"}, "gear": {"type": "integer"}}}
    journey = function("trip.duration", "Time that a trip takes.")
    counted = journey.model_copy(update={"parameters": needs | {"required": ["speed"]}})
    listed = {"properties": {"legs": {"type": "array", "items": {"type": "number"}}}, "required": ["legs"]}
    question = "How long is the duration?"
    assert CHOICE.calls(question, [journey], WILLING) == [journey]
    assert CHOICE.calls(
        question, [optional := journey.model_copy(update={"parameters": needs})], WILLING
    ) == [optional]
    for syscall in (counted, journey.model_copy(update={"parameters": listed})):
        assert CHOICE.calls(question, [syscall], WILLING) == []
        assert CHOICE.calls(f"{question} Twelve miles.", [syscall], WILLING) == [syscall]


def test_an_expression_is_worked_out_where_a_syscall_takes_such() -> None:
    (calculator,) = (s for s in Manifest.of(Calculator).syscalls if s.name == "calculator.evaluate")
    for question in ("What is 17*23?", "What is 17 % of 2340?", "And 12 - 5?"):
        assert CHOICE.calls(question, [RATES, calculator], UNWILLING) == [calculator]
        assert not CHOICE.calls(question, [RATES], UNWILLING)
    for question in ("Who played in 2019-2020?", "What happened on 1/2/2020?", "Is a C++ compiler here?"):
        assert not CHOICE.calls(question, [calculator], UNWILLING)


def shown(name: str, example: str) -> Syscall:
    parameters = {"type": "object", "properties": {"value": {"type": "string", "description": example}}}
    return function(name, "Does something.").model_copy(update={"parameters": parameters})


@pytest.mark.parametrize(
    ("example", "said", "other"),
    [
        ("YYYY-MM-DD", "What is on 2026-11-22?", "What is on page 2026-112?"),
        ("such as 2025-01-31", "And on 2026-11-22", "in 2026-27"),
        ("such as [3, 4.5, 8]", "Of 4, 8.5 and 15?", "In 2019, 5 people came."),
        ("such as [3, 4.5, 8]", "of 4, 8, 15, 16", "Chapter 3, 4"),
        (
            'such as "60 km/h to m/s"',
            "How many kilometres are 26.2 miles?",
            "How many miles did he run in 2 hours?",
        ),
        (
            'such as "60 km/h to m/s"',
            "Convert 350 degrees Fahrenheit to Celsius.",
            "Who ran 42 km to the sea?",
        ),
        ("such as https://example.org", "What does http://a.b/c say?", "What does a.b/c say?"),
        ('such as "report.txt"', "What is in data/sales.csv", "What is example.com, e.g. for you?"),
        ('such as "report.txt"', "Read NOTES.MD.", "Look at photo.png, notes.txt.zip or http://a.b/c.txt"),
        ('such as "tar xf old.tar.gz"', "Unpack a/photos.zip", "Is zip smaller than .gz?"),
        ('such as "photo.png"', "What is on my-photo.jpeg?", "What is in notes.txt?"),
        ('such as "meeting.mp3"', "Who speaks in a/b.wav", "Is mp3 better than wav?"),
    ],
)
def test_a_value_is_known_by_its_form(example: str, said: str, other: str) -> None:
    syscall = shown("any.thing", example)
    assert CHOICE.calls(said, [RATES, syscall], UNWILLING) == [syscall]
    assert CHOICE.calls(said, [RATES], UNWILLING) == []
    assert CHOICE.calls(other, [RATES, syscall], UNWILLING) == []


def test_what_words_ask_for_stays_beside_what_a_form_asks_for() -> None:
    syscall = shown("any.thing", 'such as "report.txt"')
    question = "Read notes.txt, and what is the exchange rate of two currencies at the bank?"
    assert CHOICE.calls(question, [RATES, WEATHER, syscall], UNWILLING) == [RATES, syscall]


def test_a_fence_opens_a_call_where_json_stands_behind_it() -> None:
    question, fenced = "Which currencies are there?", [("```", log(0.99)), ("The", log(0.01))]
    assert CHOICE.calls(question, [RATES], fenced) == [RATES]
    assert CHOICE.calls(question, [RATES], fenced, [("json", log(0.99))]) == [RATES]
    assert CHOICE.calls(question, [RATES], fenced, [("python", log(0.9)), ("json", log(0.1))]) == []


def test_a_value_names_syscalls_and_where_none_does_all_are_named() -> None:
    reader = shown("any.thing", 'such as "report.txt"')
    assert CHOICE.named("Read notes.txt.", [RATES, reader, WEATHER]) == [reader]
    assert CHOICE.named("Read it.", [RATES, reader, WEATHER]) == [RATES, reader, WEATHER]


def test_what_is_left_to_call_is_what_no_call_has_answered() -> None:
    asked = "What is the exchange rate of euro and dollar at the bank, and the weather forecast for Oslo?"
    made = (RATES, '{"base": "euro", "quote": "dollar"}')
    assert CHOICE.left(asked, [RATES, WEATHER], [made]) == [WEATHER]
    assert CHOICE.left(asked, [RATES, WEATHER], [made, (WEATHER, '{"place": "Oslo"}')]) == []
    assert (
        CHOICE.left("What is the exchange rate of euro and dollar at the bank?", [RATES, WEATHER], [made])
        == []
    )


def test_only_measured_weights_are_helped() -> None:
    assert choice_of("scripted") is None
    for identity in ("2bce23d164710f8c8e8670ac02e522a9", "44314ab96a54536ab3656807c203049b"):
        assert choice_of(f"{identity}/native/kernels/page16") is not None


def test_a_function_is_written_with_every_parameter() -> None:
    text = stub(
        "shop.order",
        "Order things.",
        {
            "properties": {
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "lines": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"item": {"type": "string", "description": "What."}}},
                    "description": "What to order.",
                },
                "sizes": {"type": "array", "items": {"type": "integer"}},
                "speed": {"enum": ["slow", "fast"]},
                "more": True,
            },
            "required": ["lines"],
        },
    )  # fmt: skip
    assert text == (
        "def shop.order(lines: list[dict], note: str | None = None, sizes: list[int] = ..., "
        'speed: Literal["slow", "fast"] = ..., more: Any = ...):\n'
        '    """Order things.\n'
        "\n"
        "    note:  (optional)\n"
        "    lines: What to order.\n"
        "        item: str: What.\n"
        "    sizes:  (optional)\n"
        "    speed:  (optional)\n"
        '    """'
    )


@pytest.mark.parametrize(
    ("value", "description", "asked", "meant"),
    [
        ("meeting.mp3", 'a recording, such as "meeting.mp3"', "Who speaks in order.wav?", "order.wav"),
        ("wc -l app.log", 'such as "wc -l app.log"', "How many lines has data/x.txt?", "wc -l data/x.txt"),
        (
            "pd.read_csv('data.csv')",
            'such as "data.csv"',
            "What is in a.csv, and in b.csv?",
            "pd.read_csv('data.csv')",
        ),
        ("app.log", 'such as "app.log"', "Is app.log longer than b.log?", "app.log"),
        ("photo.png", 'such as "photo.png"', "Read notes.txt", "photo.png"),
        ("2025-01-31", "such as 2025-01-31", "What day was 1969-07-20?", "1969-07-20"),
    ],
)
def test_an_example_that_was_copied_is_the_value_that_was_said(
    value: str, description: str, asked: str, meant: str
) -> None:
    assert as_said(value, description, asked) == meant
