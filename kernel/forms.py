"""Literals that say by their form what they are for: an expression, a date, the name of a file.

What: the forms of values that stand in a question, and of the examples by which a syscall's parameters show what they
    take. `takes(syscall, question)` says whether the question holds a value of a form that the syscall takes.
Invariant: pure functions of text; a form is told by its signs alone, never by the words around it.
Interface: `takes(syscall, question)`, `as_said(value, description, asked)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall


def _file(endings: str) -> str:
    return rf"(?i)(?<![\w./@:-])[\w-][\w./-]*\.(?:{endings.replace(' ', '|')})(?![\w/]|\.\w)"


_NUMBER = r"-?\d+(?:\.\d+)?"
_UNIT = (
    r"(?:(?:kilo|centi|milli)?(?:met(?:re|er)s?|lit(?:re|er)s?|grams?)|[kcm]m|kg|km/h|m/s|mph|knots?|miles?|yards?|feet|foot"
    r"|inch(?:es)?|pounds?|lbs?|ounces?|gallons?|pints?|acres?|hectares?|°\s?[CFK]|celsius|fahrenheit|kelvin)(?!\w)"
)
_DEGREES = r"(?:degrees\s+)?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form: as it stands in a question, and in a parameter's description (`example`; "" for the same)."""

    said: re.Pattern[str]
    example: re.Pattern[str]

    @classmethod
    def of(cls, said: str, example: str = "") -> Form:
        return cls(said=re.compile(said), example=re.compile(example or said))


FORMS = (
    Form.of(r"\d\s*[*×÷^+]\s*\d|\d\s+[-/]\s+\d|\d\s*%\s*of\b"),  # expressions
    Form.of(r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)", r"YYYY-MM-DD|(?<!\d)\d{4}-\d\d-\d\d(?!\d)"),  # dates
    Form.of(  # lists of numbers
        rf"(?:{_NUMBER},\s*){{2,}}(?:and\s+)?{_NUMBER}|(?:{_NUMBER},\s*)+{_NUMBER},?\s+and\s+{_NUMBER}",
        rf"\[{_NUMBER}(?:,\s*{_NUMBER})+\]",
    ),
    Form.of(  # quantities in another unit
        rf"(?i)\d\s*{_DEGREES}{_UNIT}\s+(?:in|to|into)\s+{_DEGREES}{_UNIT}"
        rf"|\bhow many {_UNIT} (?:is|are|in)\b[^?!]*\d\s*{_DEGREES}{_UNIT}",
        rf"\d {_UNIT} to {_UNIT}",
    ),
    Form.of(r"\bhttps?://\w"),
    Form.of(_file("png jpg jpeg gif webp bmp tif tiff svg")),
    Form.of(_file("zip tar gz tgz bz2 xz 7z")),
    Form.of(_file("wav mp3 flac ogg m4a webm aac opus")),
    Form.of(
        _file(
            "txt md rst csv tsv json jsonl yaml yml toml xml html htm pdf doc docx odt rtf xls xlsx ods ppt pptx epub "
            "log ini cfg conf env py js ts c h cc cpp java go rs rb sh sql tex"
        )
    ),
)


def takes(syscall: Syscall, question: str) -> bool:
    """Whether a parameter of this syscall shows an example of a form that stands in the question."""
    forms = [form for form in FORMS if form.said.search(question)]
    properties = syscall.parameters.get("properties", {}).values() if forms else ()
    shown = [str(p.get("description", "")) for p in properties if isinstance(p, dict)]
    return any(form.example.search(text) for form in forms for text in shown)


def as_said(value: str, description: str, asked: str) -> str:
    """`value` with the example of a parameter's description, where a model has copied it, as the one value of that form
    that stands in the question."""
    for form in FORMS:
        said = set(form.said.findall(asked))
        copied = {shown for shown in form.said.findall(description) if shown in value} - said
        if len(said) == 1 and len(copied) == 1:
            value = value.replace(copied.pop(), said.pop())
    return value
