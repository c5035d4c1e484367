"""How a call asks its client's model back, in both eras of MCP.

What: up to protocol 2025-11-25 a question is a request to the client (sampling). From 2026-07-28 on the call is
    answered by "input required", and the client calls again with the answer; the method waits meanwhile.
Invariant: a method runs once, however many rounds its questions take. A question that nobody comes back to is
    refused after `PATIENCE` seconds; at most `MAX_WAITING` calls wait.
Interface: `await Conversations().follow(context, params, work)`; `await conversation.ask(meta, prompt, schema)`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from llmos.abi.errors import AskRefused, BadArguments
from llmos.drivers.mcp.meta import CALL, SCHEMA, CallMeta

ANSWER_TOKENS = 512  # that a question asks for at most; the kernel has its own limits
PATIENCE = 600.0  # seconds until a client has come back with an answer
MAX_WAITING = 64  # calls that wait for answers at once

Context = ServerRequestContext[Any, Any]
Question = tuple[types.CreateMessageRequest, "asyncio.Future[object]"]
_KEY = "question"


@dataclass(slots=True)
class Conversation:
    """One call and its questions; `context` is that of the latest round."""

    context: Context
    questions: asyncio.Queue[Question] = field(default_factory=asyncio.Queue)

    async def ask(self, meta: CallMeta, prompt: str, schema: Mapping[str, Any] | None) -> str:
        """The model's answer; AskRefused where the client gives none."""
        if schema and not meta.id:  # a client that is not our kernel reads words only
            prompt = f"{prompt}\n\nAnswer with JSON alone that fits this schema: {json.dumps(schema)}"
        content = types.TextContent(type="text", text=prompt)
        wire = {CALL: meta.id} | ({SCHEMA: schema} if schema else {})
        request = types.CreateMessageRequest(
            params=types.CreateMessageRequestParams(
                messages=[types.SamplingMessage(role="user", content=content)],
                max_tokens=ANSWER_TOKENS,
                _meta=cast(types.RequestParamsMeta, wire),
            )
        )
        if self.context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            self.questions.put_nowait((request, future))
            answer = await future
        else:
            answer = await self._sample(request)
        if not isinstance(answer, types.CreateMessageResult) or not isinstance(
            answer.content, types.TextContent
        ):
            raise AskRefused("the question was answered by something else than text")
        return answer.content.text

    async def _sample(self, request: types.CreateMessageRequest) -> object:
        try:
            return await self.context.session.send_request(request, types.CreateMessageResult)
        except NoBackChannelError:
            raise AskRefused("this client takes no questions", why="its connection goes one way") from None
        except MCPError as error:
            raise AskRefused(f"the question was not answered: {error.message}") from None
        except ValidationError:
            raise AskRefused("the question was answered against the protocol") from None


Work = Callable[[Conversation], Coroutine[Any, Any, types.CallToolResult]]


@dataclass(slots=True)
class _Waiting:
    conversation: Conversation
    task: asyncio.Task[types.CallToolResult]
    answer: asyncio.Future[object]
    end: asyncio.TimerHandle


class Conversations:
    """Calls that wait for their clients."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    async def follow(
        self, context: Context, params: types.CallToolRequestParams, work: Work
    ) -> types.CallToolResult | types.InputRequiredResult:
        """A call's first round, or the next one of a call that waits; its result, or its next question."""
        if params.request_state is None:
            conversation = Conversation(context)
            task = asyncio.create_task(work(conversation))
        else:
            waiting = self._waiting.pop(params.request_state, None)
            if waiting is None:
                raise BadArguments("an answer to a question that nobody asked, or that was given up")
            waiting.end.cancel()
            conversation, task = waiting.conversation, waiting.task
            conversation.context = context
            waiting.answer.set_result((params.input_responses or {}).get(_KEY))
        asked = asyncio.create_task(conversation.questions.get())
        try:
            await asyncio.wait((task, asked), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            if not asked.done():
                asked.cancel()
        if task.done():
            return task.result()
        return self._wait(conversation, task, *asked.result())

    def _wait(
        self,
        conversation: Conversation,
        task: asyncio.Task[types.CallToolResult],
        request: types.CreateMessageRequest,
        answer: asyncio.Future[object],
    ) -> types.InputRequiredResult:
        if len(self._waiting) >= MAX_WAITING:
            self._give_up(next(iter(self._waiting)))
        state = secrets.token_hex(16)
        end = asyncio.get_running_loop().call_later(PATIENCE, self._give_up, state)
        self._waiting[state] = _Waiting(conversation, task, answer, end)
        return types.InputRequiredResult(input_requests={_KEY: request}, request_state=state)

    def _give_up(self, state: str) -> None:
        waiting = self._waiting.pop(state)
        waiting.end.cancel()
        waiting.answer.set_exception(AskRefused("nobody came back with an answer"))
