"""What is done about each path.

What: the starlette application: reads a body, asks the kernel, writes the reply while it comes.
Invariant: every request is answered in the protocol's shape, or its client has left and its work with it. An error
    before the first word is an HTTP status; one after it is an event of the stream, without `[DONE]`.
Interface: `Service(kernel, keys, limits)`: `.application`, `.stop()`; `Limits`, `model_name(configured)`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from llmos.abi.errors import LLMOSError
from llmos.serve.answers import Answers
from llmos.serve.asking import Options, chat_options, check_grammar, text_options
from llmos.serve.embeddings import embed, packed
from llmos.serve.gate import Keys, Places
from llmos.serve.protocol import ChatRequest, EmbeddingRequest, M, Sampling, TextRequest, parse
from llmos.serve.refusal import Refusal, refusal_of
from llmos.serve.replies import ChatReply, TextReply
from llmos.serve.wire import Json, Out, RequestIds, Stalled, read_body, while_there

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

Work = Callable[[Request, bytes, Out], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server bears."""

    running: int = 32  # requests that are answered at once
    waiting: int = 64  # that wait for one of those places; more are told to come again
    wait_seconds: float = 60.0  # in that queue
    body_bytes: int = 8 << 20  # of a request; far more than a window holds
    body_seconds: float = 30.0  # for a body to arrive
    quiet_seconds: float = 15.0  # of a stream without a word; then a comment says that it is alive
    stalled_seconds: float = 120.0  # that a client may take nothing of what is sent


class Service:
    """Made on any thread; its application runs on the kernel's loop."""

    def __init__(self, kernel: Kernel, keys: Keys, limits: Limits) -> None:
        self._kernel, self._keys, self._limits = kernel, keys, limits
        self._places = Places(limits.running, limits.waiting, limits.wait_seconds)
        self._began = int(time.time())
        self._working: set[asyncio.Task[None]] = set()
        self.model = model_name(kernel.config.kernel.model)
        self.encoder = model_name(kernel.config.memory.encoder)
        self.application = Starlette(
            routes=[
                self._route("/v1/chat/completions", "POST", self._chat),
                self._route("/v1/completions", "POST", self._text),
                self._route("/v1/embeddings", "POST", self._embeddings),
                self._route("/v1/models", "GET", self._models),
                self._route("/v1/models/{name:path}", "GET", self._one_model),
            ],
            middleware=[Middleware(RequestIds)],
            exception_handlers={Refusal: _refused, HTTPException: _no_path, ClientDisconnect: _nobody},
        )

    def stop(self) -> None:
        """On the loop: whatever is being answered ends with an error."""
        for work in self._working:
            work.cancel()

    def _route(self, path: str, method: str, work: Work) -> Route:
        async def endpoint(request: Request) -> Response:
            self._keys.check(request.headers)
            body = b""
            if method == "POST":
                body = await read_body(request, self._limits.body_bytes, self._limits.body_seconds)
            return _Replying(self._serve, lambda out: work(request, body, out))

        return Route(path, endpoint, methods=[method])

    async def _serve(
        self, work: Callable[[Out], Coroutine[Any, Any, None]], receive: Receive, send: Send
    ) -> None:
        """Do the work of one request; what goes wrong is told where the client still listens."""
        out = Out(send, self._limits.stalled_seconds)
        working = asyncio.ensure_future(work(out))
        self._working.add(working)
        try:
            await while_there(working, receive)
        except Stalled:
            pass
        except Exception as e:
            refusal = refusal_of(e)
            if not out.streaming:
                raise refusal from None
            await out.events([refusal.body])
            await out.end()
        finally:
            self._working.discard(working)

    # -- paths ---------------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, body: bytes, out: Out) -> None:
        asked = self._parsed(ChatRequest, body, self.model)
        options = chat_options(asked)
        async with self._places:
            await asyncio.to_thread(check_grammar, self._kernel, options)
            await self._answer(
                asked, [options], ChatReply(self._kernel, asked, asked.n or 1), "messages", out
            )

    async def _text(self, request: Request, body: bytes, out: Out) -> None:
        asked = self._parsed(TextRequest, body, self.model)
        questions = text_options(asked)
        reply = TextReply(self._kernel, asked, len(questions) * (asked.n or 1))
        async with self._places:
            await self._answer(asked, questions, reply, "prompt", out)

    async def _answer(
        self, asked: Sampling, questions: list[Options], reply: ChatReply | TextReply, param: str, out: Out
    ) -> None:
        try:
            async with Answers(self._kernel, questions, asked.n or 1) as answers:
                await (self._stream if asked.stream else self._collect)(answers, reply, out)
        except LLMOSError as e:
            raise refusal_of(e, param) from None

    async def _collect(self, answers: Answers, reply: ChatReply | TextReply, out: Out) -> None:
        while not answers.over:
            if (item := await answers.next()) is not None:
                reply.take(*item)
        await out.whole(reply.whole())

    async def _stream(self, answers: Answers, reply: ChatReply | TextReply, out: Out) -> None:
        opened = False
        while not answers.over:
            item = await answers.next(self._limits.quiet_seconds)
            if not opened:  # not before: the status of a question that cannot be answered is not 200
                await out.events(reply.opening())
                opened = True
            if item is None:
                await out.comment("nothing yet")
            elif chunks := reply.take(*item):
                await out.events(chunks)
        await out.events(reply.closing())
        await out.end("data: [DONE]\n\n")

    async def _embeddings(self, request: Request, body: bytes, out: Out) -> None:
        asked = self._parsed(EmbeddingRequest, body, self.encoder)
        if not all(asked.input):
            raise Refusal(400, "'input' holds an empty text.", param="input", code="invalid_value")
        async with self._places:
            vectors, tokens = await embed(self._kernel, asked.input)
        as_text = asked.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": i, "embedding": packed(vector) if as_text else vector.tolist()}
            for i, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        await out.whole({"object": "list", "data": data, "model": asked.model, "usage": usage})

    async def _models(self, request: Request, body: bytes, out: Out) -> None:
        await out.whole({"object": "list", "data": [self._described(n) for n in (self.model, self.encoder)]})

    async def _one_model(self, request: Request, body: bytes, out: Out) -> None:
        name = request.path_params["name"]
        if name not in (self.model, self.encoder):
            raise self._no_model(name)
        await out.whole(self._described(name))

    # -- parts of them -------------------------------------------------------------------------------------------

    def _described(self, name: str) -> Json:
        return {"id": name, "object": "model", "created": self._began, "owned_by": "llmos"}

    def _parsed(self, kind: type[M], body: bytes, model: str) -> M:
        asked = parse(kind, body)
        if asked.model != model:
            raise self._no_model(asked.model)
        return asked

    def _no_model(self, name: str) -> Refusal:
        return Refusal(
            404,
            f"The model '{name}' does not exist here: '{self.model}' writes, '{self.encoder}' makes embeddings.",
            param="model",
            code="model_not_found",
        )


def model_name(configured: str) -> str:
    """What clients call a model: its catalogue name, or the name of its file or folder."""
    return Path(configured).name.removesuffix(".gguf")


class _Replying(Response):
    """A response that is made while it is sent."""

    def __init__(
        self,
        serve: Callable[
            [Callable[[Out], Coroutine[Any, Any, None]], Receive, Send], Coroutine[Any, Any, None]
        ],
        work: Callable[[Out], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__()
        self._serve, self._work = serve, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(self._work, receive, send)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.body, error.status, error.headers)


def _no_path(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"Invalid URL ({request.method} {request.url.path})"
    return _refused(request, Refusal(error.status_code, message, headers=error.headers))


def _nobody(request: Request, error: Exception) -> Response:
    """The client left before its request was read: this is sent to nobody."""
    return Response(status_code=400)
