"""What a description says of a value's form is what the grammar keeps to; what it only shows as an example is not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llmos.kernel.shown import narrowed


def keyword(description: str, **more: Any) -> dict[str, Any]:
    """What is added to a text with that description."""
    given = {"type": "string", "description": description, **more}
    schema = {"type": "object", "properties": {"x": given}, "required": ["x"]}
    found = narrowed(schema)
    assert {**found, "properties": schema["properties"]} == schema
    return {key: value for key, value in found["properties"]["x"].items() if given.get(key) != value}


@pytest.mark.parametrize(
    ("description", "choices"),
    [
        ("The unit. Options: 'litres', 'gallons'.", ["litres", "gallons"]),
        ("How to sort; can be 'up' for the smallest first or 'down' for the largest first.", ["up", "down"]),
        ("The colour, either 'red' or 'blue'. Default is 'red'.", ["red", "blue"]),
        ('One of "tea", "coffee", or "hot milk".', ["tea", "coffee", "hot milk"]),
        ("The clock: '12h' or '24h'.", ["12h", "24h"]),
        ("The unit. Options: 'litres', 'gallons'. Default is 'cups'.", None),
        ("The colour, such as 'red' or 'blue'.", None),
        ("Can be 'red', 'blue', etc.", None),
        ("The notes, for example: 'do', 're'", None),
        ("It's the cook's choice.", None),
        ("A colour. It must be said.", None),
        ("The host. It should be in the format 'a.example' or '10.0.0.1'.", None),
    ],
)
def test_a_list_of_choices_is_one(description: str, choices: list[str] | None) -> None:
    assert keyword(description) == ({} if choices is None else {"enum": choices})


@pytest.mark.parametrize(
    ("description", "is_place"),
    [
        ("The city and state, e.g. Denver, CO", True),
        ("Where it starts, in the format City, Country.", True),
        ("The town, for instance Salem, OR", True),
        ("The city", False),
        ("The state, e.g. Texas", False),
        ("Styles, e.g. Rock, Pop", False),
        ("The medium, e.g. Vinyl, CD", False),
        ("The area of print, e.g. Books, Posters, TV", False),
    ],
)
def test_a_place_has_its_state_or_country(description: str, is_place: bool) -> None:
    added = keyword(description)
    assert set(added) == ({"pattern"} if is_place else set())
    if is_place:
        assert all(re.search(added["pattern"], text) for text in ("Denver, CO", "12 Elm St, Salem, Oregon"))
        assert not any(re.search(added["pattern"], text) for text in ("Denver", "Denver, ", ", CO"))


def test_what_a_keyword_says_stands() -> None:
    for more in ({"enum": ["a"]}, {"pattern": "^a$"}, {"format": "date"}, {"type": "integer"}):
        assert keyword("Options: 'a', 'b'. The city and state, e.g. Denver, CO", **more) == {}
    assert keyword("Options: 'a', 'b'.", default="c") == {}
    assert narrowed({"type": "object"}) == {"type": "object"}
