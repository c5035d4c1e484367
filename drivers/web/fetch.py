"""Fetching without a browser: one checked connection at a time, everything bounded.

What: a client over httpx whose connections are made here: host resolved, judged by the gate, connected to the very
    address that was judged; the URL keeps its host, so Host and SNI are those of the name.
Invariant: every redirect is read and judged like the first address. Bytes are counted after unpacking, seconds over
    all of it, redirects too. Nothing of the environment (proxies, .netrc) is used.
Interface: `Client(gate)`: `await get(url) -> Fetched`, `cookies`, `aclose`. Errors: those of `drivers.web.errors`.
"""

from __future__ import annotations

import asyncio
import codecs
import http.cookiejar
import re
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any

import httpcore2
import httpx2

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.reading import decode
from llmos.drivers.web.addresses import Address, Gate, parse
from llmos.drivers.web.errors import PageFailed, PageTimeout, PageTooLarge, RedirectLoop, bad_certificate

MAX_BYTES = 16 << 20  # of a page, unpacked
MAX_REDIRECTS = 10
SECONDS = 20.0  # for all of a fetch
CONNECT_SECONDS = 8.0
_HEADERS = {
    "User-Agent": "Mozilla/5.0 (compatible; llmos)",
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "en",
    "Accept-Encoding": "gzip, deflate",
}
TEXT = re.compile(  # media types that are read as text
    r"text/|application/(json|xml|xhtml\+xml|javascript|ecmascript|x-ndjson|yaml|toml)\Z|.+\+(xml|json)\Z"
)
_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
_MOVED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address gave. `path`: the addresses on the way, the last one's own excluded."""

    address: Address
    mime: str
    charset: str
    data: bytes
    path: tuple[str, ...] = ()
    name: str = ""  # of the file, where the server names one
    attached: bool = False  # the server says that it is to be saved, not shown

    def text(self) -> tuple[str, tuple[str, ...]]:
        """Its characters, and notes on what was assumed. What the server says counts before what the page says."""
        if self.charset:
            try:
                name = codecs.lookup(self.charset).name
                if name not in ("utf-8", "ascii"):
                    name = "cp1252" if name == "iso8859-1" else name  # as browsers read it
                    text = self.data.decode(name, "replace")
                    lost = text.count("\ufffd")
                    return text, (f"{lost} characters are not valid {name}",) if lost else ()
            except (LookupError, ValueError):
                pass
        try:
            return decode(self.data, "the page", declared=True)
        except DocumentError as error:
            raise PageFailed(error.what, why=error.why) from None


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to what the gate gives for a host, and to nothing else."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: Exception | None = None
        for address in await self._gate.addresses(host, port):
            try:
                return await self._inner.connect_tcp(
                    address, port, min(timeout or CONNECT_SECONDS, CONNECT_SECONDS)
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore2.ConnectError("no address")

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("not over Unix sockets")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Transport(httpx2.AsyncBaseTransport):
    """httpx's requests over connections of ours."""

    def __init__(self, gate: Gate) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_trust(), network_backend=_Backend(gate), max_connections=16, keepalive_expiry=15.0
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        url = httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        answer = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=url,
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )  # fmt: skip
        )
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Stream(answer.stream))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


def _trust() -> ssl.SSLContext:
    """The certificates that this machine trusts (`SSL_CERT_FILE` included)."""
    return httpx2.create_ssl_context()


class Client:
    """Fetches for one agent; cookies are its own."""

    def __init__(self, gate: Gate) -> None:
        self.cookies = http.cookiejar.CookieJar()
        self._client = httpx2.AsyncClient(
            transport=_Transport(gate), cookies=self.cookies, headers=_HEADERS, trust_env=False, follow_redirects=False,
            timeout=httpx2.Timeout(SECONDS, connect=CONNECT_SECONDS * 2),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def get(
        self, url: str, *, most: int = MAX_BYTES, files: int = 0, seconds: float = SECONDS
    ) -> Fetched:
        """Fetch an address.

        Args:
            most: bytes after unpacking that are taken.
            files: bytes that are taken of what is neither a page nor text, if that is more.
            seconds: for all of it, redirects included.
        """
        address = parse(url)
        path: list[str] = []
        host = address.host
        try:
            async with asyncio.timeout(seconds):
                while True:
                    host = address.host
                    async with self._stream(address) as response:
                        if response.status_code in _MOVED and "location" in response.headers:
                            path.append(address.url)
                            if len(path) > MAX_REDIRECTS:
                                raise RedirectLoop(
                                    f"{path[0]} redirects for ever", why=f"more than {MAX_REDIRECTS} redirects",
                                    do="open another address",
                                )  # fmt: skip
                            address = parse(response.headers["location"], address.url)
                            continue
                        if not response.is_success:
                            raise PageFailed(f"{address.url} answered {_status(response.status_code)}")
                        return await _whole(response, address, tuple(path), most, files)
        except TimeoutError:
            raise PageTimeout(
                f"{address.url} did not finish in {seconds:g} s", do="try another page, or later"
            ) from None
        except httpx2.DecodingError as error:
            raise PageFailed(f"{address.url} is damaged", why=str(error)) from None
        except (httpcore2.TimeoutException, httpx2.TimeoutException):
            raise PageTimeout(f"{host} does not answer", do="try another page, or later") from None
        except (
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpx2.TransportError,
            httpx2.InvalidURL,
        ) as error:
            if _certificate(error):
                raise bad_certificate(host, _certificate(error)) from None
            raise PageFailed(
                f"{address.url} could not be loaded", why=str(error)[:200], do="check the address"
            ) from None

    @asynccontextmanager
    async def _stream(self, address: Address) -> AsyncIterator[httpx2.Response]:
        async with self._client.stream("GET", address.url) as response:
            yield response


async def _whole(
    response: httpx2.Response, address: Address, path: tuple[str, ...], most: int, files: int
) -> Fetched:
    """The body, counted while it is unpacked."""
    encodings = response.headers.get("content-encoding", "").split(",")
    if strange := {e.strip().lower() for e in encodings} - _ENCODINGS:
        raise PageFailed(
            f"{address.url} is packed by {', '.join(sorted(strange))}", why="that was not asked for"
        )
    header = Message()
    header["content-type"] = response.headers.get("content-type", "application/octet-stream")
    header["content-disposition"] = response.headers.get("content-disposition", "")
    if not TEXT.match(header.get_content_type()):
        most = max(most, files)
    size, chunks = 0, []
    async for chunk in response.aiter_bytes(1 << 16):
        size += len(chunk)
        if size > most:
            why = f"it has more than {most} bytes once it is unpacked"
            raise PageTooLarge(
                f"{address.url} is too large", why=why, do="open a part of it, or another page"
            )
        chunks.append(chunk)
    charset = header.get_content_charset() or ""
    return Fetched(
        address, header.get_content_type(), charset, b"".join(chunks), path, header.get_filename() or "",
        header.get_content_disposition() == "attachment",
    )  # fmt: skip


def _status(code: int) -> str:
    try:
        return f"{code} {HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)


def _certificate(error: BaseException | None) -> str:
    """Why a certificate was refused, if that is what stands behind an error; "" if not."""
    for _ in range(8):
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message or "not trusted"
        if isinstance(error, ssl.SSLError):
            return error.reason or "TLS failed"
        if error is None:
            return ""
        error = error.__cause__ or error.__context__
    return ""
