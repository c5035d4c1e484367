"""Syscalls as a model reads them: each a Python signature with a docstring.

What: writes a syscall's JSON schema as a function's head. Small models that have read much code fill such heads in
    better, and from fewer tokens, than schemas (docs/log.md has the figures).
Invariant: every parameter stands in it with its type, its description and whether it may be left out. A description
    is data: its line breaks are kept, and nothing in it is looked at.
Interface: `stub(name, description, parameters) -> str`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_TYPES = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
    "null": "None",
}  # fmt: skip


def stub(name: str, description: str, parameters: Mapping[str, Any]) -> str:
    """The head of a function with these parameters (a JSON schema of an object)."""
    described = parameters.get("properties", {})
    required = [n for n in parameters.get("required", ()) if n in described]
    optional = [n for n in described if n not in required]
    heads = [f"{n}: {_type(described[n])}" for n in required]
    heads += [f"{n}: {_type(described[n])} = {_default(described[n])}" for n in optional]
    lines = [f"def {name}({', '.join(heads)}):", f'    """{description}']
    if described:
        lines.append("")
    for n in [n for n in described if isinstance(described[n], Mapping)]:
        lines.append(f"    {n}: {described[n].get('description', '')}" + " (optional)" * (n in optional))
        lines += _inner(described[n])
    return "\n".join([*lines, '    """'])


def _inner(schema: Mapping[str, Any]) -> list[str]:
    """The fields of an object, or of a list of them, one a line."""
    fields = schema.get("properties") or (_mapping(schema.get("items"))).get("properties") or {}
    return [
        f"        {n}: {_type(field)}: {_mapping(field).get('description', '')}"
        for n, field in fields.items()
    ]


def _default(schema: Any) -> str:
    return _literal(schema["default"]) if isinstance(schema, Mapping) and "default" in schema else "..."


def _literal(value: Any) -> str:
    """A JSON value as Python writes it."""
    return repr(value) if value is None or isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def _type(schema: Any) -> str:
    """A schema as a type hint; `Any` for what has none."""
    schema = _mapping(schema)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return f"Literal[{', '.join(map(_literal, values))}]"
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(_TYPES.get(k, "Any") for k in kind)
    if kind == "array" and _type(schema.get("items")) != "Any":
        return f"list[{_type(schema['items'])}]"
    return _TYPES.get(str(kind), "Any")


def _mapping(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}
