"""Arguments held against what was said: what the user did not say is left out, what they said is as they said it."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.kernel.arguments import settled, wanted
from llmos.kernel.heard import Heard, stems

TEXT: dict[str, Any] = {"type": "string"}
ABOUT = "shop.find: Finds things in a shop."


def settle(
    asked: str,
    given: dict[str, Any],
    properties: dict[str, Any],
    required: tuple[str, ...] = (),
    heard: str = "",
) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return settled(given, schema, asked, f"{heard}\n{asked}", ABOUT)


@pytest.mark.parametrize(
    ("asked", "value", "schema", "kept"),
    [
        ("red shoes please", "red", TEXT, True),
        ("shoes please", "red", TEXT, False),
        ("shoes in kilometres", "km", TEXT, True),
        ("to New York", "NY", TEXT, True),
        ("three of them", 3, {"type": "integer"}, True),
        ("at most 1,500", 1500, {"type": "integer"}, True),
        ("some of them", 10, {"type": "integer"}, False),
        ("also what is sold out", True, {"type": "boolean"}, False),
        ("on April 25th, 2026", "2026-04-25", TEXT, True),
        ("on 4/25/2026", "2026-04-25", TEXT, True),
        ("on May 25th, 2026", "2026-04-25", TEXT, False),
        ("on the 25th of April", "04-25-2026", TEXT, True),
        ("on the 25th of April", "25/04/2026", TEXT, True),
        ("on the 25th of April", "25/05/2026", TEXT, False),
        ("on Apr.25,2026", "April 25, 2026", TEXT, True),
        ("on the 25th", "99/99/2026", TEXT, False),
        ("next April", "2026-04-25", TEXT, False),
        ("since April 2026", "2026-04-01", TEXT, True),
        ("since April 2026", "04-2026", TEXT, True),
        ("since May 2026", "04-2026", TEXT, False),
        ("on 2026.4.25", "2026-04-25", TEXT, True),
        ("on April 25th at 9 am", "2026-04-25 09:00:00", TEXT, True),
        ("on May 25th at 9 am", "2026-04-25 09:00:00", TEXT, False),
        ("around 8:30 pm", "20:30", TEXT, True),
        ("around 8:30 pm", "21:30", TEXT, False),
        ("next Friday, today is the 3rd of May 2026", "2026-05-08", TEXT, True),
        ("next Friday", "2026-05-08", TEXT, False),
        ("marked with 3", [3, 5], {"type": "array", "items": {"type": "integer"}}, False),
        ("marked with 3 and 5", [3, 5], {"type": "array", "items": {"type": "integer"}}, True),
    ],
)
def test_an_optional_argument_stands_on_what_was_said(
    asked: str, value: Any, schema: dict[str, Any], kept: bool
) -> None:
    assert settle(asked, {"what": value}, {"what": schema}) == ({"what": value} if kept else {})


def test_a_switch_is_named_by_its_parameter() -> None:
    switch = {"include_reviews": {"type": "boolean"}}
    assert settle("with reviews", {"include_reviews": True}, switch) == {"include_reviews": True}
    assert settle("the price", {"include_reviews": True}, switch) == {}
    text = {"free_entry": {"type": "string", "enum": ["True", "False", "any"]}}
    assert settle("with free entry", {"free_entry": "True"}, text) == {"free_entry": "True"}
    assert settle("a museum", {"free_entry": "True"}, text) == {}


@pytest.mark.parametrize(
    ("asked", "name", "on"),
    [
        ("I am not lazy", "lazy", False),
        ("I don't get nervous easily", "is_nervous", False),
        ("without any delivery", "include_delivery", False),
        ("not for the lazy", "lazy", True),
        ("not lazy", "lazy_loading", True),
        ("without tolls", "avoid_tolls", True),
    ],
)
def test_a_switch_is_off_where_the_user_says_so(asked: str, name: str, on: bool) -> None:
    assert settle(asked, {name: True}, {name: {"type": "boolean"}}, (name,)) == {name: on}


def test_what_was_said_earlier_counts() -> None:
    size = {"size": {"type": "integer"}}
    assert settle("the same again", {"size": 42}, size, heard="I wear 42") == {"size": 42}
    assert settle("the same again", {"size": 42}, size) == {}


def test_members_of_objects_are_held_against_what_was_said_too() -> None:
    person = {
        "type": "object", "required": ["id"],
        "properties": {"id": {"type": "integer"}, "mail": TEXT, "about": TEXT, "share": {"type": "number"}},
    }  # fmt: skip
    written = {"id": 7, "mail": "a@b.c", "about": "Likes to read", "share": 5}
    meant = {"id": 7, "mail": "a@b.c", "share": 0.05}
    asked = "Their mail is now a@b.c, their share 5 %"
    assert settle(asked, {"to": written}, {"to": person}, ("to",)) == {"to": meant}
    people = {"type": "array", "items": person}
    assert settle(asked, {"to": [written]}, {"to": people}, ("to",)) == {"to": [meant]}


def test_required_arguments_stay_whatever_was_said() -> None:
    assert settle("hello", {"what": "tea", "n": 7}, {"what": TEXT, "n": {"type": "integer"}}, ("what", "n")) == {
        "what": "tea", "n": 7,
    }  # fmt: skip


def test_of_choices_in_a_list_those_stay_that_were_said() -> None:
    colours = {"type": "array", "items": {"type": "string", "enum": ["red", "blue", "green"]}}
    everything = {"colours": ["red", "blue", "green"]}
    assert settle("blue or green", everything, {"colours": colours}) == {"colours": ["blue", "green"]}
    assert settle("blue", everything, {"colours": colours}, ("colours",)) == {"colours": ["blue"]}
    assert settle("any", everything, {"colours": colours}, ("colours",)) == everything


def test_a_choice_is_said_by_what_tells_it_from_others() -> None:
    extras = ["Window Seat", "Aisle Seat", "Extra Luggage"]
    schema = {"extras": {"type": "array", "items": {"type": "string", "enum": extras}}}
    assert settle("one at the window", {"extras": extras}, schema) == {"extras": ["Window Seat"]}
    assert settle("a good seat", {"extras": extras}, schema) == {}
    kind = {"kind": {"type": "string", "enum": extras}}
    assert settle("on the aisle", {"kind": "Aisle Seat"}, kind) == {"kind": "Aisle Seat"}


def test_what_the_question_speaks_of_is_wanted() -> None:
    properties = {
        "city": TEXT, "rating": {"type": "number"}, "kinds": {"type": "array", "items": {"enum": ["Thai", "Greek"]}},
        "sort": {"type": "string", "enum": ["up", "down"]}, "show_all": {"type": "boolean"},
    }  # fmt: skip
    schema = {"type": "object", "properties": properties, "required": ["city"]}
    assert wanted(schema, "Where in Oslo can I eat?") is schema
    assert wanted(schema, "A greek place in Oslo with a rating of 4")["required"] == [
        "city",
        "rating",
        "kinds",
    ]
    assert wanted({"type": "object"}, "anything") == {"type": "object"}


def test_an_optional_text_that_repeats_a_required_one_goes() -> None:
    both = {"city": TEXT, "zone": TEXT}
    assert settle("time in Oslo", {"city": "Oslo", "zone": "Oslo"}, both, ("city",)) == {"city": "Oslo"}


def test_an_optional_number_that_a_required_text_has_goes() -> None:
    properties = {"equation": TEXT, "low": {"type": "number"}}
    given = {"equation": "2x + 3 = 7", "low": 3.0}
    assert settle("solve 2x + 3 = 7", given, properties, ("equation",)) == {"equation": "2x + 3 = 7"}
    assert settle("solve 2x + 3 = 7 from 3 on", given, properties, ("equation",)) == given
    assert settle("solve 2x + 3 = 7 from three on", given, properties, ("equation",)) != given, (
        "said in it alone"
    )


@pytest.mark.parametrize(
    ("asked", "written", "meant"),
    [
        ("8.5 million people", 850_000_000, 8_500_000),
        ("a loan of $250,000", 25_000, 250_000),
        ("a loan of $250,000", -2_500_000, -250_000),
        ("a loan of 250k", 250_000, 250_000),
        ("a walk of 5 km", 5_000, 5_000),
        ("three minutes", 180, 180),
    ],
)
def test_large_numbers_have_as_many_zeros_as_the_user_said(asked: str, written: int, meant: int) -> None:
    assert settle(asked, {"n": written}, {"n": {"type": "integer"}}, ("n",)) == {"n": meant}


SECONDS = {"type": "integer", "description": "How long, in seconds."}


@pytest.mark.parametrize(
    ("asked", "written", "parameter", "meant"),
    [
        ("for 3 minutes", 3, SECONDS, 180),
        ("for 3 minutes", 180, SECONDS, 180),
        ("for 3 minutes", 3000, SECONDS, 180),
        ("for 40 seconds", 40, SECONDS, 40),
        ("for 3 minutes and 20 seconds", 20, SECONDS, 20),
        ("for 3 minutes and 20 seconds", 200, SECONDS, 200),
        ("3 minutes, 5 times", 5, SECONDS, 5),
        ("for a while", 60, SECONDS, 60),
        ("a rope of 2 feet", 2.0, {"type": "number", "description": "Length in cm"}, 60.96),
        ("a rope of 2 feet", 2, {"type": "integer", "description": "Length in cm"}, 2),
        ("a rope of 2 feet", 2, {"type": "number", "description": "The length"}, 2.0),
        ("at 5 m/s", 5, {"type": "number", "description": "Speed in km/h"}, 5.0),
        ("at 5 m/s", 5, {"type": "number", "description": "The way in km"}, 5.0),
    ],
)
def test_a_quantity_is_counted_in_the_unit_that_is_asked_for(
    asked: str, written: float, parameter: dict[str, Any], meant: float
) -> None:
    assert settle(asked, {"n": written}, {"n": parameter}, ("n",)) == {"n": meant}


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        ({"type": "number", "description": "The discount."}, 0.05),
        ({"type": "number", "description": "The discount in percent."}, 5.0),
        ({"type": "integer", "description": "The discount."}, 5),
        ({"type": "number", "description": "The discount, such as 0.1 for 10%."}, 0.05),
    ],
)
def test_per_cent_is_a_hundredth(parameter: dict[str, Any], expected: float) -> None:
    found = settle("5% off", {"discount": 5}, {"discount": parameter}, ("discount",))["discount"]
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("asked", "written", "meant"),
    [
        ("I like apples", "apple", "apple"),
        ("a used Gibson Les Paul guitar", "Les Paul", "Gibson Les Paul"),
        ("when was the Treaty of Rome signed?", "Rome", "Treaty of Rome"),
        ("Show Les Paul", "Les Paul", "Les Paul"),
        ("from New York to Boston", "New York", "New York"),
        ("the weather in Lyon, France please", "Lyon", "Lyon, France"),
    ],
)
def test_texts_are_as_the_user_wrote_them(asked: str, written: str, meant: str) -> None:
    assert settle(asked, {"what": written}, {"what": TEXT}, ("what",)) == {"what": meant}


def test_a_city_s_name_has_no_country() -> None:
    given = {"city": "Lyon", "place": "Lyon"}
    found = settle(
        "the weather in Lyon, France please", given, {"city": TEXT, "place": TEXT}, ("city", "place")
    )
    assert found == {"city": "Lyon", "place": "Lyon, France"}


@pytest.mark.parametrize(
    ("asked", "written", "meant"),
    [
        ("a fat-free muffin", "Fat-Free Muffin", "Muffin"),
        ("a muffin, fat-free", "muffin fat-free", "muffin"),
        ("a book on Fat-Free", "Fat-Free", "Fat-Free"),
        ("the Fat-Free Cookbook", "Fat-Free Cookbook", "Fat-Free Cookbook"),
        ("the large muffin", "large muffin", "muffin"),
        ("the small muffin", "small muffin", "small muffin"),
    ],
)
def test_what_another_parameter_holds_is_said_once(asked: str, written: str, meant: str) -> None:
    diet = {"type": "array", "items": {"type": "string", "enum": ["Fat Free", "Sugar Free"]}}
    schema = {"what": TEXT, "diet": diet, "size": {"type": "string", "default": "large"}}
    found = settle(asked, {"what": written, "diet": ["Fat Free"]}, schema, ("what", "diet"))
    assert found == {"what": meant, "diet": ["Fat Free"]}


@pytest.mark.parametrize(
    ("asked", "written", "meant"),
    [
        ("at 51.5 N, 0.1 W", [51.5, 0.1], [51.5, -0.1]),
        ("at 51.5 N, 0.1 W", [51.5, -0.1], [51.5, -0.1]),
        ("at 33.9° S, 18.4° E", [33.9, 18.4], [-33.9, 18.4]),
        ("at 33.9 south", 33.9, -33.9),
        ("at 33.9 Somewhere", 33.9, 33.9),
    ],
)
def test_south_and_west_are_negative(asked: str, written: Any, meant: Any) -> None:
    where = {"where": {"description": "Coordinates as latitude and longitude"}, "watts": {"type": "number"}}
    assert settle(asked, {"where": written, "watts": 0.1}, where, ("where", "watts")) == {
        "where": meant,
        "watts": 0.1,
    }


@pytest.mark.parametrize(
    ("written", "description", "meant"),
    [
        ("y = x^2 + 1", "The function, such as 'x^2'", "x^2 + 1"),
        ("f(x)=sin(x)", "The curve", "sin(x)"),
        ("y = 2x", "The equation of the line", "y = 2x"),
        ("y = 2x", "A line such as 'y = x'", "y = 2x"),
        ("a == b", "The condition", "a == b"),
    ],
)
def test_a_function_is_what_stands_behind_its_name(written: str, description: str, meant: str) -> None:
    schema = {"f": {"type": "string", "description": description}}
    assert settle("plot it", {"f": written}, schema, ("f",)) == {"f": meant}


def test_a_name_does_not_take_words_of_the_syscall_or_of_other_arguments() -> None:
    both = {"artist": TEXT, "shop": TEXT}
    given = {"artist": "Les Paul", "shop": "Oslo"}
    assert settle("Find Les Paul Shop Oslo", given, both, ("artist", "shop")) == given


@pytest.mark.parametrize(
    ("asked", "written", "meant"),
    [
        ("Look at http://a.b:80/c.html. Why?", "https://a.b:80/c.html", "http://a.b:80/c.html"),
        ("Read (https://a.b/c)", "http://a.b/c", "https://a.b/c"),
        ("Is http://a.b/c as https://a.b/c?", "https://a.b/c", "https://a.b/c"),
        ("Look at http://a.b/c", "https://a.b/d", "https://a.b/d"),
        ("Look at http://a.b/c", "https://a.b/c and more", "https://a.b/c and more"),
    ],
)
def test_an_address_is_the_one_that_was_said(asked: str, written: str, meant: str) -> None:
    assert settle(asked, {"url": written}, {"url": TEXT}, ("url",)) == {"url": meant}


def test_choices_and_formats_are_never_rewritten() -> None:
    fixed = {"what": {"type": "string", "enum": ["Christian", "Jewish"]}}
    assert settle("Christianity", {"what": "Christian"}, fixed, ("what",)) == {"what": "Christian"}


def test_whole_numbers_become_floats_where_floats_are_declared() -> None:
    points = {"points": {"type": "array", "items": {"type": "number"}}}
    found = settle("1 and 2", {"points": [1, 2]}, points, ("points",))["points"]
    assert found == [1.0, 2.0] and all(type(v) is float for v in found)


def test_a_settled_call_is_settled() -> None:
    parameters = {"what": TEXT, "discount": {"type": "number"}, "size": {"type": "integer"}}
    asked = "the Gibson Les Paul at 5% off"
    once = settle(asked, {"what": "Les Paul", "discount": 5, "size": 9}, parameters, ("what", "discount"))
    assert settle(asked, once, parameters, ("what", "discount")) == once


def test_numbers_are_heard_in_digits_and_words() -> None:
    assert {1500.0, 0.5, 12.0, 2.0} <= Heard("1,500 and .5, a dozen, twice").numbers
    assert {1.0, 2.0, 3.0} <= Heard("(1,2,3)").numbers


def test_names_of_code_are_words_too() -> None:
    assert stems("exchangeRate") == stems("exchange_rate") == stems("exchange rate")
    assert Heard("what are the rates?").share(stems("exchangeRate")) == 0.5


@pytest.mark.parametrize(
    ("value", "description", "written"),
    [
        ("2022/08/16", "The date (month-day-year).", "08-16-2022"),
        ("1st June 2022", "Use YYYY-MM-DD.", "2022-06-01"),
        ("June 1, 2022", "In the form DD/MM/YYYY.", "01/06/2022"),
        ("April 2022", "As mm-yyyy.", "04-2022"),
        ("2022-06-01", "Use YYYY-MM-DD.", "2022-06-01"),
        ("03/04/2022", "Use YYYY-MM-DD.", "03/04/2022"),
        ("April 2022", "Use YYYY-MM-DD.", "April 2022"),
        ("2022-13-01", "As DD/MM/YYYY.", "2022-13-01"),
        ("tomorrow", "Use YYYY-MM-DD.", "tomorrow"),
        ("2022-06-01", "A date.", "2022-06-01"),
    ],
)
def test_dates_take_the_form_that_is_asked_for(value: str, description: str, written: str) -> None:
    day = {"day": {"type": "string", "description": description}}
    assert settle(f"on {value}", {"day": value}, day, ("day",)) == {"day": written}
