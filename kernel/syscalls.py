"""Syscalls as a model sees them: the table in its window, the grammar of its words, the calls it wrote.

What: `SyscallTable` describes the granted syscalls for the chat template, compiles them to a grammar that admits
    exactly free text or valid calls, and reads calls back; `result_text` writes down what came of one.
Invariant: what the grammar lets through as a call parses, names a syscall of the table and has arguments that fit
    its schema. Free text never holds what could be taken for one.
Interface: `SyscallTable(syscalls, tokenizer)`: `.tools`, `.lark(...)`, `.read(tokens)`, `.settled(calls, ...)`;
    `Invocation`; `answer_lark`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import GrammarError
from llmos.kernel.arguments import settled

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall
    from llmos.drivers.weights import Tokenizer

OPEN, CLOSE = (
    "<tool_call>",
    "</tool_call>",
)  # the words of Hermes-style templates (Qwen, SmolLM); often one token each
_KEYS = "arguments|parameters"  # under which models give what they call its arguments
MAX_CALLS = 16  # in one answer; a model that wants more sees results first

# One space after separators, as models write it; a grammar that allowed any whitespace would let them ramble.
_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call as the model wrote it: a syscall's full name, and arguments that fit its schema."""

    syscall: str
    arguments: dict[str, Any]


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
        self, *, must_call: bool = False, no_call: bool = False, answer: Mapping[str, Any] | None = None
    ) -> str:
        """The grammar: free text, then any number of calls up to `MAX_CALLS`; with `must_call`, calls alone; with
        `no_call`, text alone, which does not begin as calls do; with a schema for the `answer`, either calls or
        JSON that fits it."""
        names = "|".join(re.escape(name).replace("/", r"\/") for name in self.syscalls)
        like_a_call = rf"({OPEN[:-1]}|\"({_KEYS})\"\s*:|\"(name|function)\"\s*:\s*\"({names})\")"
        if no_call:
            text = rf"/\s*[^\s<{{\[`](?s:.*)/ & ~/(?s:.*){like_a_call}(?s:.*)/"
            return f"%llguidance {{}}\nstart: TEXT\nTEXT: {text}\n"
        calls = [f"c{i}" for i in range(len(self.syscalls))]
        if self.open is not None:
            opening, closing = f"<[{self.open}]>", f"<[{self._close}]>"
            start, free = "TEXT? calls?", rf"~/(?s:.*){like_a_call}(?s:.*)/"
            text = ""
        else:  # letters open a call: free text ends where they stand for the first time
            opening, closing = _literal(OPEN), _literal(CLOSE)
            start, free = "TEXT? | until first more", rf"~/(?s:.*){like_a_call}(?s:.*)/"
            text = "until[lazy]: UNTIL\n" rf"UNTIL: /(?s:.*){OPEN}/ & ~/(?s:.*){like_a_call}(?s:..+)/"
        if must_call or answer is not None:
            start = "calls" if answer is None else f"calls | {_json(answer)}"
        lines = [
            f"start: {start}",
            rf"TEXT: /(?s:.+)/ & {free}",
            text,
            f"first: body {closing}",
            f'more: ("\\n"? call){{0,{MAX_CALLS - 1}}} "\\n"?',
            "calls: call more",
            f"call: {opening} first",
            rf'body: "\n" ({" | ".join(calls)}) "\n"',
        ]
        for rule, syscall in zip(calls, self.syscalls.values(), strict=True):
            lines.append(
                f"{rule}: {_literal(_head(syscall.name))} {_json(syscall.parameters)} {_literal('}')}"
            )
        return "%llguidance {}\n" + "\n".join(lines) + "\n"

    def read(self, tokens: Sequence[int]) -> tuple[str, list[Invocation]]:
        """What a process wrote under this grammar: its free text, and its calls. A call that was cut off
        (the answer reached its token limit) is not one."""
        text = b"".join(map(self._tokenizer.token_bytes, tokens)).decode("utf-8", "replace")
        said, *rest = text.split(OPEN) if self.open is None else self._split(tokens)
        return said, [self._invocation(body.partition(CLOSE)[0]) for body in rest if CLOSE in body]

    def settled(self, calls: Sequence[Invocation], asked: str, heard: str) -> list[Invocation]:
        """`calls` with their arguments held against what was said (see arguments.py)."""
        found = ((c.arguments, self.syscalls[c.syscall]) for c in calls)
        return [
            Invocation(s.name, settled(arguments, s.parameters, asked, heard, f"{s.name} {s.description}"))
            for arguments, s in found
        ]

    def _split(self, tokens: Sequence[int]) -> list[str]:
        """The text between opening tokens; only the token opens a call, not its letters."""
        parts: list[list[int]] = [[]]
        for token in tokens:
            if token == self.open:
                parts.append([])
            else:
                parts[-1].append(token)
        return [b"".join(map(self._tokenizer.token_bytes, p)).decode("utf-8", "replace") for p in parts]

    def _invocation(self, body: str) -> Invocation:
        try:
            call = json.loads(body)
            return Invocation(self.syscalls[call["name"]].name, dict(call["arguments"]))
        except (ValueError, KeyError, TypeError) as e:  # only where no grammar was in force
            raise GrammarError(
                f"{body.strip()[:80]!r} is not a call of this process", why=f"{type(e).__name__}: {e}"
            ) from None


def _head(name: str) -> str:
    """What a call begins with, up to its arguments."""
    return f'{{"name": {json.dumps(name)}, "arguments": '


def answer_lark(schema: Mapping[str, Any]) -> str:
    """The grammar of an answer that is JSON of that schema."""
    return f"%llguidance {{}}\nstart: {_json(schema)}\n"


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({'x-guidance': _STYLE, **schema})}"


def _literal(text: str) -> str:
    """`text` as a Lark string."""
    return json.dumps(text)


def result_text(value: object) -> str:
    """A result as it stands in the window: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def error_text(error: Mapping[str, str]) -> str:
    """An error as it stands in the window."""
    return json.dumps({"error": error}, ensure_ascii=False)
