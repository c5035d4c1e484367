"""The browser: addresses refused, hidden text marked, and how long a page of a megabyte takes.

What: `addresses.forms` ways to an address that must not be reached, and how many were `refused` (with a server behind
    them that would notice); `tricks` that hide text, and how many were `marked`, by whichever reader the browser takes
    and by Chromium; `false_marks`, the share of words that were marked on pages that hide none; milliseconds of
    `Session.open` for local pages of 1 MiB, the median, by the light reader and by Chromium.
Invariant: everything is real: servers on this machine, the browser's own session, Debian's Chromium. Where that is
    missing its figures are absent.
Interface: `run(quick, progress)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from collections.abc import Sequence

from benchmarks.browser_set import (
    ADDRESSES,
    HIDDEN,
    NAMES,
    PLAIN,
    REDIRECTS,
    SHOWN,
    SUBRESOURCES,
    TRICKS,
    Site,
    large_page,
    plain,
    trick,
)  # fmt: skip
from benchmarks.figures import Figures, Progress
from llmos.abi.errors import AppError
from llmos.apps.browser.options import Settings
from llmos.apps.browser.page import Page
from llmos.apps.browser.session import Session
from llmos.drivers.web.addresses import Gate, resolve
from llmos.drivers.web.chromium import find_chromium
from llmos.drivers.web.errors import AddressRefused, ChromiumMissing, PageTimeout, WebError

_MARK = re.compile("⟦hidden [^⟧]*⟧")


def session_for(*sites: Site) -> Session:
    """A browser that may reach these servers, and whose resolver knows the hostile names."""
    asked: dict[str, int] = {}

    async def names(host: str, port: int) -> Sequence[str]:
        if host == "public.example":
            return ["93.184.216.34"]
        if host in NAMES:
            asked[host] = asked.get(host, -1) + 1
            return NAMES[host][min(asked[host], 1)]
        return await resolve(host, port)

    allow = tuple(f"127.0.0.1:{site.port}" for site in sites)
    return Session(Settings(allow=allow), Gate(allow, names))


async def refused(progress: Progress, chromium: bool) -> tuple[int, int, list[str]]:
    """Forms, how many of them were refused, and the others."""
    missed: list[str] = []
    forms = 0
    with Site({"/": "secret"}) as canary, Site() as open_site:
        session = session_for(open_site)

        async def attempt(url: str) -> None:
            nonlocal forms
            forms += 1
            try:
                await session.open(url, None)
                missed.append(url)
            except AddressRefused:
                pass
            except WebError as error:
                missed.append(f"{url}: {type(error).__name__}")
            if canary.hits:
                missed.append(f"{url}: reached")
                canary.hits.clear()

        for url in ADDRESSES:
            await attempt(url.replace("{port}", str(canary.port)))
        for name in NAMES:
            await attempt(f"http://{name}/")
        for number, where in enumerate(REDIRECTS):
            target = where.replace("{port}", str(canary.port))
            open_site.pages[f"/r{number}"] = (302, {"Location": target, "Content-Length": "0"}, b"")
            open_site.pages[f"/m{number}"] = f"<meta http-equiv=refresh content='0; url={target}'>"
            await attempt(f"{open_site.url}/r{number}")
            await attempt(f"{open_site.url}/m{number}")
        if chromium:
            progress("from inside of Chromium")
            for number, markup in enumerate(SUBRESOURCES):
                forms += 1
                body = markup.replace("{url}", f"http://127.0.0.1:{canary.port}/").replace(
                    "{port}", str(canary.port)
                )
                open_site.pages[f"/s{number}"] = f"<p>page</p>{body}"
                with contextlib.suppress(AppError):  # it went where it may not, and was held
                    await session.open(f"{open_site.url}/s{number}", None, scripts=True)
                if canary.hits:
                    missed.append(f"{markup}: reached")
                    canary.hits.clear()
        await session.aclose()
    return forms, forms - len(missed), missed


def is_marked(page: Page) -> bool:
    """Whether the hidden text is there, in a mark, and the visible text is there without one."""
    text = "\n".join(page.parts)
    outside = _MARK.sub("", text)
    return HIDDEN in text and HIDDEN not in outside and SHOWN in outside


async def marked(*, scripts: bool) -> tuple[list[str], float]:
    """The tricks that were not marked, and the share of plain words that were."""
    pages: dict[str, object] = {f"/t{n}": trick(name) for n, name in enumerate(TRICKS)}
    pages |= {f"/p{n}": plain(name) for n, name in enumerate(PLAIN)}
    missed, words, false = [], 0, 0
    with Site(pages) as site:
        session = session_for(site)
        for n, name in enumerate(TRICKS):
            page = await session.open(f"{site.url}/t{n}", None, scripts=scripts)
            if not is_marked(page):
                missed.append(name)
            session.stay.clear()  # each page anew by the reader that fits it
        for n in range(len(PLAIN)):
            text = "\n".join((await session.open(f"{site.url}/p{n}", None, scripts=scripts)).parts)
            words += len(text.split())
            false += sum(len(mark.split()) for mark in _MARK.findall(text))
            session.stay.clear()
        await session.aclose()
    return missed, false / words


async def seconds(kind: str, rounds: int, *, scripts: bool) -> list[float]:
    """How long opening a page of a megabyte took, each time."""
    with Site({"/": large_page(kind)}) as site:
        session = session_for(site)
        took = []
        try:
            for _ in range(rounds + 1):
                began = time.perf_counter()
                page = await session.open(f"{site.url}/", None, scripts=scripts)
                took.append(time.perf_counter() - began)
                assert len(page.parts) > 20
        finally:
            await session.aclose()
    return took[1:]  # the first one starts Chromium and imports the reader


def run(quick: bool, progress: Progress) -> Figures:
    """All of it; `quick` opens large pages fewer times."""
    try:
        find_chromium()
        chromium = True
    except ChromiumMissing:
        chromium = False
    notes: list[str] = []
    progress("addresses")
    forms, held, reached = asyncio.run(refused(progress, chromium))
    values: dict[str, float] = {"addresses.forms": forms, "addresses.refused": held}
    notes += [f"not refused: {what}" for what in reached]
    progress("hidden text")
    missed, false = asyncio.run(marked(scripts=False))
    values |= {"tricks": len(TRICKS), "tricks.marked": len(TRICKS) - len(missed), "plain.pages": len(PLAIN)}
    values["plain.false_marks"] = false
    notes += [f"not marked: {name}" for name in missed]
    if chromium:
        missed, false = asyncio.run(marked(scripts=True))
        values |= {"tricks.marked.chromium": len(TRICKS) - len(missed), "plain.false_marks.chromium": false}
        notes += [f"not marked by Chromium: {name}" for name in missed]
    rounds = 5 if quick else 20
    for kind in ("prose", "mixed", "dense"):
        for scripts in (False, True) if chromium else (False,):
            reader = "chromium" if scripts else "light"
            progress(f"{kind} by {reader}")
            try:
                took = asyncio.run(seconds(kind, rounds, scripts=scripts))
            except PageTimeout as error:  # a machine that is busy: the other figures still count
                notes.append(f"{kind} by {reader}: {error}")
                continue
            values[f"open_1mib_{kind}.{reader}.p50_ms"] = 1000 * statistics.median(took)
    return Figures(values, notes=tuple(notes))
