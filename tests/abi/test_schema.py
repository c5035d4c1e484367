"""Simplified schemas compile in the grammar engine, and accept no more than they say."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from pydantic import BaseModel, Field

from llmos.abi.errors import ManifestError
from llmos.abi.schema import MAX_NODES, simplify


def complaint(schema: dict[str, Any]) -> str:
    """What the grammar engine says against a schema; "" where it compiles."""
    return LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)))


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Everything(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: list[Cat | Dog]
    trees: dict[str, Tree]
    tags: set[str]


def test_references_are_written_out_but_for_recursion() -> None:
    simple = simplify(Everything.model_json_schema())
    assert simple.schema["properties"]["pet"]["anyOf"][0]["properties"]["kind"]["const"] == "cat"
    assert list(simple.schema["$defs"]) == ["defs_Tree"]
    assert complaint(simple.schema) == ""
    assert simple.loosened == ("tags: uniqueItems",)
    assert "title" not in json.dumps(simple.schema)


def test_what_the_engine_lacks_is_listed() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "pattern": "^(?!x)y$"},
            "b": {"type": "string", "format": "path"},
            "c": {"not": {"const": 1}},
            "d": {
                "type": "object",
                "properties": {"e": {"oneOf": [{"type": "string"}, {"type": "integer"}]}},
            },
        },
        "if": {"required": ["a"]},
    }
    assert complaint(schema) != ""
    simple = simplify(schema)
    assert complaint(simple.schema) == ""
    assert set(simple.loosened) == {"a: pattern", "b: format", "c: not", "d.e: oneOf", "*: if"}


def test_objects_are_closed_unless_they_say_otherwise() -> None:
    schema = {
        "properties": {
            "closed": {"properties": {"a": {}}},
            "open": {"properties": {"a": {}}, "additionalProperties": True},
            "joined": {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        }
    }
    inner = simplify(schema).schema["properties"]
    assert inner["closed"]["additionalProperties"] is False
    assert inner["open"]["additionalProperties"] == {}
    assert "additionalProperties" not in json.dumps(inner["joined"])


def test_older_drafts() -> None:
    schema = {
        "definitions": {"a/b": {"type": "integer"}},
        "properties": {
            "x": {"$ref": "#/definitions/a~1b", "description": "an x"},
            "y": {"items": [{"const": 1}]},
        },
    }
    inner = simplify(schema).schema["properties"]
    assert inner == {"x": {"type": "integer", "description": "an x"}, "y": {"prefixItems": [{"const": 1}]}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.org/schema.json"},
        {"$ref": "#/nowhere"},
        {"$ref": 7},
        {"properties": 3},
        {"properties": {"a": 3}},
        {"anyOf": {"type": "string"}},
        True,
    ],
)
def test_schemas_that_nobody_can_follow(schema: Any) -> None:
    with pytest.raises(ManifestError):
        simplify(schema if isinstance(schema, dict) else {"allOf": schema})


def test_bombs() -> None:
    doubling: dict[str, Any] = {"d0": {"type": "integer"}}
    for i in range(40):
        doubling[f"d{i + 1}"] = {"prefixItems": [{"$ref": f"#/$defs/d{i}"}] * 2}
    with pytest.raises(ManifestError, match="too large"):
        simplify({"$ref": "#/$defs/d40", "$defs": doubling})
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"items": deep}
    with pytest.raises(ManifestError, match="too large"):
        simplify(deep)
    with pytest.raises(ManifestError, match="too large"):
        simplify({"properties": {str(i): {} for i in range(MAX_NODES)}})


def test_a_reference_that_means_itself_ends() -> None:
    simplify({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})
    simplify({"type": "object", "properties": {"again": {"$ref": "#"}}})


_leaf = st.sampled_from(
    [
        {"type": "integer"},
        {"type": "string", "format": "path"},
        {"$ref": "#/$defs/A"},
        {"$ref": "#/$defs/B"},
        True,
    ]
)
_schema = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("abc"), inner)}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"items": inner, "uniqueItems": st.just(True)}),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(_schema, _schema, _schema)
def test_any_schema_compiles_once_simplified(parameter: Any, a: Any, b: Any) -> None:
    boxed = {
        "type": "object",
        "properties": {"inner": a},
        "required": [],
    }  # so that recursion passes an object
    schema = {"type": "object", "properties": {"p": parameter}, "$defs": {"A": boxed, "B": {"items": b}}}
    said = complaint(simplify(schema).schema)
    assert not said or "unsatisfiable" in said.lower(), said
