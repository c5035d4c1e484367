"""Data sets: from files as the Hugging Face world writes them to examples of tokens.

What: JSON lines of conversations (`messages`, or `prompt` and `completion`), of preference pairs (`chosen` and
    `rejected` beside `messages` or `prompt`), and plain text.
Invariant: nothing is skipped and nothing cut in silence: a row that cannot be learnt from is BadExamples, with the
    file, the row and what is wrong. What counts as a target is what the assistant says, and the token that ends it.
    Content never becomes a control token: conversations pass through the model's own template, as when serving.
Interface: `read_rows(path)`, `Conversations(weights, length)`: `.example(row)`, `.pair(row)`; `text_stream(...)`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmos.abi.errors import BadExamples, TemplateError
from llmos.abi.limits import MAX_DOCUMENT_BYTES
from llmos.kernel.learn.packing import Example

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.template import Piece

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a data set, and where it stands."""

    place: str  # "FILE:LINE"
    fields: Mapping[str, Any]

    def bad(self, why: str) -> BadExamples:
        """What is wrong with it, as an error."""
        return BadExamples(
            f"{self.place} cannot be learnt from", why=why, do="mend or take out the row; nothing was trained"
        )


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSONL file, UTF-8.

    Raises:
        BadExamples: not there, empty, too large, not UTF-8, a line that is no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > MAX_DOCUMENT_BYTES:
            raise BadExamples(
                f"{path} has {size >> 20} MiB",
                why=f"a data set is read whole, up to {MAX_DOCUMENT_BYTES >> 20} MiB",
                do="cut it into several files and name them all",
            )
        raw = path.read_bytes()
    except OSError as error:
        raise BadExamples(
            f"{path} cannot be read", why=error.strerror or str(error), do="check the path"
        ) from None
    rows = []
    for number, line in enumerate(raw.splitlines(), 1):
        if line.strip():
            rows.append(_row(f"{path}:{number}", line))
    if not rows:
        raise BadExamples(f"{path} holds no rows", do="one JSON object a line: see docs/learning.md")
    return rows


def _row(place: str, line: bytes) -> Row:
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        why = f"byte {error.start} of the line is not UTF-8"
        raise BadExamples(f"{place} is not text", why=why, do="save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadExamples(f"{place} is not JSON", why=str(error), do="one JSON object a line") from None
    if not isinstance(fields, dict):
        raise BadExamples(f"{place} is no JSON object", why=f"it is {type(fields).__name__}")
    return Row(place, fields)


class Conversations:
    """Conversations as the tokens that the model would see and write."""

    def __init__(self, weights: Weights, length: int) -> None:
        self.tokenizer, self.length = weights.tokenizer(), length
        self._template = weights.template()

    def example(self, row: Row) -> Example:
        """All that the assistant says counts; where there is a `completion`, that alone.

        Raises:
            BadExamples: wrong fields, a conversation that the template refuses, longer than the window.
        """
        return self._example(row, _messages(row), last="completion" in row.fields)

    def pair(self, row: Row) -> tuple[Example, Example]:
        """(chosen, rejected): the same question, and of each the answer alone counts. Raises as `example`."""
        asked = _asked(row)
        answers = [_answer(row, name) for name in ("chosen", "rejected")]
        if answers[0] == answers[1]:
            raise row.bad("chosen and rejected are the same")
        chosen, rejected = (self._example(row, [*asked, answer], last=True) for answer in answers)
        return chosen, rejected

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """The tokens of a conversation up to where the assistant is to speak."""
        pieces = self._template.render(messages, add_generation_prompt=True)
        return list(chain.from_iterable(self.tokenizer.encode_pieces(pieces)))

    def _example(self, row: Row, messages: list[dict[str, str]], last: bool = False) -> Example:
        try:
            pieces = self._template.render(messages, add_generation_prompt=False)
        except TemplateError as error:
            raise row.bad(str(error)) from None
        ids, counts = list[int](), list[bool]()
        spoken = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        counted = set(spoken[-1:] if last else spoken)
        tokens = self.tokenizer.encode_pieces(pieces)
        previous: int | None = None
        for piece, piece_ids in zip(pieces, tokens, strict=True):
            mine = piece.message in counted and not piece.control
            ends = piece.control and previous in counted
            first_end = self._ends(piece, piece_ids) if ends else 0
            ids += piece_ids
            counts += [mine or i < first_end for i in range(len(piece_ids))]
            previous = piece.message if not piece.control else None
        if not any(counts):
            raise row.bad("the assistant says nothing in it")
        if len(ids) > self.length:
            raise row.bad(f"it has {len(ids)} tokens, the window {self.length}: raise --window or shorten it")
        return Example(np.asarray(ids, np.int32), np.asarray(counts, np.float32))

    def _ends(self, piece: Piece, ids: list[int]) -> int:
        """How many tokens of a template's piece behind an answer end the answer: up to the first that ends a turn."""
        return next((n for n, i in enumerate(ids, 1) if i in self.tokenizer.eos_ids), 0)


def _text(row: Row, value: object, name: str) -> str:
    if not isinstance(value, str):
        raise row.bad(f"{name} is {type(value).__name__}, not text")
    return value


def _list(row: Row, value: object, name: str) -> list[dict[str, str]]:
    if not isinstance(value, list) or not value:
        raise row.bad(f"{name} is not a list of messages")
    out = []
    for i, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise row.bad(f"{name}[{i}] has no role of {', '.join(ROLES)}")
        out.append(
            {"role": message["role"], "content": _text(row, message.get("content"), f"{name}[{i}].content")}
        )
    return out


def _asked(row: Row) -> list[dict[str, str]]:
    """The question: `messages`, or `prompt` as text or messages."""
    if "messages" in row.fields:
        return _list(row, row.fields["messages"], "messages")
    prompt = row.fields.get("prompt")
    if isinstance(prompt, list):
        return _list(row, prompt, "prompt")
    if prompt is None:
        raise row.bad("it has neither messages nor a prompt")
    return [{"role": "user", "content": _text(row, prompt, "prompt")}]


def _answer(row: Row, name: str) -> dict[str, str]:
    value = row.fields.get(name)
    if isinstance(
        value, list
    ):  # as TRL writes it: a list with the assistant's message, or the whole conversation
        value = _list(row, value, name)[-1]["content"]
    return {"role": "assistant", "content": _text(row, value, name)}


def _messages(row: Row) -> list[dict[str, str]]:
    asked = _asked(row)
    return [*asked, _answer(row, "completion")] if "completion" in row.fields else asked


def text_stream(tokens: Iterable[Sequence[int]], end: int, length: int) -> Iterator[Example]:
    """Documents one behind the other, each ended by `end`, in examples of `length` tokens that overlap by one, so that
    every token is predicted once. The last may be shorter."""
    held = [end]
    for document in tokens:
        held += [*document, end]
        while len(held) > length:
            yield _whole(held[:length])
            held = held[length - 1 :]
    if len(held) > 1:
        yield _whole(held)


def _whole(ids: Sequence[int]) -> Example:
    weights = np.ones(len(ids), np.float32)
    weights[0] = 0
    return Example(np.asarray(ids, np.int32), weights)
