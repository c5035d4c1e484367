"""A page read without a browser: the address, what it sends its readers on to, and its style sheets.

What: fetches and reads until there is a page with text; the reading tells what is hidden.
Invariant: every address goes through the client's gate. A style sheet that cannot be had is told, for what it hides
    is not marked; a page that sends its readers on for ever ends as a RedirectLoop.
Interface: `await read(client, url)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmos.apps.browser.keeping import MAX_FILE
from llmos.drivers.web.addresses import parse
from llmos.drivers.web.errors import PageFailed, RedirectLoop, WebError
from llmos.drivers.web.fetch import MAX_REDIRECTS, Client, Fetched

if TYPE_CHECKING:
    from llmos.drivers.web.reader import Reading

MAX_SHEETS = 12  # style sheets of a page that are fetched
SHEET_SECONDS = 4.0  # for all of them
MAX_SHEET = 1 << 20  # bytes
_HTML = frozenset({"text/html", "application/xhtml+xml"})


async def read(client: Client, url: str) -> tuple[Fetched, Reading | None, list[str]]:
    """The page, its reading (None for what is no HTML) and what is to be said of it; a page that only sends its readers
    on is followed.

    Raises:
        WebError: it cannot be had.
    """
    try:
        from llmos.drivers.web import reader
    except ImportError as error:
        raise PageFailed("pages cannot be read", why=str(error), do="pip install 'llmos[browser]'") from None
    path: list[str] = []
    while True:
        fetched = await client.get(url, files=MAX_FILE)
        path += fetched.path
        if fetched.mime not in _HTML or fetched.attached:
            return fetched, None, []
        text, notes = fetched.text()
        tree = await asyncio.to_thread(reader.parse_page, text)
        css, lost = await _sheets(client, reader.style_sheets(tree, fetched.address.url))
        reading = await asyncio.to_thread(reader.read_html, tree, fetched.address.url, css)
        target = reading.refresh
        if not target or reading.written.visible > reader.FEW or target == fetched.address.url:
            break
        path.append(fetched.address.url)
        url = parse(target).url
        if len(path) > MAX_REDIRECTS:
            raise RedirectLoop(f"{path[0]} sends its readers on for ever", do="open another address")
    said = list(notes)
    if path:
        said.append(f"redirected from {path[0]}" + (f" over {len(path) - 1} more" if len(path) > 1 else ""))
    if lost:
        said.append(f"{lost} style sheets could not be had: hidden text may not be marked")
    return fetched, reading, said


async def _sheets(client: Client, wanted: Sequence[tuple[str, str]]) -> tuple[list[str], int]:
    """The texts of style sheets, and how many could not be had."""

    async def fetch(url: str) -> str | None:
        try:
            return (await client.get(url, most=MAX_SHEET, seconds=SHEET_SECONDS)).text()[0]
        except WebError:
            return None

    urls = [url for url, css in wanted if url][:MAX_SHEETS]
    texts = dict(zip(urls, await asyncio.gather(*map(fetch, urls)), strict=True))
    found = [texts.get(url) if url else css for url, css in wanted]
    return [css for css in found if css is not None], sum(css is None for css in found)
