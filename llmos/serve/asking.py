"""From a request to a question: the options of `Process.ask`.

What: turns messages, tools and response formats into what the kernel takes.
Invariant: every word keeps its label. The request's words are the user's own; what a `tool` message holds came
    from elsewhere and is UNTRUSTED, and what an assistant said after reading it is no better. Tools are named and
    answered as the protocol demands, so no result stands without its call.
Interface: `chat_options(request)`, `text_options(request)`, `check_grammar(kernel, options)`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from llmos.abi.app import DEADLINE
from llmos.abi.errors import LLMOSError
from llmos.abi.events import Call
from llmos.abi.labels import UNTRUSTED, USER, Label, join
from llmos.abi.manifest import Syscall
from llmos.abi.schema import Simple, simplify
from llmos.kernel.prompt import Message, Part
from llmos.kernel.syscalls import SyscallTable, answer_lark
from llmos.serve.protocol import (
    ChatMessage,
    ChatRequest,
    ResponseFormat,
    Sampling,
    TextRequest,
    Tool,
    ToolCall,
)
from llmos.serve.refusal import Refusal, refusal_of

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

Options = dict[str, Any]  # of `Process.ask`
TEXT_TOKENS = 16  # of a continuation that names no limit, as the protocol has it
_CHOICES = ("auto", "none", "required")


def chat_options(request: ChatRequest) -> Options:
    """The question that a chat puts."""
    if request.max_tokens and request.max_completion_tokens:
        raise _bad("Give either 'max_tokens' or 'max_completion_tokens', not both.", "max_tokens")
    if request.top_logprobs is not None and not request.logprobs:
        raise _bad("'top_logprobs' needs 'logprobs' to be true.", "top_logprobs")
    _no_alternatives(request.top_logprobs, "top_logprobs")
    tools = [_syscall(tool, f"tools[{i}].function") for i, tool in enumerate(request.tools or ())]
    choice = _choice(request, tools)
    forced = choice not in ("auto", "none")
    messages = _conversation(request.messages)
    asked = [message for message in messages if message.role == "user"]
    return {
        **_sampling(request),
        # Whether to call, and with what, is held against the question where nothing else has been asked.
        "question": messages[-1].text if asked == messages[-1:] else "",
        "messages": messages,
        "max_tokens": request.max_completion_tokens or request.max_tokens,
        "tools": tools,
        "tool_choice": choice,
        # An answer that must be a call has no other form.
        "schema": None if forced else _schema(request.response_format),
    }


def text_options(request: TextRequest) -> list[Options]:
    """The questions that a request for continuations puts, one a prompt."""
    _no_alternatives(request.logprobs, "logprobs")
    if not all(request.prompt):
        raise _bad("'prompt' is empty: there is nothing to continue.", "prompt")
    options = {**_sampling(request), "max_tokens": request.max_tokens or TEXT_TOKENS, "raw": True}
    return [{**options, "question": prompt} for prompt in request.prompt]


def check_grammar(kernel: Kernel, options: Options) -> None:
    """Compile what the answer is held to; off the loop, so that nobody's words wait for it. Refusal where it does
    not compile."""
    tools, choice, schema = options["tools"], options["tool_choice"], options["schema"]
    if tools and choice != "none":
        named = [tool for tool in tools if choice in (tool.name, "auto", "required")]
        param = "tools"
        lark = SyscallTable(named, kernel.tokenizer).lark(must_call=choice != "auto", answer=schema)
    elif schema is not None:
        param, lark = "response_format", answer_lark(schema)
    else:
        return
    try:
        kernel.grammars.compile(lark)
    except LLMOSError as e:
        raise refusal_of(e, param) from None


def _sampling(request: Sampling) -> Options:
    if request.stream_options is not None and not request.stream:
        raise _bad("'stream_options' needs 'stream' to be true.", "stream_options")
    if not all(request.stop or ["-"]):
        raise _bad("'stop' holds an empty text.", "stop")
    top_p = 1.0 if request.top_p is None else request.top_p
    return {
        "temperature": (request.temperature or 0.0) if top_p else 0.0,  # nothing but the likeliest
        "top_p": top_p or 1.0,
        "top_k": request.top_k or 0,
        "min_p": request.min_p or 0.0,
        "repetition_penalty": request.repetition_penalty or 1.0,
        "seed": secrets.randbits(32) if request.seed is None else request.seed,
        "stop": tuple(request.stop or ()),
    }


def _no_alternatives(count: int | None, param: str) -> None:
    if count:
        raise _bad(f"'{param}' above 0: only the log-probability of each chosen token is served.", param)


# -- messages ----------------------------------------------------------------------------------------------------


def _conversation(messages: Sequence[ChatMessage]) -> list[Message]:
    """The messages as the kernel takes them, each with the label of its words."""
    built: list[Message] = []
    read: Label = USER  # the join of what stands before
    open_calls: dict[str, None] = {}  # that no tool message has answered yet
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        if open_calls and message.role != "tool":
            raise _bad(
                "An assistant message with 'tool_calls' must be followed by tool messages that answer each "
                f"'tool_call_id'; there is none for: {', '.join(open_calls)}.",
                param,
            )
        text = _text(message, f"{param}.content")
        calls: tuple[Call, ...] = ()
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                raise _bad(
                    "A message of role 'tool' must answer a call of the assistant message before it, by "
                    "'tool_call_id'.",
                    f"{param}.tool_call_id",
                )
            del open_calls[message.tool_call_id]
            read = join([read, UNTRUSTED])
            built.append(Message("tool", (Part("result", text, UNTRUSTED),)))
            continue
        if message.tool_call_id is not None or (message.tool_calls and message.role != "assistant"):
            raise _bad(f"A message of role '{message.role}' neither makes nor answers calls.", param)
        if message.role == "assistant":
            calls = tuple(
                _call(made, number, f"{param}.tool_calls[{number - 1}]")
                for number, made in enumerate(message.tool_calls or (), 1)
            )
            open_calls = dict.fromkeys(made.id for made in message.tool_calls or ())
            if len(open_calls) != len(calls):
                raise _bad("Two calls have the same 'id'.", f"{param}.tool_calls")
            built.append(Message("assistant", (Part("assistant", text, read),), calls))
        else:
            # A window leads with its system segments; one in mid-conversation stays where it stands.
            built.append(
                Message(
                    "user" if message.role == "user" else "system",
                    (Part("user" if i or message.role == "user" else "system", text),),
                )
            )
    if open_calls:
        raise _bad(f"There are calls without an answer: {', '.join(open_calls)}.", "messages")
    return built


def _text(message: ChatMessage, param: str) -> str:
    """The text of a message: its parts, joined."""
    if message.content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal is not None):
            return message.refusal or ""
        raise Refusal(
            400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    for i, part in enumerate(message.content):
        if part.type != "text":
            kind = part.type.removesuffix("_url").removeprefix("input_")
            raise _bad(f"This model reads text only: {kind} parts are not supported.", f"{param}[{i}].type")
        if part.text is None:
            raise _bad("A part of type 'text' has no 'text'.", f"{param}[{i}].text")
    return "".join(part.text or "" for part in message.content)


def _call(made: ToolCall, number: int, param: str) -> Call:
    try:
        arguments = from_json(made.function.arguments or "{}")
    except ValueError as e:
        raise _bad(f"The arguments are not valid JSON: {e}.", f"{param}.function.arguments") from None
    if not isinstance(arguments, dict):
        raise _bad("The arguments are not a JSON object.", f"{param}.function.arguments")
    return Call(number, made.function.name, arguments)


# -- tools and forms ---------------------------------------------------------------------------------------------


def _syscall(tool: Tool, param: str) -> Syscall:
    """A tool of the client's as a syscall; the kernel never runs it."""
    function = tool.function
    if function.name in _CHOICES:
        raise _bad(f"'{function.name}' is no name for a function: it means something else.", f"{param}.name")
    schema = function.parameters or {"type": "object", "properties": {}}
    simple = _simple(schema, bool(function.strict), f"{param}.parameters")
    if simple.schema.get("type") != "object":
        raise _bad(
            "The parameters of a function are an object: {'type': 'object', ...}.", f"{param}.parameters"
        )
    return Syscall(
        name=function.name, tool=function.name, description=function.description or "", parameters=simple.schema,
        loosened=simple.loosened, effect="admin", retry="never", returns="untrusted", deadline=DEADLINE,
    )  # fmt: skip


def _choice(request: ChatRequest, tools: Sequence[Syscall]) -> str:
    names = [tool.name for tool in tools]
    if len(set(names)) != len(names):
        raise _bad("Two functions have the same name.", "tools")
    given = request.tool_choice
    if given is None:
        return "auto"
    if (given.function is None) == (given.type == "function"):
        raise _bad("'tool_choice' names a function by type 'function', and only so.", "tool_choice")
    if not names and given.type != "none":
        raise _bad("'tool_choice' needs 'tools'.", "tool_choice")
    choice = given.type if given.function is None else given.function.name
    if given.function is not None and choice not in names:
        raise _bad(f"'tool_choice' names '{choice}', which is not among 'tools'.", "tool_choice")
    return choice


def _schema(form: ResponseFormat | None) -> dict[str, Any] | None:
    """The JSON schema of the answer, where it is to have one."""
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "object"}
    if form.json_schema is None:
        raise _bad("'json_schema' is missing.", "response_format.json_schema")
    param = "response_format.json_schema.schema"
    return _simple(form.json_schema.schema_ or {}, bool(form.json_schema.strict), param).schema


def _simple(schema: dict[str, Any], strict: bool, param: str) -> Simple:
    """The schema as the grammar takes it; where the client wants it kept to the letter, it has to be."""
    try:
        simple = simplify(schema)
    except LLMOSError as e:
        raise refusal_of(e, param) from None
    if strict and simple.loosened:
        raise _bad(
            f"Not supported where 'strict' is true: {'; '.join(simple.loosened[:5])} (path: keyword).", param
        )
    return simple


def _bad(message: str, param: str) -> Refusal:
    return Refusal(400, message, param=param, code="invalid_value")
