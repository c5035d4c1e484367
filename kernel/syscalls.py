"""Syscalls as a model sees them: the table in its window, the grammar of its words, the calls it wrote.

What: `SyscallTable` describes the granted syscalls for the chat template, compiles them to a grammar that admits
    exactly free text or valid calls, and reads calls back; `result_text` writes down what came of one.
Invariant: what the grammar lets through as a call parses, names a syscall of the table and has arguments that fit
    its schema. Free text never holds what could be taken for one.
Interface: `SyscallTable(syscalls, tokenizer)`: `.tools`, `.lark(...)`, `.read(tokens)`, `.rounds(tokens)`,
    `.settled(calls, ...)`; `Invocation`, `Round`; `answer_lark`; `error_text`.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import GrammarError
from llmos.kernel.arguments import settled, wanted
from llmos.kernel.engine.grammar import Rules
from llmos.kernel.pythonic import MEDIA, python_rules
from llmos.kernel.shown import narrowed

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.engine.unsaid import Pattern
    from llmos.kernel.mending import Fault

OPEN, CLOSE = (
    "<tool_call>",
    "</tool_call>",
)  # the words of Hermes-style templates (Qwen, SmolLM); often one token each
_NAMES, _ARGUMENTS = (
    ("name", "function"),
    ("arguments", "parameters"),
)  # the keys under which models give a function and what it is called with
_SIGNS = r"<>{}()\[\]`|&%~^\\\/=:;,!?@"  # of code: who may not begin a call with `{` begins it with `>{`
# Who speaks of the question, or of the call, does not answer.
_ASIDE = (
    r"\s*((The|This|Your) (question|user|request|tool|response|function)"
    r"|(Here|This) is the (result|response))(?s:.*)"
)
_TOLD = ("Tell", "the", "user")  # what the model is told behind results (`telling.TELL`) is nothing to tell
MAX_CALLS = 16  # in one answer; a model that wants more sees results first

# One space after separators, as models write it; a grammar that allowed any whitespace would let them ramble.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call as the model wrote it: a syscall's full name, and arguments that fit its schema. `failed`: how the same,
    word for word, failed before in its turn."""

    syscall: str
    arguments: dict[str, Any]
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """The calls of one answer, and what stands in the window behind them, the results first of all."""

    calls: tuple[Invocation, ...]
    results: str


class SyscallTable:
    """The syscalls that one process was granted."""

    def __init__(self, syscalls: Sequence[Syscall], tokenizer: Tokenizer) -> None:
        self.syscalls = {s.name: s for s in syscalls}
        self._tokenizer = tokenizer
        self.open, self._close = tokenizer.control_id(OPEN), tokenizer.control_id(CLOSE)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The table as chat templates take it."""
        return [
            {
                "type": "function",
                "function": {"name": s.name, "description": s.description, "parameters": s.parameters},
            }
            for s in self.syscalls.values()
        ]

    def lark(
        self,
        *,
        must_call: bool = False,
        no_call: bool = False,
        answer: Mapping[str, Any] | None = None,
        asked: str = "",
        faults: Sequence[Fault] = (),
        verbatim: str = "",
    ) -> Rules:
        """The grammar: free text, then any number of calls up to `MAX_CALLS`; with `must_call`, calls alone; with
        `no_call`, text alone, which does not begin as calls do, or which is `verbatim`; with a schema for the
        `answer`, either calls or JSON that fits it. `asked`: the question, for a model that is helped: calls take up
        its words (`arguments.wanted`), and the forms that parameters describe (shown.py);
        `faults`: of calls that failed, which calls that have to be made do not have; where the last one's error says
        what there is in its place, that call is made with it. A program that a helped model writes parses."""
        unsaid = tuple(like_calls(self.syscalls))
        if no_call and verbatim:
            return Rules(f"%llguidance {{}}\nstart: {_literal(verbatim)}\n")
        if no_call:
            return Rules(
                f"%llguidance {{}}\nstart: TEXT\nTEXT: /\\s*[^\\s{_SIGNS}](?s:.*)/ & ~/{_ASIDE}/\n",
                (*unsaid, _TOLD),
            )
        calls = [f"c{i}" for i in range(len(self.syscalls))]
        text = []
        if must_call or answer is not None:
            start = "calls" if answer is None else f"calls | {_json(answer)}"
            unsaid = tuple(fault.pattern for fault in faults)
        elif self.open is not None:
            start, text = "TEXT? calls?", ["TEXT: /(?s:.+)/"]
        else:  # letters open a call: free text ends where they stand for the first time
            start, text, unsaid = "TEXT? | until first more", _until_opened(unsaid), ()
        opening, closing = (
            (f"<[{self.open}]>", f"<[{self._close}]>")
            if self.open is not None
            else (_literal(OPEN), _literal(CLOSE))
        )
        lines = [
            f"start: {start}",
            *text,
            f"first: body {closing}",
            f'more: ("\\n"? call){{0,{MAX_CALLS - 1}}} "\\n"?',
            "calls: call more",
            f"call: {opening} first",
            rf'body: "\n" ({" | ".join(calls)}) "\n"',
        ]
        if must_call and (mended := _mended(faults)):
            lines = [f"start: {opening} body {closing}", rf'body: "\n" {mended} "}}\n"']
            return Rules("%llguidance {}\n" + "\n".join(lines) + "\n")
        programs = False
        for rule, syscall in zip(calls, self.syscalls.values(), strict=True):
            schema: Mapping[str, Any] = syscall.parameters
            if asked and not faults:
                schema = wanted(narrowed(schema), asked)
            arguments = _program(schema) if asked else ""
            programs = programs or bool(arguments)
            lines.append(
                f"{rule}: {_literal(_head(syscall.name))} {arguments or _json(schema)} {_literal('}')}"
            )
        if programs:
            lines.append(python_rules())
        return Rules("%llguidance {}\n" + "\n".join(lines) + "\n", unsaid, None if faults else self.open)

    def read(self, tokens: Sequence[int]) -> tuple[str, list[Invocation]]:
        """What a process wrote under this grammar: its free text, and its calls. A call that was cut off
        (the answer reached its token limit) is not one."""
        said, *rest = self._bodies(tokens)
        return said, [self._invocation(body.partition(CLOSE)[0]) for body in rest if CLOSE in body]

    def rounds(self, tokens: Sequence[int]) -> list[Round]:
        """The calls in a stretch of a window, whoever wrote it, answer by answer: those of this table; what does not
        parse is none."""
        found: list[Round] = []
        calls: list[Invocation] = []
        for body in self._bodies(tokens)[1:]:
            call, _, behind = body.partition(CLOSE)
            with contextlib.suppress(GrammarError):
                calls.append(self._invocation(call))
            if behind.strip():
                found.append(Round(tuple(calls), behind))
                calls = []
        return [*found, Round(tuple(calls), "")] if calls else found

    def reads_as_call(self, text: str) -> bool:
        """Whether free text may not hold these words, which could be taken for a call."""
        return bool(re.search(_patterns(like_calls(self.syscalls)), text))

    def only(self, syscalls: Sequence[Syscall]) -> SyscallTable:
        """The same for some of its syscalls."""
        return SyscallTable(syscalls, self._tokenizer)

    def settled(self, calls: Sequence[Invocation], asked: str, heard: str) -> list[Invocation]:
        """`calls` with their arguments held against what was said (see arguments.py)."""
        found = ((c.arguments, self.syscalls[c.syscall]) for c in calls)
        return [
            Invocation(
                s.name,
                settled(arguments, narrowed(s.parameters), asked, heard, f"{s.name} {s.description}"),
            )
            for arguments, s in found
        ]

    def _bodies(self, tokens: Sequence[int]) -> list[str]:
        """The text before the first call, and what follows each opening of one. Where a token opens calls, its letters
        do not."""
        parts: list[list[int]] = [[]]
        for token in tokens:
            if token == self.open:
                parts.append([])
            else:
                parts[-1].append(token)
        texts = [b"".join(map(self._tokenizer.token_bytes, p)).decode("utf-8", "replace") for p in parts]
        return texts[0].split(OPEN) if self.open is None else texts

    def _invocation(self, body: str) -> Invocation:
        try:
            call = json.loads(body)
            return Invocation(self.syscalls[call["name"]].name, dict(call["arguments"]))
        except (ValueError, KeyError, TypeError) as e:  # only where no grammar was in force
            raise GrammarError(
                f"{body.strip()[:80]!r} is not a call of this process", why=f"{type(e).__name__}: {e}"
            ) from None


def like_calls(names: Iterable[str]) -> Iterator[Pattern]:
    """What text that could be taken for a call of one of `names` holds."""
    yield from ((tag[:-1],) for tag in (OPEN, CLOSE))
    yield from ((f'"{key}"', ":") for key in _ARGUMENTS)
    yield from ((f'"{key}"', ":", json.dumps(name)) for key in _NAMES for name in names)
    yield from ((name, "(") for name in names if "." in name)


def _until_opened(unsaid: Iterable[Pattern]) -> list[str]:
    """The rules of free text, and of text up to the letters that open a call. Where letters end it, what it must not
    hold is part of the grammar itself."""
    patterns = _patterns(unsaid)
    return [
        f"TEXT: /(?s:.+)/ & ~/(?s:.*)({patterns})(?s:.*)/",
        "until[lazy]: UNTIL",
        f"UNTIL: /(?s:.*){_regex(OPEN)}/ & ~/(?s:.*)({patterns})(?s:..+)/",
    ]


def _patterns(unsaid: Iterable[Pattern]) -> str:
    """Any of these, as a regular expression."""
    return "|".join(r"[ \t\r\n\f\v]*".join(map(_regex, parts)) for parts in unsaid)


def _regex(text: str) -> str:
    return re.escape(text).replace("/", r"\/")


def _head(name: str) -> str:
    """What a call begins with, up to its arguments."""
    return f'{{"name": {json.dumps(name)}, "arguments": '


def answer_lark(schema: Mapping[str, Any]) -> Rules:
    """The grammar of an answer that is JSON of that schema."""
    return Rules(f"%llguidance {{}}\nstart: {_json(schema)}\n")


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({'x-guidance': _STYLE, **schema})}"


def _program(schema: Mapping[str, Any]) -> str:
    """Arguments whose first is a program, of which the grammar knows more than that it is text; "" for others."""
    (first, about), *others = list(schema.get("properties", {}).items()) or [("", {})]
    needed = schema.get("required", ())
    if about.get("contentMediaType") != MEDIA or first not in needed:
        return ""
    rest = (
        f"({_literal(f', {json.dumps(name)}: ')} {_json(given)}){'' if name in needed else '?'}"
        for name, given in others
    )
    opening, closing = _literal(f'{{{json.dumps(first)}: "'), _literal('"')
    return " ".join([opening, "python", closing, *rest, _literal("}")])


def _mended(faults: Sequence[Fault]) -> str:
    """The last call that failed, with what there is in place of what was wrong; "" where nobody says what there is."""
    instead = (
        [other for other in faults[-1].instead if other not in {f.wrong for f in faults}] if faults else []
    )
    return f"{_literal(_head(faults[-1].syscall))} {faults[-1].lark(instead)}" if instead else ""


def _literal(text: str) -> str:
    """`text` as a Lark string."""
    return json.dumps(text)


def result_text(value: object) -> str:
    """A result as it stands in the window: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def error_told(error: BaseException) -> dict[str, str]:
    """An error as the journal keeps it."""
    return {"type": type(error).__name__, "message": str(error)}


def error_text(error: Mapping[str, str]) -> str:
    """An error as it stands in the window."""
    return json.dumps({"error": error}, ensure_ascii=False)
