"""What an endpoint's answers may hold.

What: the protocol's replies as pydantic models, as far as we use them.
Invariant: strict about types, deaf to fields that it does not know, for endpoints add some.
Interface: `read(model, bytes, name)`; `complaint(bytes)`; `Chunk`, `Pictures`, `Vectors`, `Transcript`.
Source: the published OpenAPI description of the protocol (github.com/openai/openai-openapi).
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from pydantic_core import from_json

from llmos.drivers.remote.errors import RemoteGarbled, RemoteRefused, RemoteUnavailable

MAX_CALLS = 16  # in one answer, as of our own grammar
MAX_VECTORS = 2048  # of one request, as the protocol has it
MAX_DIMENSIONS = 1 << 16

M = TypeVar("M", bound="Body")


class Body(BaseModel):
    """What all replies and their parts share."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Function(Body):
    """A call's name and arguments, or a fragment of them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Body):
    """A call, or a fragment of the one at `index`."""

    index: Annotated[int, Field(ge=0, lt=MAX_CALLS)] | None = None
    id: str | None = None
    function: Function = Field(default_factory=Function)


class Message(Body):
    """An answer, or a fragment of one."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = None


class Choice(Body):
    """One answer of several; only the first is asked for. `message` where the endpoint does not stream."""

    index: int = 0
    delta: Message | None = None
    message: Message | None = None
    finish_reason: str | None = None


class Usage(Body):
    """Tokens as the endpoint counts them."""

    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    completion_tokens: Annotated[int, Field(ge=0)] = 0


class Chunk(Body):
    """A reply to a chat, or an event of one."""

    choices: list[Choice] = Field(default_factory=list)
    usage: Usage | None = None
    error: Any = None


class Picture(Body):
    """A picture by value (base64), or where it lies."""

    b64_json: str | None = None
    url: str | None = None


class Pictures(Body):
    """A reply to a wish for pictures."""

    data: Annotated[list[Picture], Field(min_length=1, max_length=16)]


class Vector(Body):
    """Of the text at `index`."""

    index: Annotated[int, Field(ge=0, lt=MAX_VECTORS)]
    embedding: Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_DIMENSIONS)]


class Vectors(Body):
    """A reply to texts that want vectors."""

    data: Annotated[list[Vector], Field(max_length=MAX_VECTORS)]


class Piece(Body):
    """Some words, from second `start` to second `end`."""

    start: FiniteFloat
    end: FiniteFloat
    text: str


class Transcript(Body):
    """A reply to a recording."""

    text: str
    language: str = ""
    segments: list[Piece] | None = None


def read(model: type[M], data: bytes, name: str) -> M:
    """What endpoint `name` answered.

    Raises:
        RemoteRefused, RemoteUnavailable: it answered with an error.
        RemoteGarbled: it is no such reply.
    """
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise _garbled(name, f"no JSON: {error}") from None
    if isinstance(value, dict) and value.get("error"):
        told = complaint(data) or "it did not say what"
        overloaded = isinstance(value["error"], dict) and value["error"].get("type") in (
            "server_error",
            "overloaded_error",
        )
        kind = RemoteUnavailable if overloaded else RemoteRefused
        raise kind(f"{name} answered with an error", why=told, do="change what is asked of it, or try later")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _garbled(name, f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}") from None


def complaint(data: bytes) -> str:
    """What an error's body says, one line; "" where it says nothing."""
    try:
        value = from_json(data)
    except ValueError:
        value = data.decode("utf-8", "replace")
    if isinstance(value, dict):
        value = value.get("error", value.get("message", value.get("detail", "")))
    if isinstance(value, dict):
        value = value.get("message", "")
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return "".join(c for c in text if c.isprintable())[:300]


def _garbled(name: str, why: str) -> RemoteGarbled:
    return RemoteGarbled(
        f"what {name} answered cannot be used", why=why[:300], do="look whether it speaks OpenAI's protocol"
    )
