"""The questions of the Berkeley Function Calling Leaderboard, and its own checker.

What: `simple_python` (one function, which fits) and `irrelevance` (one, which does not), each in two halves by the
    sha256 of a question's id; functions as syscalls; `right` asks bfcl-eval's own checker; `parse` finds calls in free
    text, however they are written.
Invariant: nothing of it is copied here: questions, functions and answers are read from the installed package. Settings
    are chosen on the half "tuning", figures come from the half "published".
Interface: `questions(category, half)`, `Question` (`.syscalls`, `.right(calls)`), `parse(text)`.

Source: Patil et al. 2025, The Berkeley Function Calling Leaderboard. Its package requires the clients of many vendors;
the checker needs none of them: install it by `pip install --no-deps bfcl-eval`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from llmos.abi.errors import ConfigError
from llmos.abi.manifest import Syscall
from llmos.abi.schema import simplify
from llmos.kernel.arguments import numbers_as_declared

Category = Literal["simple_python", "irrelevance"]
Half = Literal["tuning", "published"]
Made = tuple[str, Mapping[str, Any]]  # a call: the function's name and its arguments

_VENDORS = "bfcl_eval.constants.model_config"
_US = "llmos"


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its one function; `answer` is what the checker compares with, None where no call is right."""

    id: str
    text: str
    function: Mapping[str, Any]
    answer: Sequence[Mapping[str, Any]] | None

    @property
    def syscall(self) -> Syscall:
        """The function, for a process to be given. Nobody carries it out."""
        f = self.function
        parameters = simplify(_json_schema(f["parameters"])).schema
        return Syscall(
            name=f["name"], tool=f["name"], description=f["description"], parameters=parameters,
            effect="none", retry="safe", returns="user", deadline=1.0,
        )  # fmt: skip

    def right(self, calls: Sequence[Made]) -> bool:
        """Whether these calls answer it: none where no function fits, else as bfcl-eval judges. A whole number
        counts as a float where one is wanted, as it would on its way into a typed app."""
        if self.answer is None:
            return not calls
        parameters = self.syscall.parameters
        output = [{name: numbers_as_declared(dict(given), parameters)} for name, given in calls]
        verdict = _checker()([self.function], output, self.answer)
        return bool(verdict["valid"])


def questions(category: Category, half: Half) -> list[Question]:
    """One half of a category.

    Raises:
        ConfigError: bfcl-eval is not installed.
    """
    folder = _folder() / "data"
    answers = {}
    if category == "simple_python":
        answers = {a["id"]: a["ground_truth"] for a in _lines(folder / "possible_answer" / _file(category))}
    return [
        Question(q["id"], q["question"][0][-1]["content"], q["function"][0], answers.get(q["id"]))
        for q in _lines(folder / _file(category))
        if hashlib.sha256(q["id"].encode()).digest()[-1] % 2 == (half == "published")
    ]


def parse(text: str) -> list[Made]:
    """The calls in a text, however they are written: between tags, in fences, or as bare JSON. An object is a call
    where it names something and gives it arguments."""
    found: list[Made] = []
    at = 0
    decoder = json.JSONDecoder(strict=False)
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except ValueError:
            at += 1
            continue
        made = list(_calls(value))
        found += made
        at = end if made else at + 1
    return found


def _calls(value: Any) -> Iterator[Made]:
    if not isinstance(value, dict):
        return
    inner = value.get("function")
    if isinstance(inner, dict):
        yield from _calls(inner)
        return
    name = value.get("name", inner)
    given = value.get("arguments", value.get("parameters"))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return
    if isinstance(name, str) and isinstance(given, dict):
        yield name, given


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text().splitlines())


def _file(category: str) -> str:
    return f"BFCL_v4_{category}.json"


def _folder() -> Path:
    found = importlib.util.find_spec("bfcl_eval")
    if found is None or found.origin is None:
        raise ConfigError("bfcl-eval is not installed", do="pip install --no-deps bfcl-eval")
    return Path(found.origin).parent


def _json_schema(given: Any) -> Any:
    """BFCL's schemas name types as Python does; its own table says what they are in JSON schema."""
    from bfcl_eval.constants.type_mappings import GORILLA_TO_OPENAPI

    if not isinstance(given, Mapping):
        return given
    schema = {k: v for k, v in given.items() if k in ("description", "enum", "default", "format", "required")}
    if isinstance(kind := given.get("type"), str):
        schema["type"] = GORILLA_TO_OPENAPI[kind]
    if "properties" in given:
        schema["properties"] = {name: _json_schema(part) for name, part in given["properties"].items()}
    if "items" in given:
        schema["items"] = _json_schema(given["items"])
    return schema


@cache
def _checker() -> Any:
    """bfcl-eval's checker of calls. It looks its vendors up only to learn whether one writes _ for a dot, which we do
    not, so their list stands aside while it is imported."""
    vendors = ModuleType(_VENDORS)
    vendors.MODEL_CONFIG_MAPPING = {_US: SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    before = sys.modules.get(_VENDORS)
    sys.modules[_VENDORS] = vendors
    try:
        from bfcl_eval.constants.enums import Language
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    finally:
        del sys.modules[_VENDORS]
        if before is not None:
            sys.modules[_VENDORS] = before

    def check(functions: Any, output: Any, answer: Any) -> Any:
        return ast_checker(functions, output, answer, Language.PYTHON, "simple_python", _US)

    return check


def looks_like_a_call(text: str) -> bool:
    """Whether somebody might take `text` for a call."""
    return bool(parse(text)) or bool(re.search(r"</?tool_call", text))
