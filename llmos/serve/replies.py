"""From events to replies, whole or in chunks.

What: `ChatReply` and `TextReply` write down what the turns of a request tell, as the protocol has it.
Invariant: a streamed reply, put together again, is the whole one. Only what the turns said is in it.
Interface: `ChatReply(kernel, request, choices)`: `.take(index, event)` gives the chunks that an event makes,
    `.opening()` those before any, `.closing()` those after all; `.whole()` is the reply in one piece.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import Cancelled
from llmos.abi.events import Call, Done, Event, Token, Usage
from llmos.serve.protocol import ChatRequest, Sampling, TextRequest

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.kernel import Kernel

Json = dict[str, Any]
_REASONS = {"stop": "stop", "length": "length", "calls": "tool_calls"}


@dataclass(slots=True)
class _Choice:
    """What one choice has said so far."""

    pieces: list[str] = field(default_factory=list)
    tokens: list[Json] = field(default_factory=list)  # with their log-probabilities, where they are wanted
    calls: list[Json] = field(default_factory=list)
    done: Done | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Reply:
    """What both kinds of reply share."""

    kind = chunk_kind = prefix = ""

    def __init__(self, kernel: Kernel, request: Sampling, choices: int, *, logprobs: bool) -> None:
        self._tokenizer: Tokenizer = kernel.tokenizer
        self._with_usage = bool(request.stream_options and request.stream_options.include_usage)
        self._logprobs = logprobs
        self._choices = [_Choice() for _ in range(choices)]
        self._head: Json = {
            "id": f"{self.prefix}-{secrets.token_hex(12)}",
            "created": int(time()),
            "model": request.model,
            "system_fingerprint": f"fp_{hashlib.sha256(kernel.runner.identity.encode()).hexdigest()[:12]}",
        }

    def opening(self) -> Iterable[Json]:
        """Chunks before anything is said."""
        return ()

    def take(self, index: int, event: Event) -> list[Json]:
        """What an event adds, as chunks.

        Raises:
            Cancelled: somebody else ended the turn.
        """
        choice = self._choices[index]
        if isinstance(event, Token):
            token = self._token(event) if self._logprobs and event.id >= 0 else None
            if not event.text and token is None:
                return []
            choice.pieces.append(event.text)
            choice.tokens += [] if token is None else [token]
            return [self._chunk(self._piece(index, event.text, [] if token is None else [token]))]
        if isinstance(event, Done):
            if event.reason not in _REASONS:
                raise Cancelled("the answer was stopped on the server")
            choice.done = event
            return [self._chunk(body) for body in self._end(index, event)]
        return []

    def closing(self) -> Iterable[Json]:
        """Chunks after the last choice has ended."""
        return [{**self._chunk(None), "usage": self._usage()}] if self._with_usage else ()

    def whole(self) -> Json:
        """The reply in one piece."""
        choices = [self._whole(index, choice) for index, choice in enumerate(self._choices)]
        return {**self._head, "object": self.kind, "choices": choices, "usage": self._usage()}

    def _chunk(self, choice: Json | None) -> Json:
        body = {**self._head, "object": self.chunk_kind, "choices": [] if choice is None else [choice]}
        return {**body, "usage": None} if self._with_usage else body

    def _token(self, event: Token) -> Json:
        """A token with its log-probability; one that the grammar forced could not have been another."""
        data = self._tokenizer.token_bytes(event.id)
        return {
            "token": data.decode("utf-8", "replace"),
            "bytes": list(data),
            "logprob": 0.0 if event.logprob is None else event.logprob,
            "top_logprobs": [],
        }

    def _usage(self) -> Json:
        ledgers = [c.done.usage if c.done else Usage() for c in self._choices]
        firsts = self._firsts(ledgers)  # choices of one question have read it together
        prompt, said = sum(u.prompt_tokens for u in firsts), sum(u.completion_tokens for u in ledgers)
        cached = sum(min(u.cached_tokens, u.prompt_tokens) for u in firsts)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": said,
            "total_tokens": prompt + said,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _firsts(self, ledgers: Sequence[Usage]) -> Sequence[Usage]:
        return ledgers[:1]

    def _piece(self, index: int, text: str, tokens: Sequence[Json]) -> Json:
        raise NotImplementedError

    def _end(self, index: int, done: Done) -> Iterable[Json]:
        raise NotImplementedError

    def _whole(self, index: int, choice: _Choice) -> Json:
        raise NotImplementedError


class ChatReply(_Reply):
    """Of `/v1/chat/completions`."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def __init__(self, kernel: Kernel, request: ChatRequest, choices: int) -> None:
        super().__init__(kernel, request, choices, logprobs=bool(request.logprobs))
        self._one_call = request.parallel_tool_calls is False

    def opening(self) -> Iterable[Json]:
        return [
            self._chunk(self._delta(i, {"role": "assistant", "content": ""}))
            for i in range(len(self._choices))
        ]

    def _delta(self, index: int, delta: Json, tokens: Sequence[Json] = (), reason: str | None = None) -> Json:
        said = _content(tokens) if tokens else None
        return {"index": index, "delta": delta, "logprobs": said, "finish_reason": reason}

    def _piece(self, index: int, text: str, tokens: Sequence[Json]) -> Json:
        return self._delta(index, {"content": text}, tokens)

    def _end(self, index: int, done: Done) -> Iterable[Json]:
        made = done.calls[:1] if self._one_call else done.calls
        self._choices[index].calls = calls = [_call(call) for call in made]
        if calls:
            yield self._delta(index, {"tool_calls": [{"index": i, **c} for i, c in enumerate(calls)]})
        yield self._delta(index, {}, reason=_REASONS[done.reason])

    def _whole(self, index: int, choice: _Choice) -> Json:
        assert choice.done is not None
        message: Json = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls:
            message |= {"content": choice.text or None, "tool_calls": choice.calls}
        return {
            "index": index,
            "message": message,
            "logprobs": _content(choice.tokens) if self._logprobs else None,
            "finish_reason": _REASONS[choice.done.reason],
        }


def _content(tokens: Sequence[Json]) -> Json:
    return {"content": list(tokens), "refusal": None}


def _call(call: Call) -> Json:
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function: Mapping[str, str] = {"name": call.syscall, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


class TextReply(_Reply):
    """Of `/v1/completions`."""

    kind, chunk_kind, prefix = "text_completion", "text_completion", "cmpl"

    def __init__(self, kernel: Kernel, request: TextRequest, choices: int) -> None:
        super().__init__(kernel, request, choices, logprobs=request.logprobs is not None)
        self._copies = choices // len(request.prompt)
        self._offsets = [0] * choices

    def _firsts(self, ledgers: Sequence[Usage]) -> Sequence[Usage]:
        return ledgers[:: self._copies]

    def _piece(self, index: int, text: str, tokens: Sequence[Json]) -> Json:
        offset, self._offsets[index] = self._offsets[index], self._offsets[index] + len(text)
        said = _columns(tokens, [offset]) if tokens else None
        for token in tokens:
            token["offset"] = offset
        return {"index": index, "text": text, "logprobs": said, "finish_reason": None}

    def _end(self, index: int, done: Done) -> Iterable[Json]:
        return [{"index": index, "text": "", "logprobs": None, "finish_reason": _REASONS[done.reason]}]

    def _whole(self, index: int, choice: _Choice) -> Json:
        assert choice.done is not None
        said = _columns(choice.tokens, [t["offset"] for t in choice.tokens]) if self._logprobs else None
        return {
            "index": index,
            "text": choice.text,
            "logprobs": said,
            "finish_reason": _REASONS[choice.done.reason],
        }


def _columns(tokens: Sequence[Json], offsets: Sequence[int]) -> Json:
    return {
        "tokens": [t["token"] for t in tokens],
        "token_logprobs": [t["logprob"] for t in tokens],
        "top_logprobs": None,
        "text_offset": list(offsets),
    }
