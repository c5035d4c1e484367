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
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from http.cookiejar import Cookie
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from llmos.abi.errors import AppError, DocumentError
from llmos.apps.browser.options import Settings
from llmos.drivers.beneath import Beneath, numbered
from llmos.drivers.documents.worker import DocumentReader
from llmos.drivers.web.addresses import Gate, parse
from llmos.drivers.web.chromium import Chromium
from llmos.drivers.web.engines import DuckDuckGo, Engine, Found, LocalIndex, SearXNG
from llmos.drivers.web.errors import (
    ChromiumMissing,
    DownloadFailed,
    NoElement,
    NoPage,
    PageFailed,
    PageTimeout,
    RedirectLoop,
    WebError,
)
from llmos.drivers.web.fetch import MAX_REDIRECTS, TEXT, Client, Fetched
from llmos.drivers.web.pages import Displayed, Tab
from llmos.drivers.web.parts import parts
from llmos.drivers.web.writing import CLOSE, OPEN, Control, Link

PART = 4000  # characters of a part: with its links about a quarter of a window of 8,192 tokens
MAX_SHEETS = 12  # style sheets of a page that the light reader fetches
SHEET_SECONDS = 4.0  # for all of them
MAX_SHEET = 1 << 20  # bytes
MAX_FILE = 64 << 20  # bytes of a file that is kept
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_DOCUMENTS = {  # media type -> suffix by which the document readers know it
    "application/pdf": ".pdf", "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """What is open, as it was read. `live`: Chromium shows it, so it can be clicked and filled."""

    url: str
    title: str
    parts: tuple[str, ...]
    links: tuple[Link, ...] = ()
    controls: tuple[Control, ...] = ()
    notes: tuple[str, ...] = ()
    live: bool = False
    link_nodes: tuple[tuple[int, int], ...] = ()


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
            fetched, reading, notes = await self._read_light(address.url)
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
            written = reading.written
            blocks = written.blocks or ("(the page has no text)",)
            self._page = Page(
                fetched.address.url, written.title or fetched.address.url, tuple(parts(blocks, PART)), written.links,
                written.controls, _notes(notes, written.marked, reading.left_out),
            )  # fmt: skip
            return self._page

    async def _read_light(self, url: str) -> tuple[Fetched, Any, list[str]]:
        """The page and its reading, None for what is no HTML; a page that only sends its readers on is followed."""
        try:
            from llmos.drivers.web import reader
        except ImportError as error:
            raise PageFailed(
                "pages cannot be read", why=str(error), do="pip install 'llmos[browser]'"
            ) from None
        path: list[str] = []
        while True:
            fetched = await self._client.get(url, files=MAX_FILE)
            path += fetched.path
            if fetched.mime not in _HTML or fetched.attached:
                return fetched, None, []
            text, notes = fetched.text()
            tree = await asyncio.to_thread(reader.parse_page, text)
            css, lost = await self._sheets(reader.style_sheets(tree, fetched.address.url))
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
            said.append(
                f"redirected from {path[0]}" + (f" over {len(path) - 1} more" if len(path) > 1 else "")
            )
        if lost:
            said.append(f"{lost} style sheets could not be had: hidden text may not be marked")
        return fetched, reading, said

    async def _sheets(self, wanted: Sequence[tuple[str, str]]) -> tuple[list[str], int]:
        """The texts of style sheets, and how many could not be had."""

        async def fetch(url: str) -> str | None:
            try:
                return (await self._client.get(url, most=MAX_SHEET, seconds=SHEET_SECONDS)).text()[0]
            except WebError:
                return None

        urls = [url for url, css in wanted if url][:MAX_SHEETS]
        texts = dict(zip(urls, await asyncio.gather(*map(fetch, urls)), strict=True))
        found = [texts.get(url) if url else css for url, css in wanted]
        return [css for css in found if css is not None], sum(css is None for css in found)

    async def _not_html(self, fetched: Fetched, volume: Path | None) -> Page:
        """Text as it is, documents through their readers; anything else is a file."""
        url = fetched.address.url
        suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
        document = _DOCUMENTS.get(fetched.mime) or (suffix if suffix in _DOCUMENTS.values() else "")
        if TEXT.match(fetched.mime) and not fetched.attached and not document:
            text, notes = fetched.text()
            blocks = [OPEN_SIGNS.sub("[[", block) for block in re.split(r"\n\s*\n", text) if block.strip()]
            self._page = Page(url, url, tuple(parts(blocks, PART)), notes=tuple(notes))
        elif document and not fetched.attached:
            self._page = await asyncio.to_thread(_document, fetched, document)
        else:
            name = _keep(volume, fetched.name or _last_name(url), fetched.data)
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
                kept = await self._kept(tab, volume)
                self._page = Page(url, url, (f"{url} is a file. " + " ".join(kept),))
                return self._page
            if _bare(tab.url) != _bare(url):
                tab.notes.append(f"redirected from {url}")
            return await self._displayed(tab, volume)

    async def _displayed(self, tab: Tab, volume: Path | None) -> Page:
        """What the tab shows now, as the page that is open."""
        shown: Displayed = await tab.read()
        kept = await self._kept(tab, volume)
        written = shown.written
        notes = _notes([*tab.notes, *kept], written.marked, shown.left_out)
        with contextlib.suppress(WebError):
            self.stay.add(parse(shown.url).host)
        blocks = written.blocks or ("(the page has no text)",)
        self._page = Page(
            shown.url, written.title or shown.url, tuple(parts(blocks, PART)), written.links, written.controls, notes,
            live=True, link_nodes=tuple(written.link_nodes.items()),
        )  # fmt: skip
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

    async def _kept(self, tab: Tab, volume: Path | None) -> list[str]:
        """What the page handed out, in the working volume."""
        said = []
        for download in tab.downloads[:4]:
            name = download.suggested_filename
            try:
                async with asyncio.timeout(30):
                    path = await download.path()
                size = Path(path).stat().st_size
                if size > MAX_FILE:
                    raise DownloadFailed(f"{name} has {size} bytes", why=f"at most {MAX_FILE} are kept")
                kept = _keep(volume, name, await asyncio.to_thread(Path(path).read_bytes))
                said.append(f"a file was kept in the working volume as {kept} ({size} bytes)")
            except (AppError, TimeoutError) as error:
                said.append(f"the file {name!r} was not kept: {error or 'it did not finish in time'}")
            except Exception as error:  # Playwright's own: cancelled, failed, gone
                said.append(f"the file {name!r} was not kept: {str(error).splitlines()[0][:100]}")
            with contextlib.suppress(Exception):
                await download.delete()
        tab.downloads.clear()
        return said

    async def click(self, url: str, element: str, volume: Path | None) -> Page:
        """Click on a link or button of the page that is open, which must be `url`."""
        async with self._lock, self._live(url, volume) as (tab, page):
            name, node = _find_clickable(page, element)
            await tab.click(node, name)
            return await self._displayed(tab, volume)

    async def fill(self, url: str, field: str, text: str, volume: Path | None, *, submit: bool) -> Page:
        """Put text into a field of the page that is open, which must be `url`."""
        async with self._lock, self._live(url, volume) as (tab, page):
            control = _find(page.controls, field, "F", "field")
            await tab.fill(control.node, control.name, text, submit=submit)
            return await self._displayed(tab, volume)

    @asynccontextmanager
    async def _live(self, url: str, volume: Path | None) -> AsyncIterator[tuple[Tab, Page]]:
        """The open page in Chromium, if it is the one that the caller names."""
        page = self.page
        if _bare(url) != _bare(page.url):
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
            if self._page is None or not self._page.live or _bare(self._page.url) != _bare(address.url):
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


OPEN_SIGNS = re.compile(f"[{OPEN}{CLOSE}]")


def _notes(said: Sequence[str], marked: int, left_out: Sequence[str]) -> tuple[str, ...]:
    notes = list(said)
    if marked:
        notes.append(
            f"{marked} stretches of text cannot be seen on the page; they are marked {OPEN}hidden{CLOSE}"
        )
    if left_out:
        notes.append("left out: " + ", ".join(left_out))
    return tuple(notes)


def _bare(url: str) -> str:
    return url.partition("#")[0].rstrip("/")


def _find_clickable(page: Page, element: str) -> tuple[str, int]:
    """A link, button or field by its number or words: its name and node."""
    nodes = dict(page.link_nodes)
    wanted = element.strip().strip("[]")
    for link in page.links:
        if link.name.lower() == wanted.lower():
            return link.name, nodes.get(link.number, -1)
    by_words = [(one.name, nodes.get(one.number, -1)) for one in page.links if _same(one.words, wanted)]
    by_words += [(one.name, one.node) for one in page.controls if _same(one.words, wanted)]
    if len(by_words) == 1:
        return by_words[0]
    if len(by_words) > 1:
        names = ", ".join(name for name, _ in by_words[:8])
        raise NoElement(f"{element!r} names several things", why=names, do="say which, by its number")
    control = _find(page.controls, wanted, "BF", "link or button")
    return control.name, control.node


def _find(controls: Sequence[Control], wanted: str, letters: str, kind: str) -> Control:
    """A control by its number or words; NoElement says what there is."""
    wanted = wanted.strip().strip("[]")
    mine = [one for one in controls if one.name[0] in letters]
    for one in mine:
        if one.name.lower() == wanted.lower():
            return one
    found = [one for one in mine if _same(one.words, wanted)]
    found = found or [one for one in mine if wanted and wanted.lower() in one.words.lower()]
    if len(found) == 1:
        return found[0]
    there = ", ".join(f"{one.name} ({one.words})" for one in (found or mine)[:12]) or "there is none"
    what = f"{wanted!r} names several {kind}s" if found else f"there is no {kind} {wanted!r}"
    raise NoElement(what, why=there, do="name one by its number")


def _same(one: str, other: str) -> bool:
    return " ".join(one.lower().split()).rstrip(":* ") == " ".join(other.lower().split()).rstrip(":* ")


def _document(fetched: Fetched, suffix: str) -> Page:
    """A PDF or office document, by the readers that volumes use, in their process."""
    with tempfile.TemporaryDirectory(prefix="llmos-document-") as folder:
        path = Path(folder) / ("document" + suffix)
        path.write_bytes(fetched.data)
        try:
            with DocumentReader() as reader:
                document = reader.read(path)
        except DocumentError as error:
            raise PageFailed(f"{fetched.address.url}: {error.what}", why=error.why, do=error.do) from None
    blocks = ["# " + b.text if b.kind == "heading" else b.text for b in document.blocks]
    url, title = fetched.address.url, document.title if document.title != path.name else fetched.address.url
    return Page(
        url,
        title,
        tuple(parts([OPEN_SIGNS.sub("[[", block) for block in blocks], PART)),
        notes=document.notes,
    )


# --- files and cookies ---


def _last_name(url: str) -> str:
    return unquote(PurePosixPath(urlsplit(url).path).name) or "download"


def safe_name(name: str) -> str:
    """A file's name that leads nowhere: letters, digits and little else, not hidden, not too long."""
    name = re.sub(r"[^\w .()+-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem[:80]}{dot}{suffix[:16]}" if dot else name[:96]
    return name or "download"


def _keep(volume: Path | None, name: str, data: bytes) -> str:
    """Put a file into the working volume under a name that is free."""
    if volume is None:
        raise DownloadFailed(f"{name} cannot be kept", why="this process has no working volume")
    name = safe_name(name)
    with Beneath(volume) as files:
        for free in islice(numbered(name, "{stem} ({n}){suffix}"), 999):
            if files.look(free) is None:
                files.write(free, data)
                return free
    raise DownloadFailed(f"{name} cannot be kept", why="a thousand files of that name are there")


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
