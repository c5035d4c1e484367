"""What requests may hold: the protocol's bodies as pydantic models.

What: one model a path, strict about types; parameters that this machine has no use for are known by name.
Invariant: a parameter that would change the answer, and that we do not have, is refused unless it says what
    happens anyway. One that changes nothing for the client (`user`, `metadata`, …) is let through.
Interface: `parse(model, bytes)`; `ChatRequest`, `TextRequest`, `EmbeddingRequest` and their parts.
Source: the published OpenAPI description of that protocol (github.com/openai/openai-openapi).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from llmos.serve.refusal import Refusal, wrong

MAX_CHOICES = 16  # answers to one request
MAX_TOOLS = 128  # as the protocol has it
MAX_STOPS = 4  # as the protocol has it
MAX_INPUTS = 2048  # texts in one request for embeddings, as the protocol has it
NAME = r"^[a-zA-Z0-9_-]{1,64}$"  # of functions and schemas

# Values that say what happens anyway; everything else of these is not supported.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "modalities": (["text"],),
    "store": (False,), "audio": (), "prediction": (), "web_search_options": (), "functions": (), "function_call": (),
    "reasoning_effort": (), "verbosity": (), "echo": (False,), "suffix": ("",), "best_of": (1,),
}  # fmt: skip
_WITHOUT_EFFECT = frozenset(
    "user metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention".split()
)

M = TypeVar("M", bound="ModelRequest")


class Body(BaseModel):
    """What all bodies and their parts share."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelRequest(Body):
    """What every request says: which model it is for."""

    model: str


def parse(model: type[M], body: bytes) -> M:
    """The request in a body; Refusal where there is none."""
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError as e:
        raise Refusal(400, f"The body of your request is not valid JSON: {e}.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "The body of your request is not a JSON object.")
    kept = {k: v for k, v in value.items() if k in model.model_fields or not _idle(k, v)}
    try:
        return model.model_validate(kept)
    except ValidationError as e:
        raise wrong(e) from None


def _idle(name: str, value: Any) -> bool:
    """Whether a parameter that no model has changes nothing."""
    if name in _NEUTRAL and value is not None and value not in _NEUTRAL[name]:
        raise Refusal(
            400, f"Unsupported parameter: '{name}' is not supported here.", param=name, code="unsupported_parameter"
        )  # fmt: skip
    return name in _NEUTRAL or name in _WITHOUT_EFFECT


# -- chat --------------------------------------------------------------------------------------------------------


class ContentPart(Body):
    """A part of a message's content; of the parts that the protocol knows, we read text."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    type: Literal["text", "image_url", "input_audio", "file", "refusal"]
    text: str | None = None


def _as_parts(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class FunctionCall(Body):
    """A call as an earlier answer made it; the arguments are JSON in a string."""

    name: str
    arguments: str


class ToolCall(Body):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """A message of any role; which of them need what is checked where the conversation is built."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[ContentPart], BeforeValidator(_as_parts)] | None = None
    name: str | None = None  # templates have no place for it
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None  # these three come along when an answer is sent back
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class Function(Body):
    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class ChosenFunction(Body):
    name: str


class ToolChoice(Body):
    """Which call is wanted; a plain word stands for its `type`."""

    type: Literal["auto", "none", "required", "function"]
    function: ChosenFunction | None = None


def _as_choice(choice: object) -> object:
    return {"type": choice} if isinstance(choice, str) else choice


class JsonSchema(Body):
    name: str = Field(pattern=NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Count = Annotated[int, Field(ge=1, lt=1 << 31)]
Texts = Annotated[list[str], BeforeValidator(_as_list)]


class Sampling(ModelRequest):
    """What both ways to ask share. A temperature that is not given is 0: greedy, as everywhere on this machine."""

    max_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31)] | None = (
        None  # these three are not the protocol's but common
    )
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: Annotated[Texts, Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class ChatRequest(Sampling):
    """`/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: Count | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Annotated[ToolChoice, BeforeValidator(_as_choice)] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class TextRequest(Sampling):
    """`/v1/completions`: continue a text as a base model would."""

    prompt: Annotated[Texts, Field(min_length=1, max_length=MAX_CHOICES)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None


class EmbeddingRequest(ModelRequest):
    """`/v1/embeddings`."""

    input: Annotated[Texts, Field(min_length=1, max_length=MAX_INPUTS)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Literal[384] | None = None  # what the encoder gives
