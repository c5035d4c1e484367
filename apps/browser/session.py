"""One agent's browsing: which reader reads a page, what is open, what is kept.

What: opens addresses by the light reader, by Chromium where the page needs it, and holds the page that is open as
    text in parts, with its links and controls.
Invariant: one thing at a time. Cookies and storage are this session's alone; a site that Chromium has talked to stays
    with Chromium, so that they are of one piece. A page is replaced only by one that was read. Files that a page hands
    out go to the working volume, under a safe name, or nowhere.
Interface: `Session(settings)`: `open`, `click`, `fill`, `picture`, `search`, `reread`, `page`, `stay`, `aclose`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from http.cookiejar import Cookie
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from llmos.apps.browser import light
from llmos.apps.browser.keeping import downloaded, keep, last_name
from llmos.apps.browser.options import Settings
from llmos.apps.browser.page import Page, clickable, control, document, plain, same_page, written_page
from llmos.drivers.web.addresses import Gate, parse
from llmos.drivers.web.chromium import Chromium
from llmos.drivers.web.engines import DuckDuckGo, Engine, Found, LocalIndex, SearXNG
from llmos.drivers.web.errors import ChromiumMissing, NoPage, PageFailed, PageTimeout, WebError
from llmos.drivers.web.fetch import TEXT, Client, Fetched
from llmos.drivers.web.pages import Displayed, Tab

_DOCUMENTS = {  # media type -> suffix by which the document readers know it
    "application/pdf": ".pdf", "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
}  # fmt: skip


class Session:
    """One agent's browser.

    Args:
        gate: the way out; one of the settings' own where it is not given.
    """

    def __init__(self, settings: Settings, gate: Gate | None = None) -> None:
        self._settings = settings
        self._gate = gate or Gate(settings.allow)
        self._lock = asyncio.Lock()
        self._chromium: Chromium | None = None
        self._tab: Tab | None = None
        self.stay: set[str] = set()  # hosts whose pages Chromium reads: it has their cookies
        self._page: Page | None = None

    @cached_property
    def _client(self) -> Client:
        return Client(self._gate)

    @cached_property
    def _engine(self) -> Engine:
        settings = self._settings
        if settings.search == "searxng":
            return SearXNG(settings.searxng, self._gate)
        if settings.search == "index" and settings.index is not None:
            return LocalIndex(settings.index, settings.base)
        return DuckDuckGo()

    @property
    def page(self) -> Page:
        """What is open; NoPage where nothing is."""
        if self._page is None:
            raise NoPage(
                "no page is open", why="none was opened, or the browser was started anew", do="open one"
            )
        return self._page

    async def search(self, query: str, count: int) -> list[Found]:
        """What the configured engine finds."""
        return await self._engine.search(query, count)

    # --- opening ---

    async def open(self, url: str, volume: Path | None, *, scripts: bool = False) -> Page:
        """Open an address; `scripts` asks for Chromium even where the page can be read without."""
        address = parse(url)
        async with self._lock:
            if scripts or address.host in self.stay:
                return await self._open_displayed(address.url, volume)
            fetched, reading, notes = await light.read(self._client, address.url)
            if reading is None:
                return await self._not_html(fetched, volume)
            if reading.doubts or reading.empty:
                try:
                    return await self._open_displayed(fetched.address.url, volume)
                except ChromiumMissing as error:
                    why = (
                        "made by scripts" if reading.empty else "styled in a way that only Chromium can judge"
                    )
                    notes.append(f"this page is {why}, and Chromium cannot be had ({error.what}): text may be missing, "
                                 "or be marked wrongly")  # fmt: skip
            self._page = written_page(fetched.address.url, reading.written, notes, reading.left_out)
            return self._page

    async def _not_html(self, fetched: Fetched, volume: Path | None) -> Page:
        """Text as it is, documents through their readers; anything else is a file."""
        url = fetched.address.url
        suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
        suffix = _DOCUMENTS.get(fetched.mime) or (suffix if suffix in _DOCUMENTS.values() else "")
        if TEXT.match(fetched.mime) and not fetched.attached and not suffix:
            text, notes = fetched.text()
            self._page = plain(url, url, [b for b in re.split(r"\n\s*\n", text) if b.strip()], notes)
        elif suffix and not fetched.attached:
            self._page = await asyncio.to_thread(document, fetched, suffix)
        else:
            name = keep(volume, fetched.name or last_name(url), fetched.data)
            words = f"{url} is a file ({fetched.mime}, {len(fetched.data)} bytes), kept in the working volume as {name}"
            self._page = Page(url, name, (words,))
        return self._page

    # --- Chromium ---

    async def _open_displayed(self, url: str, volume: Path | None) -> Page:
        host, port = (address := parse(url)).host, address.port
        await self._gate.addresses(host, port)  # the relay asks again; but here the answer has words
        async with self._living() as tab:
            if host not in self.stay:
                self.stay.add(host)
                await self._hand_over_cookies(host)
            tab.notes.clear()
            tab.downloads.clear()
            try:
                await tab.goto(url)
            except PageFailed:
                if not tab.downloads:
                    raise
                kept = await downloaded(tab, volume)
                self._page = Page(url, url, (f"{url} is a file. " + " ".join(kept),))
                return self._page
            if not same_page(tab.url, url):
                tab.notes.append(f"redirected from {url}")
            return await self._displayed(tab, volume)

    async def _displayed(self, tab: Tab, volume: Path | None) -> Page:
        """What the tab shows now, as the page that is open."""
        shown: Displayed = await tab.read()
        kept = await downloaded(tab, volume)
        with contextlib.suppress(WebError):
            self.stay.add(parse(shown.url).host)
        said = [*tab.notes, *kept]
        self._page = written_page(shown.url, shown.written, said, shown.left_out, live=True)
        return self._page

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[Tab]:
        """The tab; a page that hangs is closed, and where even that hangs, the browser."""
        if self._chromium is None or not self._chromium.alive:
            await self._end_chromium()
            self._chromium = await Chromium.start(self._gate, program=self._settings.chromium)
        if self._tab is None:
            self._tab = await Tab.open(self._chromium)
        try:
            yield self._tab
        except (PageTimeout, asyncio.CancelledError):
            tab, self._tab = self._tab, None
            if self._page is not None and self._page.live:
                self._page = None
            if tab is not None:
                await tab.close()
            raise
        except WebError:
            if self._tab is not None and self._tab.crashed:
                self._tab = None
            if self._chromium is not None and not self._chromium.alive:
                await self._end_chromium()
            raise

    async def _end_chromium(self) -> None:
        chromium, self._chromium, self._tab = self._chromium, None, None
        if self._page is not None and self._page.live:
            self._page = None
        if chromium is not None:
            await chromium.close()

    async def _hand_over_cookies(self, host: str) -> None:
        """What the light reader got from a site goes with it to Chromium."""
        assert self._chromium is not None
        mine = [cookie for cookie in self._client.cookies if _belongs(cookie, host)]
        if mine:
            await self._chromium.context.add_cookies([_for_chromium(cookie) for cookie in mine])  # type: ignore[misc]

    async def click(self, url: str, element: str, volume: Path | None) -> Page:
        """Click on a link or button of the page that is open, which must be `url`."""
        async with self._lock, self._live(url, volume) as (tab, page):
            name, node = clickable(page, element)
            await tab.click(node, name)
            return await self._displayed(tab, volume)

    async def fill(self, url: str, field: str, text: str, volume: Path | None, *, submit: bool) -> Page:
        """Put text into a field of the page that is open, which must be `url`."""
        async with self._lock, self._live(url, volume) as (tab, page):
            found = control(page.controls, field, "F", "field")
            await tab.fill(found.node, found.name, text, submit=submit)
            return await self._displayed(tab, volume)

    @asynccontextmanager
    async def _live(self, url: str, volume: Path | None) -> AsyncIterator[tuple[Tab, Page]]:
        """The open page in Chromium, if it is the one that the caller names."""
        page = self.page
        if not same_page(url, page.url):
            raise NoPage(
                f"{url} is not open", why=f"{page.url} is", do="give that address, or open the other first"
            )
        if not page.live:
            before = page
            page = await self._open_displayed(page.url, volume)
            if [c.name + c.words for c in page.controls] != [c.name + c.words for c in before.controls]:
                raise NoPage(
                    "the page has other fields and buttons once its scripts run", why="it was read without them",
                    do="read it again, then try again with its numbers",
                )  # fmt: skip
        async with self._living() as tab:
            tab.notes.clear()
            yield tab, page

    async def picture(self, url: str, volume: Path | None, *, whole: bool) -> bytes:
        """A PNG of a page, which is opened if it is not."""
        address = parse(url)
        async with self._lock:
            if self._page is None or not self._page.live or not same_page(self._page.url, address.url):
                await self._open_displayed(address.url, volume)
            async with self._living() as tab:
                return await tab.picture(whole=whole)

    async def reread(self, volume: Path | None) -> Page:
        """The open page as it is now: scripts may have changed it."""
        async with self._lock:
            page = self.page
            if not page.live:
                return page
            async with self._living() as tab:
                return await self._displayed(tab, volume)

    def forget(self) -> None:
        """Remove what the browser kept, for a program that ends."""
        if self._chromium is not None:
            self._chromium.forget()

    async def aclose(self) -> None:
        """End the browser and all connections."""
        await self._end_chromium()
        if "_client" in self.__dict__:
            await self._client.aclose()
        if "_engine" in self.__dict__:
            await self._engine.aclose()


def _belongs(cookie: Cookie, host: str) -> bool:
    domain = cookie.domain.lstrip(".")
    return host == domain or (cookie.domain_initial_dot and host.endswith("." + domain))


def _for_chromium(cookie: Cookie) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": cookie.name, "value": cookie.value or "", "domain": cookie.domain, "path": cookie.path,
        "secure": cookie.secure, "httpOnly": cookie.has_nonstandard_attr("HttpOnly"),
    }  # fmt: skip
    if cookie.expires:
        made["expires"] = float(cookie.expires)
    return made
