"""Requests to an endpoint, and its answers as bytes or as events.

What: POST over httpx; retries with back-off where the endpoint is overloaded or broken; server-sent events.
Invariant: no answer is larger than asked for, slower than `stall` between bytes or `seconds` in all. Redirects are not
    followed, for the key would go along; nothing of the environment (proxies, .netrc) is used. A request is repeated
    only before its answer began.
Interface: `Transport(endpoint)`, an async context manager: `post(path, ...) -> bytes`, `events(path, ...)`.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from time import time
from types import TracebackType
from typing import Any

from llmos.drivers.remote.endpoint import Endpoint
from llmos.drivers.remote.errors import (
    RemoteError,
    RemoteGarbled,
    RemoteRefused,
    RemoteStalled,
    RemoteUnavailable,
)
from llmos.drivers.remote.wire import complaint

MAX_ANSWER = 8 << 20  # bytes of an answer in words
MAX_MEDIA = 64 << 20  # bytes of one that carries pictures or sound
MAX_LINE = 2 << 20  # bytes of one event
MAX_COMPLAINT = 64 << 10  # bytes that are read of an error
CONNECT_SECONDS = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0  # seconds before a request is repeated
_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_DO = "look whether the endpoint runs, and at its line under `remotes:` in llmos.yaml"


class Transport:
    """A connection to one endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        """RemoteError: the library is missing."""
        try:
            import httpx2
        except ModuleNotFoundError:
            raise RemoteError("the library httpx2 is missing", do="pip install 'llmos[remote]'") from None
        self._at, self._httpx = endpoint, httpx2
        headers = {"Accept-Encoding": "identity", "User-Agent": "llmos"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._client = httpx2.AsyncClient(
            headers=headers, follow_redirects=False, trust_env=False, verify=_trust(),
            timeout=httpx2.Timeout(endpoint.stall, connect=min(CONNECT_SECONDS, endpoint.stall)),
        )  # fmt: skip

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def post(self, path: str, *, most: int = MAX_ANSWER, **request: Any) -> tuple[str, bytes]:
        """The answer's media type and bytes.

        Args:
            most: bytes of the answer that are taken.
            request: `json`, or `data` and `files` of a form.
        """
        async with self._answer(path, request) as answer:
            return answer.mime, await answer.whole(most)

    async def events(self, path: str, *, most: int = MAX_ANSWER, **request: Any) -> AsyncGenerator[bytes]:
        """The data of each server-sent event, up to `[DONE]`; where the endpoint does not stream, its one answer.

        Raises RemoteGarbled where it ends without having ended.
        """
        async with self._answer(path, request) as answer:
            if answer.mime == "application/json":
                yield await answer.whole(most)
                return
            rest, data = b"", list[bytes]()
            async for part in answer.parts(most):
                *lines, rest = (rest + part).split(b"\n")
                if len(rest) > MAX_LINE or sum(map(len, data)) > MAX_LINE:
                    raise self._garbled(f"one line of its answer has more than {MAX_LINE >> 20} MiB")
                for line in lines:
                    line = line.removesuffix(b"\r")
                    if line.startswith(b"data:"):
                        data.append(line[5:].removeprefix(b" "))
                    elif not line and data:
                        event, data = b"\n".join(data), []
                        if event.strip() == b"[DONE]":
                            return
                        yield event
            if b"\n".join(data).strip() != b"[DONE]" and rest.strip() != b"data: [DONE]":
                raise self._garbled("its answer broke off")

    @asynccontextmanager
    async def _answer(self, path: str, request: Mapping[str, Any]) -> AsyncIterator[_Answer]:
        """A success, its body unread; what goes wrong while it is read is told in our words."""
        at, httpx = self._at, self._httpx
        end = asyncio.get_running_loop().time() + at.seconds
        try:
            async with asyncio.timeout_at(end):
                response = await self._opened(f"{at.url}/{path}", request)
            try:
                coding = response.headers.get("content-encoding", "identity").strip().lower()
                if coding not in ("", "identity"):
                    raise self._garbled(f"its answer is packed by {coding[:40]}, which was not asked for")
                yield _Answer(response, end, self._garbled)
            finally:
                await response.aclose()
        except TimeoutError:
            raise RemoteStalled(
                f"{at.name} did not answer in {at.seconds:g} s", do="ask for less, or raise its `seconds`"
            ) from None
        except httpx.TimeoutException:
            raise RemoteStalled(
                f"{at.name} fell silent", why=f"nothing came for {at.stall:g} s", do=_DO
            ) from None
        except (httpx.TransportError, httpx.DecodingError, httpx.StreamError) as error:
            raise RemoteGarbled(f"{at.name} broke off", why=str(error)[:200], do="ask again") from None
        except httpx.InvalidURL as error:
            raise RemoteError(f"the address of {at.name} cannot be used", why=str(error), do=_DO) from None

    async def _opened(self, url: str, request: Mapping[str, Any]) -> Any:
        """A successful response; tries again where that may help."""
        at, httpx = self._at, self._httpx
        for attempt in range(at.retries + 1):
            delay = min(FIRST_DELAY * 2**attempt, LONGEST_DELAY) * random.uniform(0.75, 1.25)
            try:
                response = await self._client.send(
                    self._client.build_request("POST", url, **request), stream=True
                )
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                refused: RemoteError = RemoteUnavailable(
                    f"{at.name} cannot be reached", why=str(error)[:200] or "no connection", do=_DO
                )
            else:
                if response.is_success:
                    return response
                try:
                    refused = await self._refusal(response)
                    delay = max(delay, _wanted(response.headers.get("retry-after", "")))
                finally:
                    await response.aclose()
            if (
                not isinstance(refused, RemoteUnavailable)
                or attempt == at.retries
                or delay > LONGEST_DELAY * 1.25
            ):
                raise refused
            await asyncio.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    async def _refusal(self, response: Any) -> RemoteError:
        """What an answer that is no success says."""
        at, code = self._at, int(response.status_code)
        body = b""
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_COMPLAINT:
                break
        words = complaint(body[:MAX_COMPLAINT])
        told = f"{_status(code)}: {words}" if words else _status(code)
        if code in _AGAIN:
            return RemoteUnavailable(f"{at.name} does not answer now", why=told, do="try again later")
        if 300 <= code < 400:
            return RemoteRefused(
                f"{at.name} sends us elsewhere", why="redirects are not followed: the key would go along",
                do="write the final address under `remotes:`",
            )  # fmt: skip
        do = {401: "look at its key", 403: "look at its key", 404: "look at its `url` and `model`"}
        return RemoteRefused(f"{at.name} refused", why=told, do=do.get(code, "change what is asked of it"))

    def _garbled(self, why: str) -> RemoteGarbled:
        return RemoteGarbled(f"what {self._at.name} answered cannot be used", why=why, do=_DO)


class _Answer:
    """A response whose body is read until a moment `end`, each wait for itself: a reader may take its time."""

    def __init__(self, response: Any, end: float, garbled: Callable[[str], RemoteGarbled]) -> None:
        self._response, self._end, self._garbled = response, end, garbled
        self.mime = str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()

    async def parts(self, most: int) -> AsyncIterator[bytes]:
        """The body, counted."""
        size, body = 0, self._response.aiter_raw()  # as it comes: pieces of a size would wait to be full
        while True:
            async with asyncio.timeout_at(self._end):
                part = await anext(body, None)
            if part is None:
                return
            size += len(part)
            if size > most:
                raise self._garbled(f"its answer has more than {most >> 20} MiB")
            yield part

    async def whole(self, most: int) -> bytes:
        """All of it."""
        return b"".join([part async for part in self.parts(most)])


@cache
def _trust() -> ssl.SSLContext:
    """The certificates that this machine trusts (`SSL_CERT_FILE` included); reading them takes a quarter second."""
    from httpx2 import create_ssl_context

    return create_ssl_context()


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _wanted(header: str) -> float:
    """Seconds that the endpoint asks us to wait, by a number or a date."""
    try:
        return max(float(header), 0.0) if header.strip() else 0.0
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(header).timestamp() - time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
