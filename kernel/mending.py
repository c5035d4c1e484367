"""Mending: what an error says of the call that it ended.

What: which errors another call may mend, what was wrong in the call, and what the error says there is in its place. A
    small model writes a failed call again word for word, whatever it is told; so the next one is held to what is known.
Invariant: pure functions of the call and the error's words, so a turn that is resumed mends as it did. An error's words
    choose among calls that the process may make anyway, never what it may.
Interface: `mendable(results)`; `faults(syscall, arguments, error)`, of `Fault`: `.pattern`, what is not written again,
    and `.lark(instead)`, the arguments with something else in its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall
    from llmos.kernel.engine.unsaid import Pattern

MAX_INSTEAD = 24  # names that are offered in the place of a wrong one
_MENDABLE = re.compile(r'\{"error": \{"type": "(AppFailed|BadArguments)", "message": ("(?:[^"\\]|\\.)*")')
_QUOTED = re.compile(r"""['"`‘“]([^'"`‘’“”\n]{2,80})['"`’”]|(?:^|[ :])([^\s:'‘]{2,80}): No such file""")
_INSTEAD = re.compile(r"(?i)(?:\b(?:are|is): |\bthere (?:is|are) (?!no\b)|\bdid you mean )([^\n\]]+)")
_NAME = re.compile(r"'([^']*)'")
_CHARACTERS = r"""([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4})*"""  # of a JSON text


def mendable(results: str, *, undone: bool = False) -> list[str]:
    """The errors among results that another call may mend, in words: those that an app's own code tells of, and
    arguments that do not fit; with `undone` the latter alone, after which nothing has happened. What was denied, is
    not there or takes too long is the same the next time."""
    found = _MENDABLE.findall(results)
    return [json.loads(text) for kind, text in found if not undone or kind == "BadArguments"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What was wrong in a call: `wrong`, in a text between `before` and `behind` of the arguments, all as JSON;
    `instead`: what there is."""

    syscall: str
    before: str
    wrong: str
    behind: str
    instead: tuple[str, ...]
    longer: bool  # the error tells of longer words that begin like it

    @property
    def pattern(self) -> Pattern:
        """What is not to be written again: the wrong words where they stood (`'prise` of "df['prise']")."""
        return (f"{self.before[-1]}{self.wrong}{self.behind[:1] if self.longer else ''}",)

    def lark(self, instead: Sequence[str]) -> str:
        """The arguments with one of these in the wrong words' place; the rest of that text is free."""
        others = " | ".join(map(_text, instead))
        tail = self.behind[re.match(rf"{_CHARACTERS}", self.behind).end() :]  # type: ignore[union-attr]
        return f"{_text(self.before)} ({others}) /{_CHARACTERS}/ {_text(tail)}"


def faults(syscall: Syscall, arguments: Mapping[str, Any], error: str) -> Iterator[Fault]:
    """What an error names in a call: the last quoted words that stand in one of its texts. A text that has to be one of
    a list is left alone; of one that has to fit a pattern nobody knows what else would."""
    described = syscall.parameters.get("properties", {})
    for words in reversed(["".join(found) for found in _QUOTED.findall(error)]):
        for name, value in arguments.items():
            if not isinstance(value, str) or {"enum", "const", "format"} & described.get(name, {}).keys():
                continue
            at = re.search(rf"(?<!\w){re.escape(words)}(?!\w)", value)
            if at is None:
                continue
            marked = _text({**arguments, name: f"{value[: at.start()]}\0{value[at.end() :]}"})
            before, _, behind = marked.partition(_text("\0")[1:-1])
            longer = re.search(rf"(?<!\w){re.escape(words)}\w", error) is not None
            others = [] if "pattern" in described.get(name, {}) else _instead(error)
            instead = tuple(_text(other)[1:-1] for other in others if other != words)
            yield Fault(syscall.name, before, _text(words)[1:-1], behind, instead, longer)
            return


def _instead(error: str) -> list[str]:
    """The names that an error lists as those there are."""
    for listed in reversed(_INSTEAD.findall(error)):
        names = _NAME.findall(listed) or re.sub(r" and \d+ more$| and more$", "", listed.rstrip(".?")).split(
            ", "
        )
        if names := [name for name in names if 0 < len(name) <= 80]:
            return list(dict.fromkeys(names))[:MAX_INSTEAD]
    return []


def _text(value: object) -> str:
    """As JSON, which is also how Lark writes a text down."""
    return json.dumps(value, ensure_ascii=False)
