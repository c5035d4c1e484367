"""Between our words and those of MCP, on the serving side.

What: tools from syscalls, results from replies and errors.
Invariant: a result that the other side would refuse for its size is refused here; errors carry type, message
    and remedy, never a traceback.
Interface: `tool_of`, `meta_of`, `result_of`, `error_result`.
"""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import mcp_types as types
from pydantic import ValidationError

from llmos.abi.app import Part, Text
from llmos.abi.errors import AppError, BadArguments, BadResult
from llmos.abi.manifest import Syscall
from llmos.abi.signature import Reply
from llmos.drivers.mcp.meta import ABSENT, CALL, ERROR, MAX_REPLY_BYTES, CallMeta, error_to_wire


def meta_of(params: types.CallToolRequestParams) -> CallMeta:
    """Who calls; BadArguments where that is garbled."""
    try:
        return CallMeta.model_validate((params.meta or {}).get(CALL) or {})
    except ValidationError:
        raise BadArguments(f"`_meta` has a {CALL!r} that is none") from None


def tool_of(call: Syscall) -> types.Tool:
    """A syscall as MCP lists it; values are results of one key, `result`."""
    result = call.result
    if result is not None:
        definitions = {"$defs": result["$defs"]} if "$defs" in result else {}
        inner = {key: value for key, value in result.items() if key != "$defs"}
        result = {"type": "object", "properties": {"result": inner}, "required": ["result"], **definitions}
    return types.Tool(
        name=call.name,
        description=call.description,
        input_schema=call.parameters,
        output_schema=result,
        annotations=types.ToolAnnotations(
            read_only_hint=call.effect in ("none", "read", "fetch"),
            destructive_hint=call.effect not in ("none", "read", "fetch", "send"),
            idempotent_hint=call.retry in ("safe", "keyed"),
            open_world_hint=call.effect in ("fetch", "send", "pay"),
        ),
    )


def result_of(syscall: Syscall, reply: Reply | None) -> types.CallToolResult:
    """What a call gave; None where it was asked about a key that never took effect. BadResult if it is too large."""
    if reply is None:
        return types.CallToolResult(content=[], _meta=cast(Any, {ABSENT: True}))
    if syscall.result is None:
        content = [_content(part) for part in reply.parts]
        structured = None
    else:
        text = reply.value if isinstance(reply.value, str) else json.dumps(reply.value, ensure_ascii=False)
        content = [types.TextContent(type="text", text=text)]
        structured = {"result": reply.value}
    result = types.CallToolResult(content=content, structured_content=structured)
    size = len(result.model_dump_json(by_alias=True, exclude_none=True))
    if size > MAX_REPLY_BYTES:
        raise BadResult(
            f"{syscall.name} returned {size} bytes",
            why=f"at most {MAX_REPLY_BYTES} are taken",
            do="ask for less",
        )
    return result


def _content(part: Part) -> types.ContentBlock:
    if isinstance(part, Text):
        return types.TextContent(type="text", text=part.text)
    data = base64.b64encode(part.data).decode()
    name = getattr(part, "name", "")
    if not name:
        return types.ImageContent(type="image", data=data, mime_type=part.mime)
    held = types.BlobResourceContents(uri=f"file:///{name}", blob=data, mime_type=part.mime)
    return types.EmbeddedResource(type="resource", resource=held)


def error_result(error: AppError) -> types.CallToolResult:
    """An error as a result, so that the model sees it."""
    wire = cast(Any, {ERROR: error_to_wire(error)})
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=str(error))]
    return types.CallToolResult(content=content, is_error=True, _meta=wire)
