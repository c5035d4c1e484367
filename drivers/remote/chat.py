"""A conversation with a remote model.

What: from messages, tools and a schema to the request, and from its events to words and calls.
Invariant: an answer ends by exactly one `Ended`, or by an error. A call is given whole, its arguments a JSON object,
    after the words; what is cut off is none. Who stops reading closes the connection.
Interface: `Chat(messages, ...)`; `talk(transport, endpoint, chat)` yields `Said`, `Wrote`, `Used`, `Ended`.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

from llmos.drivers.remote.endpoint import Endpoint
from llmos.drivers.remote.errors import RemoteGarbled, RemoteRefused
from llmos.drivers.remote.transport import Transport
from llmos.drivers.remote.wire import Chunk, ToolCall, read

MAX_ARGUMENTS = 1 << 20  # characters of one call's arguments

Reason = Literal["stop", "length", "calls"]


@dataclass(frozen=True, slots=True)
class Said:
    """Some words of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """A call that the model wrote; nobody has checked that there is such a tool."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Used:
    """What it cost, in the endpoint's own tokens."""

    prompt: int
    completion: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer is over."""

    reason: Reason


Event = Said | Wrote | Used | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """What to ask.

    Args:
        messages: in the protocol's form; `message` makes one with pictures.
        tools: in the protocol's form: `{"type": "function", "function": {"name", "description", "parameters"}}`.
        choice: of tools: auto, required, none, or the name of one.
        schema: that the answer has to fit, as JSON.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] = ()
    choice: str = "auto"
    schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()

    def body(self, model: str) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {"model": model, "messages": list(self.messages), "stream": True}
        body["stream_options"] = {"include_usage": True}
        if self.tools:
            body["tools"] = list(self.tools)
            named = self.choice not in ("auto", "required", "none")
            body["tool_choice"] = (
                {"type": "function", "function": {"name": self.choice}} if named else self.choice
            )
        if self.schema is not None:
            form = {"name": "answer", "schema": dict(self.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        for key in ("max_tokens", "temperature", "top_p", "seed"):
            if (value := getattr(self, key)) is not None:
                body[key] = value
        if self.stop:
            body["stop"] = list(self.stop)
        return body


def message(role: str, text: str, pictures: Sequence[tuple[str, bytes]] = ()) -> dict[str, Any]:
    """A message; `pictures` are (media type, bytes), carried by value."""
    if not pictures:
        return {"role": role, "content": text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for mime, data in pictures:
        url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": role, "content": parts}


async def talk(transport: Transport, at: Endpoint, chat: Chat) -> AsyncGenerator[Event]:
    """The answer, as it comes.

    Raises:
        RemoteError: whichever of its kinds (errors.py).
    """
    calls: dict[int, _Call] = {}
    reason, used = None, None
    async with aclosing(transport.events("chat/completions", json=chat.body(at.model))) as events:
        async for data in events:
            chunk = read(Chunk, data, at.name)
            if chunk.usage is not None:
                used = Used(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                said = choice.delta or choice.message
                if choice.index != 0:
                    continue
                reason = choice.finish_reason or reason
                if said is None:
                    continue
                if said.refusal:
                    raise RemoteRefused(
                        f"{at.name} refused", why=said.refusal[:300], do="ask for something else"
                    )
                if said.content:
                    yield Said(said.content)
                for place, fragment in enumerate(said.tool_calls or ()):
                    index = place if fragment.index is None else fragment.index
                    calls.setdefault(index, _Call()).add(fragment, at)
    if reason is None:
        raise RemoteGarbled(f"{at.name} did not end its answer", why="no reason why it ended", do="ask again")
    ended: Reason = "length" if reason == "length" else "calls" if calls else "stop"
    if ended == "calls":
        for index in sorted(calls):
            yield calls[index].whole(at)
    if used is not None:
        yield used
    yield Ended(ended)


@dataclass(slots=True)
class _Call:
    """A call that is being put together."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, fragment: ToolCall, at: Endpoint) -> None:
        self.id = self.id or (fragment.id or "")[:256]
        self.name = self.name or (fragment.function.name or "")
        if piece := fragment.function.arguments:
            self.arguments.append(piece)
            self.size += len(piece)
        if self.size > MAX_ARGUMENTS or len(self.name) > 256:
            raise RemoteGarbled(
                f"{at.name} wrote a call that is too large",
                why=f"more than {MAX_ARGUMENTS} characters",
                do="ask for less",
            )

    def whole(self, at: Endpoint) -> Wrote:
        try:
            arguments = from_json("".join(self.arguments) or "{}", allow_inf_nan=False)
        except ValueError as error:
            raise _no_call(at, self.name, str(error)) from None
        if not self.name or not isinstance(arguments, dict):
            raise _no_call(
                at, self.name, "its arguments are no JSON object" if self.name else "it has no name"
            )
        return Wrote(self.id, self.name, arguments)


def _no_call(at: Endpoint, name: str, why: str) -> RemoteGarbled:
    return RemoteGarbled(
        f"{at.name} wrote a call of {name[:80]!r} that is none", why=why[:200], do="ask again"
    )
