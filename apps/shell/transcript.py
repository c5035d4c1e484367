"""How a turn is drawn for a person, and told to a program.

What: streams a turn's text as it comes, then its citations and its ledger; or all of it as one JSON object.
Invariant: the text goes to `out` and nothing else does; what the model wrote reaches a terminal neutralised.
Interface: `stream(turn, out, notes)`, `citation_lines`, `ledger`, `as_json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from textwrap import shorten
from typing import Any, Protocol, TextIO

from llmos.abi.events import Call, Citation, Done, Event, Result, ThoughtTree, Timings, Token, Usage
from llmos.drivers.terminal import dim, neutralise

WIDTH = 160  # characters of a call or result that are shown


class Turn(Protocol):
    """What is read of a turn that has ended."""

    @property
    def answer(self) -> str: ...
    @property
    def citations(self) -> Sequence[Citation]: ...
    @property
    def usage(self) -> Usage: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def confidence(self) -> float | None: ...
    @property
    def tree(self) -> ThoughtTree | None: ...


def stream(events: Iterable[Event], out: TextIO, notes: TextIO) -> None:
    """Writes the text of `events` to `out` as it comes, and what is about it to `notes` when it is over."""
    safe = neutralise if out.isatty() else str
    last = ""
    for event in events:
        if isinstance(event, Token) and event.text:
            out.write(safe(event.text))
            out.flush()
            last = event.text
        elif isinstance(event, (Call, Result)):
            out.flush()
            begin = "" if not last or last.endswith("\n") or not out.isatty() else "\n"
            notes.write(begin + dim(call_line(event), notes) + "\n")
            notes.flush()
        elif isinstance(event, Done):
            if not last.endswith("\n"):
                out.write("\n")
            out.flush()
            for line in citation_lines(event.citations):
                notes.write(line + "\n")
            notes.write(dim(ledger(event), notes) + "\n")
            notes.flush()


def call_line(event: Call | Result) -> str:
    """A call as it is made, or what came of it, on one line."""
    if isinstance(event, Call):
        arguments = ", ".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in event.arguments.items())
        return f"→ {event.syscall}({shorten(neutralise(arguments), WIDTH, placeholder=' …')})"
    return f"{'←' if event.ok else '✗'} {shorten(neutralise(event.text), WIDTH, placeholder=' …')}"


def citation_lines(citations: Sequence[Citation]) -> list[str]:
    """One line a citation: number, document and position."""
    return [f"[{c.number}] {neutralise(c.source)}, {neutralise(c.position)}" for c in citations]


def ledger(done: Done) -> str:
    """What the turn cost, on one line."""
    usage, timings = done.usage, done.timings
    parts = [
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens",
        f"{usage.cached_tokens} cached" if usage.cached_tokens else "",
        f"{usage.thinking_tokens} thought" if usage.thinking_tokens else "",
        f"{done.confidence:.0%} sure" if done.confidence is not None else "",
        f"{usage.pages} pages",
        f"{usage.faults} faults" if usage.faults else "",
        f"{usage.syscalls} syscalls" if usage.syscalls else "",
        f"first token {timings.first_token_s:.2f} s",
        f"{timings.decode_tokens_per_s:.1f} tokens/s" if timings.decode_tokens_per_s else "",
        f"{usage.citations_dropped} citations dropped" if usage.citations_dropped else "",
        {"length": "cut at the token limit", "cancelled": "cancelled", "error": "failed"}.get(
            done.reason, ""
        ),
    ]
    return " · ".join(part for part in parts if part)


def as_json(turn: Turn, model: str, *, calls: Sequence[Call] = (), ascii_only: bool = False) -> str:
    """The turn as one JSON object: answer, calls, citations, usage, timings, model; of one that thought also
    how sure it is, and its tree."""
    value: dict[str, Any] = {
        "answer": turn.answer,
        "calls": [{"syscall": c.syscall, "arguments": dict(c.arguments)} for c in calls],
        "citations": [{"source": c.source, "position": c.position, "text": c.text} for c in turn.citations],
        "usage": asdict(turn.usage),
        "timings": asdict(turn.timings),
        "model": model,
    }
    if turn.tree is not None:
        value |= {"confidence": turn.confidence, "tree": asdict(turn.tree)}
    return json.dumps(value, ensure_ascii=ascii_only, allow_nan=False)
