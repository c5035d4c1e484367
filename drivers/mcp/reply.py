"""From a result on the wire to a `Reply`.

What: structured content becomes the value, everything else parts by value.
Invariant: nothing is opened or fetched here: a link stays the text of a link.
Interface: `reply_of(name, result, ours=...)`, `text_of(result)`.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mcp_types as types

from llmos.abi.app import File, Image, Part, Text
from llmos.abi.errors import BadResult
from llmos.abi.signature import Reply


def reply_of(name: str, result: types.CallToolResult, *, ours: bool) -> Reply:
    """The value or the parts of a result; BadResult, naming the server, for a part that cannot be read."""
    parts = tuple(_part(name, content) for content in result.content)
    value = result.structured_content
    if value is None:
        return Reply(parts=parts)
    if ours and isinstance(value, dict) and set(value) == {"result"}:
        value = value["result"]
    return Reply(value=value)


def _part(name: str, content: Any) -> Part:
    try:
        if isinstance(content, types.TextContent):
            return Text(content.text)
        if isinstance(content, types.ImageContent):
            return Image(_bytes(content.data), content.mime_type)
        if isinstance(content, types.AudioContent):
            return File("audio", _bytes(content.data), content.mime_type)
        if isinstance(content, types.EmbeddedResource):
            held = content.resource
            called = str(held.uri).rsplit("/", 1)[-1] or "file"
            mime = held.mime_type or "application/octet-stream"
            if isinstance(held, types.TextResourceContents):
                return File(called, held.text.encode(), held.mime_type or "text/plain")
            return File(called, _bytes(held.blob), mime)
        return Text(json.dumps(content.model_dump(mode="json", by_alias=True, exclude_none=True)))  # a link
    except (ValueError, binascii.Error) as error:
        raise BadResult(f"{name} returned a part that cannot be read", why=str(error)) from None


def _bytes(data: str) -> bytes:
    return base64.b64decode(data, validate=True)


def text_of(result: types.CallToolResult) -> str:
    """What a result says in words."""
    return "\n".join(part.text for part in result.content if isinstance(part, types.TextContent))
