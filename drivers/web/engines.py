"""Search engines, each a driver: SearXNG, DuckDuckGo, and an index of one's own.

What: from a query to titles, addresses and the words around a match.
Invariant: an engine answers within its seconds with results that have an http address, or fails with SearchFailed; what
    it says is bounded and plain text. A SearXNG server is reached through a gate that lets its own address pass and
    nothing else that is private.
Interface: `Engine.search(query, count) -> [Found]`; `SearXNG(url, gate)`, `DuckDuckGo()`, `LocalIndex(folder, base)`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.reading import format_of
from llmos.drivers.documents.worker import DocumentReader
from llmos.drivers.web.addresses import Gate, parse
from llmos.drivers.web.errors import SearchFailed, WebError
from llmos.drivers.web.fetch import Client

SECONDS = 15.0
MAX_ANSWER = 4 << 20  # bytes of an engine's answer
MAX_FILES = 20_000  # of an index
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True, slots=True)
class Found:
    """One result: plain text, bounded."""

    title: str
    url: str
    words: str

    @classmethod
    def of(cls, title: Any, url: Any, words: Any) -> Found | None:
        """From what an engine said; None where it has no address that could be opened."""
        try:
            address = parse(str(url)).url
        except WebError:
            return None
        return cls(_plain(title, 200) or address, address, _plain(words, 400))


class Engine(Protocol):
    """What a search engine does."""

    async def search(self, query: str, count: int) -> list[Found]: ...

    async def aclose(self) -> None: ...


class SearXNG:
    """A SearXNG server's JSON, or any other that speaks it. Its `search.formats` must list json."""

    def __init__(self, url: str, gate: Gate) -> None:
        address = parse(url)
        self._url = address.url.rstrip("/").removesuffix("/search")
        host = f"[{address.host}]" if ":" in address.host else address.host
        self._client = Client(gate.also(f"{host}:{address.port}"))

    async def search(self, query: str, count: int) -> list[Found]:
        """The first results."""
        url = f"{self._url}/search?{urlencode({'q': query, 'format': 'json'})}"
        try:
            fetched = await self._client.get(url, most=MAX_ANSWER, seconds=SECONDS)
        except WebError as error:
            do = "look whether the server runs and its settings.yml has `formats: [html, json]`"
            raise SearchFailed("the search engine did not answer", why=str(error), do=do) from None
        try:
            results = json.loads(fetched.data)["results"]
            found = [Found.of(r.get("title"), r.get("url"), r.get("content")) for r in results[: 4 * count]]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise SearchFailed(
                "the search engine answered something else than results", why=f"{fetched.mime} from {self._url}",
                do="its settings.yml must have `formats: [html, json]`",
            ) from None  # fmt: skip
        return [one for one in found if one is not None][:count]

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()


class DuckDuckGo:
    """DuckDuckGo's pages, read by the package `ddgs`, which has its own connections to that one engine."""

    async def search(self, query: str, count: int) -> list[Found]:
        """The first results."""
        try:
            from ddgs import DDGS
            from ddgs.exceptions import DDGSException
        except ImportError:
            raise SearchFailed(
                "the package ddgs is not installed", do="pip install 'llmos[browser]'"
            ) from None

        def ask() -> list[dict[str, Any]]:
            return list(DDGS(timeout=int(SECONDS)).text(query, max_results=count, backend="duckduckgo"))

        try:
            async with asyncio.timeout(SECONDS + 5):
                results = await asyncio.to_thread(ask)
        except (DDGSException, OSError, TimeoutError) as error:
            why = str(error)[:200] or "no answer in time"
            if "No results" in why:
                return []
            do = "try later, or set `search: searxng` or `index` for the browser"
            raise SearchFailed("DuckDuckGo did not answer", why=why, do=do) from None
        found = (Found.of(r.get("title"), r.get("href"), r.get("body")) for r in results)
        return [one for one in found if one is not None][:count]

    async def aclose(self) -> None:
        """Nothing is held."""


class LocalIndex:
    """A folder of documents that are served at an address: searched by words (BM25), read anew when it is started.

    Args:
        folder: the documents: pages, texts, PDFs, whatever volumes read.
        base: the address at which the folder is served.
    """

    def __init__(self, folder: Path, base: str) -> None:
        self._folder, self._base = folder, parse(base).url.rstrip("/") + "/"
        self._lock = asyncio.Lock()
        self._table: sqlite3.Connection | None = None

    async def search(self, query: str, count: int) -> list[Found]:
        """The best matches."""
        async with self._lock:
            return await asyncio.to_thread(self._search, query, count)

    def _search(self, query: str, count: int) -> list[Found]:
        table = self._table = self._table or self._read()
        words = re.findall(r"\w+", query)[:32]
        if not words:
            return []
        match = " OR ".join(f'"{word}"' for word in words)
        rows = table.execute(
            "SELECT title, path, snippet(pages, 2, '', '', ' … ', 40) FROM pages WHERE pages MATCH ?"
            " ORDER BY bm25(pages, 4.0, 2.0, 1.0) LIMIT ?",
            (match, count),
        )
        found = (Found.of(title, self._base + quote(path), words) for title, path, words in rows)
        return [one for one in found if one is not None]

    def _read(self) -> sqlite3.Connection:
        if not self._folder.is_dir():
            raise SearchFailed(
                f"{self._folder} is no folder",
                why="the browser's `index` names it",
                do="correct it in llmos.yaml",
            )
        table = sqlite3.connect(":memory:", check_same_thread=False)
        table.execute(
            "CREATE VIRTUAL TABLE pages USING fts5(title, path, body, tokenize = 'porter unicode61')"
        )
        files = (path for path in sorted(self._folder.rglob("*")) if path.is_file() and not path.is_symlink())
        with DocumentReader() as reader:
            for _, path in zip(range(MAX_FILES), (path for path in files if format_of(path)), strict=False):
                try:
                    document = reader.read(path)
                except DocumentError:
                    continue  # it would not open either
                body = "\n".join(block.text for block in document.blocks)
                row = (document.title, path.relative_to(self._folder).as_posix(), body)
                table.execute("INSERT INTO pages VALUES (?, ?, ?)", row)
        return table

    async def aclose(self) -> None:
        """Drop the index."""
        if self._table is not None:
            self._table.close()
            self._table = None


def _plain(text: Any, most: int) -> str:
    """Words without tags, one line."""
    words = " ".join(unescape(_TAG.sub("", text)).split()) if isinstance(text, str) else ""
    return words[:most]
