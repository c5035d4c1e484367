"""Safe YAML into frozen pydantic models, with errors that name file, line and key.

What: a reader of small YAML files (`llmos.yaml`, experts, the weights catalogue).
Invariant: no byte of the file chooses a Python type or makes memory grow: tags, anchors and aliases are
    refused, depth and size are bounded, plain scalars follow YAML 1.2's core schema (so `no` is a text and
    `12:30` is a text). A key given twice is an error, not the last one's victory.
Interface: `read(path, Model)`, `parse(text, Model, file=...)`, and `check(values, Model)` for values that
    came from elsewhere (keyword arguments). Each raises `ConfigError` and nothing else.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmos.abi.errors import ConfigError
from llmos.abi.limits import MAX_CONFIG_BYTES

M = TypeVar("M", bound=BaseModel)
Key = tuple[str | int, ...]
Lines = dict[Key, int]

MAX_DEPTH = 32  # nested lists and mappings; a configuration needs about five

_INT = re.compile(r"[-+]?[0-9]{1,18}|0x[0-9a-fA-F]{1,15}|0o[0-7]{1,20}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}


def read(path: str | os.PathLike[str], model: type[M]) -> M:
    """The file at `path` as a `model`."""
    file = os.fspath(path)
    try:
        with Path(file).open("rb") as f:
            data = f.read(MAX_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            "cannot be read", why=why or str(error), do="check the path and its permissions", file=file
        ) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"larger than {MAX_CONFIG_BYTES >> 20} MiB",
            why="a configuration is small: this is probably another file",
            do="check the path",
            file=file,
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "not UTF-8",
            why=f"byte 0x{data[error.start]:02x} at offset {error.start} cannot be decoded",
            do="save the file as UTF-8",
            file=file,
            line=data.count(b"\n", 0, error.start) + 1,
        ) from None
    return parse(text, model, file=file)


def parse(text: str, model: type[M], *, file: str = "<text>") -> M:
    """`text` as a `model`; `file` is what the errors call it. An empty text is an empty mapping."""
    values, lines = _Builder(file).build(text)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(
            "not a mapping",
            why=f"the top level is {_kind(values)}",
            do=f"write `key: value` lines; the keys are {_listed(model.model_fields)}",
            file=file,
            line=lines.get((), 1),
        )
    return check(values, model, file=file, lines=lines)


def check(
    values: Mapping[str, object], model: type[M], *, file: str = "", lines: Mapping[Key, int] | None = None
) -> M:
    """`values` as a `model`; relative paths are taken from the folder of `file`, if one is given."""
    try:
        folder = {"folder": Path(file).absolute().parent} if file else None
        return model.model_validate(values, context=folder)
    except ValidationError as error:
        details = error.errors(include_url=False)
        details.sort(key=lambda d: d["type"] != "extra_forbidden")  # a misspelt key explains a missing one
        raise _config_error(details, model, file, lines or {}) from None


# --- text to values -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Frame:
    """An open list or mapping."""

    value: dict[str, object] | list[object]
    path: Key
    key: str | None = None


@dataclass(slots=True)
class _Builder:
    """Builds values from the parser's events, without recursion and without PyYAML's constructors."""

    file: str
    lines: Lines = field(default_factory=dict)
    stack: list[_Frame] = field(default_factory=list)
    root: object = None
    documents: int = 0

    def build(self, text: str) -> tuple[object, Lines]:
        try:
            for event in yaml.parse(text, Loader=yaml.SafeLoader):
                self._event(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ConfigError(
                "not YAML",
                why=" ".join(p for p in (error.context, error.problem) if p),
                do="check the indentation, the quotes and the colons there",
                file=self.file,
                line=mark.line + 1 if mark else 0,
            ) from None
        except yaml.YAMLError as error:  # a character that YAML does not allow
            position = getattr(error, "position", None)
            raise ConfigError(
                "not YAML",
                why=str(error).splitlines()[0],
                do="remove that character",
                file=self.file,
                line=text.count("\n", 0, position) + 1 if position is not None else 0,
            ) from None
        except (ValueError, OverflowError) as error:  # PyYAML hands the escape "\U7fffffff" to chr()
            do = "check the escapes in quotes"
            raise ConfigError("not YAML", why=str(error), do=do, file=self.file) from None
        return self.root, self.lines

    def _event(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise self._refuse(line, "a second document", "write one document a file")
            case yaml.AliasEvent():
                raise self._refuse(line, f"the alias *{event.anchor}", "write the value out")
            case yaml.ScalarEvent() | yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                if event.anchor:
                    raise self._refuse(line, f"the anchor &{event.anchor}", "remove it: aliases are not read")
                if event.tag and event.tag != "!":
                    raise self._refuse(line, f"the tag {event.tag}", "write a plain value")
                if isinstance(event, yaml.ScalarEvent):
                    self._scalar(event, line)
                else:
                    self._open(isinstance(event, yaml.MappingStartEvent), line)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self.stack.pop()

    def _refuse(self, line: int, what: str, do: str) -> ConfigError:
        why = "a configuration is plain data"
        return ConfigError(f"{what} is not allowed", why=why, do=do, file=self.file, line=line)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        plain = event.implicit[0] and event.style is None and not event.tag
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            if event.value in top.value:
                raise ConfigError(
                    "given twice",
                    why=f"it already stands on line {self.lines[(*top.path, event.value)]}",
                    do="keep one of the two",
                    file=self.file,
                    line=line,
                    key=_dotted((*top.path, event.value)),
                )
            top.key = event.value
            self.lines[(*top.path, event.value)] = line
            top.value[event.value] = None
            return
        self._put(_plain(event.value) if plain else event.value, line)

    def _open(self, mapping: bool, line: int) -> None:
        top = self.stack[-1] if self.stack else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            raise self._refuse(line, "a list or a mapping as a key", "use a text as the key")
        if len(self.stack) >= MAX_DEPTH:
            raise self._refuse(line, f"nesting deeper than {MAX_DEPTH}", "flatten it")
        value: dict[str, object] | list[object] = {} if mapping else []
        self.stack.append(_Frame(value, self._put(value, line)))

    def _put(self, value: object, line: int) -> Key:
        """Stores `value` where the parser stands; returns its key."""
        if not self.stack:
            self.root = value
            self.lines[()] = line
            return ()
        top = self.stack[-1]
        path: Key
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            top.value.append(value)
        else:
            assert top.key is not None
            path = (*top.path, top.key)
            top.value[top.key], top.key = value, None
        self.lines[path] = line
        return path


def _plain(text: str) -> object:
    """What an unquoted scalar means in YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


# --- complaints ---------------------------------------------------------------------------------------------


def _config_error(
    details: Sequence[ErrorDetails], model: type[BaseModel], file: str, lines: Mapping[Key, int]
) -> ConfigError:
    first = details[0]
    key = _known_path(first["loc"], model)
    same = [d for d in details if _known_path(d["loc"], model) == key]
    others = len({_known_path(d["loc"], model) for d in details}) - 1
    line = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 0)
    if first["type"] == "extra_forbidden":
        names = _fields_at(model, key[:-1])
        what, why = "unknown key", f"the keys here are {_listed(names)}"
        do = _nearest(str(key[-1]), names) or "remove it"
    elif first["type"] == "missing":
        what, why, do = "missing", "this key has no default", "add it"
    else:
        what = f"{_shown(first['input'])} is not allowed here"
        why = " or ".join(dict.fromkeys(_expected(d) for d in same)).replace(" or expected", " or")
        allowed = [str(d.get("ctx", {}).get("expected", "")) for d in same]
        choices = re.findall(r"'([^']*)'", " ".join(allowed))
        do = _nearest(str(first["input"]), choices) or "change the value"
    if others:
        do += f" ({others} more to mend after it)"
    return ConfigError(what, why=why, do=do, file=file, line=line, key=_dotted(key))


def _expected(detail: ErrorDetails) -> str:
    message = detail["msg"].replace("Input should be", "expected")
    message = message.removeprefix("Value error, ")
    message = re.sub(r"(a )?valid dictionary.*", "a mapping", message)
    message = re.sub(r"(a )?valid (tuple|list)", "a list", message).replace("a valid string", "a text")
    message = message.replace("a valid integer", "a whole number").replace("a valid boolean", "true or false")
    if detail["type"].endswith("_type") and "expected" in message:
        message += f", got {_kind(detail['input'])}"
    if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
        message += " (quote it to make it a text)"
    return message


def _known_path(loc: tuple[int | str, ...], model: type[BaseModel]) -> Key:
    """`loc` without the names of union members and validators that pydantic weaves into it."""
    path: list[str | int] = []
    at: Any = model
    for part in loc:
        inner = _step(at, part)
        if inner is None:
            if isinstance(at, type) and issubclass(at, BaseModel) and part != "[key]":
                path.append(part)  # the unknown key itself
            break
        path.append(part)
        at = inner
    return tuple(path)


def _step(at: Any, part: str | int) -> Any:
    """The annotation found under key or index `part` of annotation `at`; None where there is none."""
    if isinstance(at, type) and issubclass(at, BaseModel):
        found = next((f for name, f in at.model_fields.items() if (f.alias or name) == part), None)
        return _bare(found.annotation) if found else None
    origin, args = get_origin(at), get_args(at)
    if origin is dict:
        return _bare(args[1])
    if origin in (list, tuple) and isinstance(part, int):
        return _bare(args[0])
    return None


def _bare(annotation: Any) -> Any:
    """`annotation` without Annotated, and of a union its one member that is a container or a model."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (types.UnionType, typing.Union):
        members = [_bare(a) for a in get_args(annotation)]
        deep = [m for m in members if get_origin(m) or (isinstance(m, type) and issubclass(m, BaseModel))]
        return deep[0] if deep else annotation
    return annotation


def _fields_at(model: type[BaseModel], key: Key) -> list[str]:
    at: Any = model
    for part in key:
        at = _step(at, part)
    if not (isinstance(at, type) and issubclass(at, BaseModel)):
        return []
    return [found.alias or name for name, found in at.model_fields.items()]


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def _listed(names: typing.Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _dotted(key: Key) -> str:
    return ".".join(str(k) for k in key)


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    names |= {list: "a list", dict: "a mapping"}
    return names.get(type(value), type(value).__name__)
