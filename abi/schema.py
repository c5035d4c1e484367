"""JSON schemas that a grammar engine can compile, made from those that pydantic or a stranger wrote.

What: `$ref`s are written out, noise is dropped, keywords that the grammar engine (llguidance) does not know are
    loosened; what was loosened is listed, for somebody else has to check it.
Invariant: what the simplified schema accepts, the given one accepts too, but for what `loosened` lists. Objects
    have only the properties that are described, unless their schema speaks of others. Only recursive types
    keep `$ref`s, into `$defs`. The work is bounded: a hostile schema is a ManifestError, not a long wait.
Interface: `simplify(schema) -> Simple`. Raises ManifestError for schemas that nobody could follow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmos.abi.errors import ManifestError

MAX_NODES = 4_000  # of a schema once its references are written out; large real ones have a few hundred
MAX_DEPTH = 40  # of nesting; deeper ones are attacks

_KEPT = frozenset(
    "type enum const $ref properties required additionalProperties patternProperties items prefixItems minItems "
    "maxItems minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum multipleOf anyOf allOf "
    "minProperties maxProperties description default contentMediaType".split()
)
_NOISE = frozenset(
    "title $schema $id $comment $defs definitions examples example deprecated readOnly writeOnly nullable "
    "discriminator contentEncoding".split()
)
_ANNOTATIONS = _NOISE | {"description", "default", "contentMediaType"}
_FORMATS = frozenset("date-time time date duration email hostname ipv4 ipv6 uuid uri".split())
_OPEN = {"additionalProperties", "patternProperties", "allOf", "anyOf"}  # these speak of other properties
_BY_NAME = ("properties", "patternProperties")
_IN_LISTS = ("anyOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties")
_NOT_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]|\\k<")
_MARK = "x-"


@dataclass(frozen=True, slots=True)
class Simple:
    """A schema that compiles; `loosened` are "path: keyword" that it no longer says; `marks` are the `x-...`
    keywords that it carried, each with the paths that carried it (a path is names joined by dots)."""

    schema: dict[str, Any]
    loosened: tuple[str, ...]
    marks: Mapping[str, tuple[str, ...]]


def simplify(schema: Mapping[str, Any]) -> Simple:
    """The schema as a grammar engine wants it, and what that left out."""
    work = _Simplifier(schema)
    flat = work.walk(dict(schema), "", ())
    if not isinstance(flat, dict):
        raise ManifestError(
            "a schema that is not an object", do="describe the parameters by an object schema"
        )
    if work.recursive:
        flat["$defs"] = work.recursive
    marks = {key: tuple(dict.fromkeys(paths)) for key, paths in work.marks.items()}
    return Simple(flat, tuple(dict.fromkeys(work.loosened)), marks)


@dataclass(slots=True)
class _Simplifier:
    root: Mapping[str, Any]
    nodes: int = 0
    loosened: list[str] = field(default_factory=list)
    recursive: dict[str, Any] = field(default_factory=dict)
    marks: dict[str, list[str]] = field(default_factory=dict)

    def walk(self, node: Any, path: str, refs: tuple[str, ...], depth: int = 0, joined: bool = False) -> Any:
        """`refs` are being written out around this node; `joined`: it is one part of an `allOf`."""
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ManifestError(
                "a schema that is too large",
                why=f"more than {MAX_NODES} parts or {MAX_DEPTH} levels once its references are written out",
                do="use plainer types",
            )
        if isinstance(node, bool):
            return {} if node else False
        if not isinstance(node, Mapping):
            raise ManifestError(f"a schema with {type(node).__name__} at {path or 'its root'}, not an object")
        if "$ref" in node:
            return self._reference(node, path, refs, depth, joined)
        flat: dict[str, Any] = {}
        for key, value in node.items():
            if key in _BY_NAME:
                self._expect(value, Mapping, path, key)
                flat[key] = {
                    str(name): self.walk(part, f"{path}.{name}" if path else str(name), refs, depth + 1)
                    for name, part in value.items()
                }
            elif key in _IN_LISTS or key == "oneOf":
                self._expect(value, list, path, key)
                if key == "oneOf" and "discriminator" not in node:
                    self._loosen(path, key)
                joins = joined or key == "allOf" or (key in ("anyOf", "oneOf") and "properties" in node)
                parts = [self.walk(part, path, refs, depth + 1, joins) for part in value]
                flat["anyOf" if key == "oneOf" else key] = parts
            elif key in _ONE:
                if key == "items" and isinstance(value, list):  # how older drafts wrote prefixItems
                    flat["prefixItems"] = [self.walk(part, path, refs, depth + 1) for part in value]
                else:
                    flat[key] = self.walk(value, path, refs, depth + 1)
            elif (key == "pattern" and _NOT_REGULAR.search(str(value))) or (
                key == "format" and value not in _FORMATS
            ):
                self._loosen(path, key)
            elif key in _KEPT or key == "format":
                flat[key] = value
            elif key.startswith(_MARK):
                self.marks.setdefault(key, []).append(path)
            elif key not in _NOISE:
                self._loosen(path, key)
        if "properties" in flat and not _OPEN & flat.keys() and not joined:
            flat["additionalProperties"] = False
        return flat

    def _reference(
        self, node: Mapping[str, Any], path: str, refs: tuple[str, ...], depth: int, joined: bool
    ) -> Any:
        ref = node["$ref"]
        target = self._find(ref)
        rest = {key: value for key, value in node.items() if key != "$ref"}
        joined = joined or not rest.keys() <= _ANNOTATIONS
        name = re.sub(r"\W+", "_", str(ref)).strip("_") or "root"
        if ref in refs:
            if name not in self.recursive:
                self.recursive[name] = {}  # it is on its way: the walk below may meet it again
                self.recursive[name] = self.walk(target, path, (ref,), depth + 1)
            flat: Any = {"$ref": f"#/$defs/{name}"}
        else:
            flat = self.walk(target, path, (*refs, ref), depth + 1, joined)
        if not rest or not isinstance(flat, dict):
            return flat
        more = self.walk(rest, path, refs, depth + 1, joined)
        if set(more) <= _ANNOTATIONS:
            return {**flat, **more}
        return {"allOf": [flat, more]}

    def _find(self, ref: object) -> Any:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise ManifestError(
                f"a schema that points elsewhere: {ref!r}", do="keep the whole schema in one place"
            )
        target: Any = self.root
        for step in ref[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or step not in target:
                raise ManifestError(f"a schema that points to nothing: {ref!r}")
            target = target[step]
        return target

    def _loosen(self, path: str, key: str) -> None:
        self.loosened.append(f"{path or '*'}: {key}")

    def _expect(self, value: object, kind: type, path: str, key: str) -> None:
        if not isinstance(value, kind):
            raise ManifestError(f"a schema whose {key!r} at {path or 'its root'} is {type(value).__name__}")
