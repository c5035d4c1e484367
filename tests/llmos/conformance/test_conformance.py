"""Each check finds its fault in an app that has it, and none in one that keeps the rules."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmos.abi.errors import ManifestError
from llmos.abi.manifest import Manifest
from llmos.apps.calculator import Calculator
from llmos.apps.files import Files
from llmos.conformance import CHECKS, Report, examine
from llmos.conformance.values import fitting, large, wrong
from llmos.testing import conformance
from tests.llmos.conformance import faulty

HERE = "tests.llmos.conformance.faulty"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def look(app: str, *only: str, **options: Any) -> Report:
    return examine(f"{HERE}:{app}", only=only, **options)


FAULTS = [
    ("Undescribed", "schema", "no docstring"),
    ("CallsHome", "effects", "reaches out to ('127.0.0.1', 9)"),
    ("NoTarget", "labels", "no target"),
    ("Trips", "arguments", "raises IndexError"),
    ("Grows", "sizes", "text of 200000 characters"),
    ("Slow", "times", "longer than 0.3 s"),
    ("Stubborn", "cancellation", "until its process is killed"),
    ("Shares", "concurrency", "8 at once"),
    ("KnowsAll", "survival", "a key that nobody used"),
]
MORE = [
    ("Writes", "effects", "writes to"),
    ("WritesUnseen", "effects", "changed the working volume"),
    ("NoTarget", "labels", 'returns="user"'),
    ("Tells", "labels", "tells the secret 'token'"),
    ("Lies", "arguments", "returned something else than it promised"),
    ("Ends", "arguments", "takes its process along"),
    ("Floods", "sizes", "bytes"),
    ("TripsAtTheStart", "survival", "does not work after its process was killed"),
]


@pytest.mark.parametrize(
    ("app", "check", "words"), FAULTS, ids=[f"{check}-{app}" for app, check, _ in FAULTS]
)
def test_a_fault_is_found(app: str, check: str, words: str) -> None:
    report = look(app, check)
    assert any(words in one.what for one in report.faults), report
    assert all(one.check == check and one.do for one in report.faults)


def test_a_key_that_counts_twice_is_found() -> None:
    report = look("Twice", "survival", effects=("write",))
    assert [one.syscall for one in report.faults] == ["twice.add"], report
    assert not look("Twice", "survival").faults  # it writes: nobody said that it may be called
    assert look("Twice", "survival").skipped == ("twice.add",)


test_a_good_app_conforms = conformance(
    f"{HERE}:Good", examples={"good.wait": {"seconds": 1.0}}, effects=("none", "write")
)


def test_every_check_has_found_a_fault() -> None:
    assert {check for _, check, _ in FAULTS} == CHECKS.keys()


def test_what_cannot_be_examined_is_an_error_with_a_name() -> None:
    with pytest.raises(ManifestError, match="no app 'nothing'"):
        examine("nothing")
    with pytest.raises(ManifestError, match="cannot be loaded"):
        examine("no.module:App")
    with pytest.raises(ManifestError, match=r"an example of good\.nothing"):
        look("Good", "schema", examples={"good.nothing": {}})


# --- arguments made from schemas ---

SCHEMAS = {
    one.name: one
    for app in (faulty.Good, Calculator, Files, faulty.KnowsAll)
    for one in Manifest.of(app).syscalls
}


@functools.cache
def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(SCHEMAS[name].parameters)


@pytest.mark.parametrize("name", SCHEMAS)
def test_arguments_fit_or_do_not_fit_as_they_say(name: str) -> None:
    made = fitting(SCHEMAS[name].parameters)
    assert made
    for arguments in made:
        validator(name).validate(arguments)
    for _, arguments in large(SCHEMAS[name].parameters):
        validator(name).validate(arguments)
    bad = list(wrong(SCHEMAS[name].parameters))
    assert bad
    for how, arguments in bad:
        assert not validator(name).is_valid(arguments), how


_leaf = st.sampled_from(
    [
        {"type": "string"}, {"type": "string", "minLength": 3, "maxLength": 9}, {"type": "integer", "minimum": 5},
        {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, {"type": "boolean"}, {"enum": ["a", "b"]},
        {"const": 7}, {"type": ["string", "null"]}, {"type": "integer", "multipleOf": 3},
    ]
)  # fmt: skip


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    needed = sorted(properties)[:1]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


_schema = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        inner.map(lambda one: {"type": "array", "items": one, "minItems": 1, "maxItems": 4}),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: {"anyOf": some}),
        inner.map(
            lambda one: {
                "type": "object",
                "properties": {"x": one},
                "required": ["x"],
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=4,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), _schema, min_size=1))
def test_arguments_fit_any_schema(properties: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": properties,
        "required": sorted(properties)[:1],
        "additionalProperties": False,
    }
    check = Draft202012Validator(schema)
    for arguments in fitting(schema):
        check.validate(arguments)
    for how, arguments in wrong(schema):
        assert not check.is_valid(arguments), how
