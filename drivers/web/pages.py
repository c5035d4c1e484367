"""One tab of Chromium: going somewhere, reading what is displayed, clicking, filling, taking a picture.

What: drives a page through Playwright and the DevTools protocol. Reading runs `walk.js` in an isolated world, so the
    page's scripts can neither see nor change how it is read.
Invariant: every wait has an end; a page that hangs is closed, and the call fails with a typed error. Dialogs are
    dismissed and told, pop-ups closed and told unless a click was to open one. An element is acted on only if it is
    the one that the last reading numbered, still there, and what the mouse would hit.
Interface: `Tab(chromium)`: `goto`, `read -> Displayed`, `click`, `fill`, `picture`, `close`; `.notes`, `.downloads`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.drivers.web import hidden
from llmos.drivers.web.addresses import parse
from llmos.drivers.web.errors import (
    NoElement,
    NoPage,
    PageFailed,
    PageTimeout,
    PageTooLarge,
    RedirectLoop,
    WebError,
    bad_certificate,
)
from llmos.drivers.web.flat import CLOSED, tell
from llmos.drivers.web.numbered import HIDDEN, MAX_OPTIONS, NODE, OPTIONS, Attributes
from llmos.drivers.web.relay import BUDGET
from llmos.drivers.web.writing import SPECIAL, Writer
from llmos.drivers.web.written import Written

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Dialog, Download, Page, Request

    from llmos.drivers.web.chromium import Chromium

LOAD_SECONDS = 20.0  # until a page's own markup has come
SETTLE_SECONDS = 4.0  # that its scripts and pictures may take beyond that; then it is read as it is
QUIET_SECONDS = 0.12  # without a request: it has settled
STEP_SECONDS = 20.0  # of one step inside of the page: a page that is busy with itself does not answer
MOVING_TRIES = 30  # tenths of a second that a page gets to be where it says it is
MAX_NODES = 120_000  # elements that are read
MAX_TEXT = 4 << 20  # characters that are read
MAX_NOTES = 8
MAX_PICTURE = 8000  # pixels of height
_WALK = Path(__file__).with_name("walk.js").read_text("utf-8")
_ACT = Path(__file__).with_name("act.js").read_text("utf-8")
_DO = f"function(what, ...rest) {{ return ({_ACT.strip().rstrip(';')})[what].apply(this, rest); }}"
_LIMITS = {
    "nodes": MAX_NODES, "text": MAX_TEXT, "contrast": hidden.MIN_CONTRAST, "opacity": hidden.MIN_OPACITY,
    "size": hidden.MIN_SIZE, "far": hidden.FAR, "box": hidden.MIN_BOX, "choices": MAX_OPTIONS,
    "special": sorted(SPECIAL), "whole": sorted(CLOSED),
    "words": {
        "notShown": hidden.NOT_SHOWN, "invisible": hidden.INVISIBLE, "transparent": hidden.TRANSPARENT,
        "tiny": hidden.TINY, "faint": hidden.FAINT, "away": hidden.AWAY, "cut": hidden.CUT, "folded": hidden.FOLDED,
        "covered": hidden.COVERED, "noScripts": hidden.NO_SCRIPTS,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Shown:
    """Why Chromium does not show what stands in an element, or ""."""

    reason: str


_SEEN = _Shown("")
_REASONS = tuple(_Shown(words) for words in _LIMITS["words"].values())  # type: ignore[attr-defined]
_OWN = {"~n": NODE, "~h": HIDDEN, "~o": OPTIONS}  # as `walk.js` writes them


def _shown(tag: str, attributes: Attributes, state: _Shown) -> tuple[_Shown, Attributes]:
    """What an element of `walk.js` hands down: it has judged everything."""
    return (_REASONS[int(tag[1:])] if tag[0] == "~" else state), attributes


@dataclass(frozen=True, slots=True)
class Displayed:
    """What a page shows: `url` is where it is by now."""

    written: Written
    url: str
    left_out: tuple[str, ...]


class Tab:
    """The tab of one agent; where a click opens a new one, that takes its place."""

    def __init__(self, chromium: Chromium, page: Page) -> None:
        self._chromium, self._page = chromium, page
        self._cdp: CDPSession | None = None
        self._world = 0  # the isolated world of the last reading
        self._busy = 0  # requests that are under way
        self._follow = False  # a click may open a window
        self._renewing = False  # the next page is ours
        self.crashed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.notes: list[str] = []
        self.downloads: list[Download] = []
        chromium.context.on("page", self._opened)
        self._watch(page)

    @classmethod
    async def open(cls, chromium: Chromium) -> Tab:
        """A new one."""
        return cls(chromium, await chromium.context.new_page())

    @property
    def url(self) -> str:
        """Where it is."""
        return self._page.url

    # --- what pages do by themselves ---

    def _watch(self, page: Page) -> None:
        page.on("dialog", self._dialog)
        page.on("download", self._download)
        page.on("crash", lambda _: setattr(self, "crashed", True))
        page.on("request", self._began)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)

    def _download(self, download: Download) -> None:
        self.downloads.append(download)

    def _began(self, request: Request) -> None:
        self._busy += request.resource_type not in ("eventsource", "websocket", "ping")

    def _ended(self, request: Request) -> None:
        self._busy -= request.resource_type not in ("eventsource", "websocket", "ping")

    def _note(self, words: str) -> None:
        if len(self.notes) < MAX_NOTES and words not in self.notes:
            self.notes.append(words)

    async def _dialog(self, dialog: Dialog) -> None:
        with contextlib.suppress(Exception):  # the page may be gone before it is answered
            if dialog.type == "beforeunload":
                await dialog.accept()
                return
            self._note(f"a dialog ({dialog.type}) was dismissed; it said: {dialog.message[:200]!r}")
            await dialog.dismiss()

    def _opened(self, page: Page) -> None:
        if page is self._page or self._renewing:
            return
        if self._follow:
            self._follow = False
            old, self._page, self._cdp, self._busy = self._page, page, None, 0
            self._watch(page)
            self._note("it opened in a new window, which is read now")
            self._later(old.close())
            return
        self._later(self._shut(page))

    async def _shut(self, page: Page) -> None:
        with contextlib.suppress(Exception):
            where = page.url
            await page.close()
            self._note(
                f"a window that it opened by itself was closed{': ' + where if where != 'about:blank' else ''}"
            )

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: a window that was gone before it could be closed

    # --- going, reading ---

    async def goto(self, url: str) -> None:
        """Go to an address that was parsed, and wait until the page has settled."""
        async with self._doing("it"):
            await self._go(url)
            await self._settle()

    async def _go(self, url: str) -> None:
        """Until its markup has come, or the file that it is instead."""
        from playwright.async_api import Error

        for again in (True, False):
            try:
                await self._leave()
                await self._page.goto(url, wait_until="domcontentloaded", timeout=LOAD_SECONDS * 1000)
                return
            except Error as error:
                if again and "interrupted by another navigation" in str(error):
                    await self._renew()
                    continue
                if "Download is starting" in str(error):  # it is told a moment before there is one
                    async with asyncio.timeout(SETTLE_SECONDS):
                        while not self.downloads:
                            await asyncio.sleep(0.02)
                raise

    async def _leave(self) -> None:
        """Away from what is open: it could go elsewhere by itself while the next page comes."""
        from playwright.async_api import Error

        if self._page.url == "about:blank":
            return
        with contextlib.suppress(Error):
            await self._page.goto("about:blank", timeout=LOAD_SECONDS * 1000)
            await self._page.evaluate("0")  # what it had begun before has taken effect by then
            if self._page.url == "about:blank":
                return
        await self._renew()

    async def _renew(self) -> None:
        """Another page in place of one that cannot be left."""
        self._renewing = True
        try:
            page = await self._chromium.context.new_page()
        finally:
            self._renewing = False
        old, self._page, self._cdp, self._busy = self._page, page, None, 0
        self._watch(page)
        self._later(old.close())
        for other in self._chromium.context.pages:
            if other not in (page, old):
                self._later(self._shut(other))

    async def _settle(self) -> None:
        """Wait until it makes no more requests, but not for ever."""
        from playwright.async_api import Error

        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_SECONDS
        with contextlib.suppress(Error):
            await self._page.wait_for_load_state("domcontentloaded", timeout=LOAD_SECONDS * 1000)
        with contextlib.suppress(Error):
            await self._page.wait_for_load_state("load", timeout=SETTLE_SECONDS * 1000)
        quiet = loop.time()
        while loop.time() < end and loop.time() - quiet < QUIET_SECONDS:
            if self._busy > 0:
                quiet = loop.time()
            await asyncio.sleep(0.02)

    async def read(self) -> Displayed:
        """The page as it is now."""
        async with self._doing("the page"):
            for _ in range(MOVING_TRIES):
                if self._page.url != "about:blank":
                    break
                await asyncio.sleep(0.1)
            if not self._page.url.startswith(("http://", "https://")):
                raise PageFailed(
                    f"the page went to {self._page.url[:100]}", why="that is not the web", do="open another"
                )
            found = await self._again(self._walk)
            for _ in range(MOVING_TRIES):  # a new window is empty until its page has come
                if found["url"].partition("#")[0] == self._page.url.partition("#")[0]:
                    break
                await asyncio.sleep(0.1)
                found = await self._again(self._walk)
        writer = Writer(found["url"], found["labels"])
        tell(found["markup"], writer, _shown, _SEEN, _OWN)
        writer.start("title", {})
        writer.text(found["title"])
        writer.end("title")
        left_out = []
        if found["comments"]:
            left_out.append(f"{found['comments']} comments ({found['letters']} characters)")
        if found["templates"]:
            left_out.append(f"{found['templates']} templates")
        if found["cutShort"]:
            left_out.append(
                f"all behind the first {MAX_TEXT >> 20} million characters or {MAX_NODES} elements"
            )
        return Displayed(writer.finish(), found["url"], tuple(left_out))

    async def _again(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Once more where the page moved on under it."""
        from playwright.async_api import Error

        for attempt in range(3):
            try:
                return await work()
            except Error as error:
                if attempt == 2 or not re.search(
                    r"context|navigat|frame|Cannot find", str(error), re.IGNORECASE
                ):
                    raise
                self._cdp = None
                await self._settle()
        raise AssertionError("unreachable")

    async def _walk(self) -> dict[str, Any]:
        protocol = await self._protocol()
        tree = await protocol.send("Page.getFrameTree")
        made = await protocol.send(
            "Page.createIsolatedWorld", {"frameId": tree["frameTree"]["frame"]["id"], "worldName": "llmos"}
        )
        self._world = made["executionContextId"]
        value = await self._evaluate(f"({_WALK})({json.dumps(_LIMITS)})", by_value=True)
        return dict(json.loads(value["value"]))

    async def _protocol(self) -> CDPSession:
        if self._cdp is None:
            self._cdp = await self._chromium.context.new_cdp_session(self._page)
        return self._cdp

    async def _evaluate(self, expression: str, *, by_value: bool) -> dict[str, Any]:
        assert self._cdp is not None
        answer = await self._cdp.send(
            "Runtime.evaluate",
            {
                "expression": expression, "contextId": self._world, "returnByValue": by_value,
                "timeout": STEP_SECONDS * 1000,
            },
        )  # fmt: skip
        if "exceptionDetails" in answer:
            raise PageFailed("the page cannot be read", why=str(answer["exceptionDetails"].get("text"))[:200])
        return dict(answer["result"])

    # --- acting ---

    async def click(self, node: int, name: str) -> None:
        """Click on an element of the last reading."""
        async with self._doing(name):
            self._follow = True
            try:
                await self._click(node, name)
                await asyncio.sleep(0.05)  # a handler that starts a request needs to have run
                await self._settle()
            finally:
                self._follow = False

    async def _click(self, node: int, name: str) -> None:
        element = await self._element(node, name)
        x, y = await self._place(element, name)
        if not await self._call(element, "hit", x, y):
            raise NoElement(
                f"{name} cannot be clicked",
                why="something else lies over it",
                do="read the page again, and look what",
            )
        await self._page.mouse.click(x, y)

    async def fill(self, node: int, name: str, text: str, *, submit: bool) -> None:
        """Put text into a field of the last reading; submit its form."""
        async with self._doing(name):
            element = await self._element(node, name)
            await self._place(element, name)
            what = await self._call(element, "fill", text)
            match what:
                case "locked":
                    raise NoElement(f"{name} cannot be filled", why="the page has locked it")
                case "option":
                    raise NoElement(
                        f"{name} has no choice {text!r}", do="take one of those that the page lists"
                    )
                case "file":
                    raise NoElement(f"{name} wants a file", why="files are not uploaded", do="leave it empty")
                case "value":
                    raise NoElement(
                        f"{name} does not take {text!r}", do="write dates as 2024-05-31, times as 13:05"
                    )
                case "click":
                    await self._click(node, name)
                case "type":
                    await self._page.keyboard.insert_text(text)
            if submit:
                self._follow = True
                try:
                    if not await self._call(element, "submit"):
                        await self._page.keyboard.press("Enter")
                    await asyncio.sleep(0.05)
                    await self._settle()
                finally:
                    self._follow = False

    async def _element(self, node: int, name: str) -> str:
        """The protocol's handle of an element that the last reading numbered."""
        from playwright.async_api import Error

        gone = NoPage(f"{name} is not there any more", why="the page has changed", do="read it again")
        if self._cdp is None or node < 0:
            raise gone
        try:
            found = await self._evaluate(
                f"((e) => e && e.isConnected ? e : null)((globalThis.llmosNodes || [])[{node}])",
                by_value=False,
            )
        except Error:
            raise gone from None
        if "objectId" not in found:
            raise gone
        return str(found["objectId"])

    async def _place(self, element: str, name: str) -> tuple[float, float]:
        """Scroll to an element; its middle in the window."""
        from playwright.async_api import Error

        assert self._cdp is not None
        try:
            await self._cdp.send("DOM.scrollIntoViewIfNeeded", {"objectId": element})
            quads = (await self._cdp.send("DOM.getContentQuads", {"objectId": element}))["quads"]
        except Error:
            quads = []
        if not quads:
            raise NoElement(f"{name} cannot be used", why="it is not displayed", do="read the page again")
        quad = quads[0]
        return sum(quad[0::2]) / 4, sum(quad[1::2]) / 4

    async def _call(self, element: str, what: str, *arguments: object) -> Any:
        assert self._cdp is not None
        answer = await self._cdp.send(
            "Runtime.callFunctionOn",
            {
                "objectId": element, "functionDeclaration": _DO, "returnByValue": True,
                "arguments": [{"value": value} for value in (what, *arguments)],
            },
        )  # fmt: skip
        return answer["result"].get("value")

    async def picture(self, *, whole: bool) -> bytes:
        """A PNG of what is displayed; of the whole page down to MAX_PICTURE pixels."""
        async with self._doing("a picture of the page"):
            clip: Any = None
            if whole:
                metrics = await (await self._protocol()).send("Page.getLayoutMetrics")
                size = metrics["cssContentSize"]
                clip = {
                    "x": 0, "y": 0, "width": max(1, min(size["width"], MAX_PICTURE // 4)),
                    "height": max(1, min(size["height"], MAX_PICTURE)),
                }  # fmt: skip
            return await self._page.screenshot(
                full_page=whole,
                clip=clip,
                timeout=STEP_SECONDS * 1000,
                animations="disabled",
            )

    async def close(self) -> None:
        """Close it."""
        for task in self._tasks:
            task.cancel()
        self._chromium.context.remove_listener("page", self._opened)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STEP_SECONDS):
                await self._page.close()

    # --- when it goes wrong ---

    @asynccontextmanager
    async def _doing(self, what: str) -> AsyncIterator[None]:
        """A step: bounded in time, its failures typed."""
        from playwright.async_api import Error

        self._chromium.relay.refused.clear()
        self._chromium.relay.budget = BUDGET
        try:
            async with asyncio.timeout(LOAD_SECONDS + 2 * SETTLE_SECONDS + STEP_SECONDS):
                yield
        except TimeoutError:
            raise self._slow(what) from None
        except Error as error:
            raise self._failed(what, error) from None

    def _slow(self, what: str) -> WebError:
        return PageTimeout(
            f"{what} did not finish in time", why="the page does not answer", do="try another page, or later"
        )

    def _failed(self, what: str, error: Exception) -> WebError:
        """Playwright's words as an error of ours."""
        text = str(error).partition("\nCall log")[0]
        code = match[1] if (match := re.search(r"net::(ERR_\w+)", text)) else ""
        refused = list(self._chromium.relay.refused)
        host = self._host(text)
        if self.crashed:
            return PageTooLarge("the page crashed", why="it took more memory than a page may have")
        if code.startswith("ERR_CERT") or code in (
            "ERR_SSL_PROTOCOL_ERROR",
            "ERR_SSL_VERSION_OR_CIPHER_MISMATCH",
        ):
            return bad_certificate(host, code)
        if code == "ERR_TOO_MANY_REDIRECTS":
            return RedirectLoop(
                "the page redirects for ever", why="more than 20 redirects", do="open another address"
            )
        if code and refused:  # of the page itself rather than of what it wanted to load
            return next((why for name, why in refused if name == host), refused[-1][1])
        if "Timeout" in text:
            return self._slow(what)
        return PageFailed(
            f"{what} could not be loaded", why=code or text[:200], do="check the address, or try later"
        )

    def _host(self, text: str) -> str:
        match = re.search(r"at (https?://\S+)", text)
        try:
            return parse(match[1]).host if match else "the server"
        except WebError:
            return "the server"
