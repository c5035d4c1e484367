"""Arguments made from a schema: some that fit it, some that do not.

What: walks the simplified JSON schemas of syscalls (`llmos.abi.schema`).
Invariant: pure and the same at every run. What `fitting` gives fits the schema but for constraints that it cannot
    express; each of `wrong` breaks it in one place, and says how.
Interface: `fitting(schema) -> list of arguments`, `wrong(schema) -> list of (how, arguments)`, `large(schema)`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
Arguments = dict[str, Any]

LONG_TEXT = 200_000  # characters
LONG_LIST = 5_000  # members
TEXTS = (
    "hello",
    "",
    "ünïcödé 漢字 🙂",
    "../../etc/passwd",
    "'; DROP TABLE x; --",
    "line one\nline two\ttab",
    "0",
)
MAX_DEPTH = 6  # of values that hold themselves


def fitting(schema: Schema) -> list[Arguments]:
    """Arguments that fit: the fewest, then all of them in several forms."""
    required = set(schema.get("required", ()))
    properties: Mapping[str, Schema] = schema.get("properties", {})
    least = {name: _one(properties[name], 0, schema) for name in properties if name in required}
    found = [least]
    for variant in range(1, len(TEXTS)):
        found.append({name: _one(one, variant, schema) for name, one in properties.items()})
    return [one for at, one in enumerate(found) if one not in found[:at]]


def _one(schema: Schema, variant: int, root: Schema, depth: int = 0) -> Any:
    """A value of a schema; `variant` chooses among those that there are."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][variant % len(schema["enum"])]
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _one(root.get("$defs", {}).get(name, {}), variant, root, depth + 1)
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            choices = schema[key]
            plain = [choice for choice in choices if "$ref" not in choice] if depth > MAX_DEPTH else choices
            return _one((plain or choices)[variant % len(plain or choices)], variant, root, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            merged |= part
        return _one(merged, variant, root, depth + 1)
    kind = schema.get("type", "string")
    kind = kind[variant % len(kind)] if isinstance(kind, list) else kind
    if kind == "string":
        return _text(schema, variant)
    if kind in ("integer", "number"):
        return _number(schema, variant, whole=kind == "integer")
    if kind == "boolean":
        return variant % 2 == 1
    if kind == "array":
        return _array(schema, variant, root, depth)
    if kind == "object":
        needed = set(schema.get("required", ()))
        parts = schema.get("properties", {}).items()
        chosen = [(n, p) for n, p in parts if n in needed or (variant and depth < MAX_DEPTH)]
        return {name: _one(part, variant, root, depth + 1) for name, part in chosen}
    return None


def _text(schema: Schema, variant: int) -> str:
    if schema.get("format") in ("date", "date-time", "time"):
        return {"date": "2024-02-29", "date-time": "2024-02-29T12:00:00Z", "time": "12:00:00"}[
            schema["format"]
        ]
    texts = (*TEXTS[variant % len(TEXTS) :], *TEXTS)
    pattern = str(schema.get("pattern", ""))
    text = next((text for text in texts if re.search(pattern, text)), texts[0])
    text = text[: schema.get("maxLength", len(text))]
    return text + "x" * (int(schema.get("minLength", 0)) - len(text))


def _number(schema: Schema, variant: int, *, whole: bool) -> float:
    step: float = 1 if whole else 0.5
    low = schema.get(
        "minimum", schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else -math.inf
    )
    high = schema.get(
        "maximum", schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else math.inf
    )
    number: float = min(max((2, 0, -1, 7, 3, 100, 1)[variant % 7], low), high)
    every = schema.get("multipleOf")
    if every:
        number = math.ceil(number / every) * every
    return int(number) if whole else float(number)


def _array(schema: Schema, variant: int, root: Schema, depth: int) -> list[Any]:
    least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 3))
    if "prefixItems" in schema:
        return [_one(part, variant, root, depth + 1) for part in schema["prefixItems"]]
    count = min(max(least, variant % 4), max(most, least)) if depth < MAX_DEPTH else least
    return [_one(schema.get("items", {}), variant + n, root, depth + 1) for n in range(count)]


def wrong(schema: Schema) -> Iterator[tuple[str, Arguments]]:
    """Arguments that do not fit, each with what is wrong with it."""
    good = fitting(schema)[-1]
    yield "an argument that there is not", {**good, "no_such_argument": 1}
    for name in schema.get("required", ()):
        yield f"without {name}", {key: value for key, value in good.items() if key != name}
    for name, one in schema.get("properties", {}).items():
        for how, value in _misfits(one):
            yield f"{name} is {how}", {**good, name: value}


def _misfits(schema: Schema) -> Iterator[tuple[str, Any]]:
    """Values that a schema does not admit."""
    kinds = _kinds(schema)
    for how, kind, value in (
        ("a text", "string", "surely no such value"), ("a number", "number", 1.5), ("null", "null", None),
        ("a list", "array", [[["x"]]]), ("an object", "object", {"surely": "not"}), ("true", "boolean", True),
    ):  # fmt: skip
        if (
            kinds
            and kind not in kinds
            and not (kind == "number" and "integer" in kinds and "number" in kinds)
        ):
            yield how, value
    if schema.get("enum"):
        yield "none of its choices", "surely no such choice"
    if "maximum" in schema:
        yield "too great", schema["maximum"] + 1
    if "minimum" in schema:
        yield "too small", schema["minimum"] - 1
    if "maxLength" in schema:
        yield "too long", "x" * (schema["maxLength"] + 1)
    if schema.get("minLength"):
        yield "too short", ""
    if "maxItems" in schema and schema["maxItems"] < LONG_LIST:
        yield "a list that is too long", [_one(schema.get("items", {}), 1, schema)] * (schema["maxItems"] + 1)


def _kinds(schema: Schema) -> set[str]:
    """The types that a schema admits; none where that is not plain to see."""
    if "const" in schema or "$ref" in schema or "allOf" in schema:
        return set()
    if schema.get("enum"):
        names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
        return {names.get(type(one), "object") for one in schema["enum"]}
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        kinds = [_kinds(choice) for choice in choices]
        return set().union(*kinds) if all(kinds) else set()
    kind = schema.get("type")
    return set(kind) if isinstance(kind, list) else {kind} if kind else set()


def large(schema: Schema) -> Iterator[tuple[str, Arguments]]:
    """Arguments that fit and are as large as the schema lets them be, up to a bound of ours."""
    good = fitting(schema)[0]
    for name, one in schema.get("properties", {}).items():
        for part in (one, *one.get("anyOf", ())):
            if part.get("type") == "string" and not {"enum", "const", "format", "pattern"} & part.keys():
                size = min(LONG_TEXT, part.get("maxLength", LONG_TEXT))
                yield f"{name} of {size} characters", {**good, name: "long words " * (size // 11)}
            if part.get("type") == "array" and "prefixItems" not in part:
                size = min(LONG_LIST, part.get("maxItems", LONG_LIST))
                yield (
                    f"{name} of {size} members",
                    {**good, name: [_one(part.get("items", {}), 0, schema)] * size},
                )
