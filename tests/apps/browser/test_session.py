"""The browser with real Chromium and real servers: reading, acting, keeping files, and what hostile pages try."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Awaitable, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeVar

import pytest
import trustme

from benchmarks.browser import is_marked, session_for
from benchmarks.browser_set import SUBRESOURCES, TRICKS, Site, trick
from llmos.apps.browser.keeping import safe_name
from llmos.apps.browser.options import Settings
from llmos.apps.browser.session import Session
from llmos.drivers.web.errors import (
    AddressRefused,
    BadCertificate,
    ChromiumMissing,
    DownloadFailed,
    NoElement,
    NoPage,
    WebError,
)
from tests.drivers.web.started import missing_chromium

MISSING = missing_chromium()
chromium = pytest.mark.skipif(bool(MISSING), reason=MISSING)

T = TypeVar("T")
FORM = (
    "<title>Order</title><form action=/got><label for=q>Query</label><input id=q name=q><select name=s><option>red"
    "<option>green</select><input type=checkbox name=c id=cc><label for=cc>Agree</label><input type=date name=d>"
    "<input type=file name=f><button>Send</button></form>"
)


def browse(site: Site, work: Callable[[Session], Awaitable[T]], session: Session | None = None) -> T:
    """Run with a session that is closed whatever happens."""

    async def run() -> T:
        own = session or session_for(site)
        try:
            return await work(own)
        finally:
            await own.aclose()

    return asyncio.run(run())


def text(page: object) -> str:
    return "\n".join(page.parts)  # type: ignore[attr-defined]


@chromium
def test_every_trick_is_marked_by_whichever_reader_reads_it() -> None:
    async def visit(session: Session) -> list[str]:
        missed = []
        for number, name in enumerate(TRICKS):
            if not is_marked(await session.open(f"{site.url}/t{number}", None)):
                missed.append(name)
            session.stay.clear()
        return missed

    with Site({f"/t{number}": trick(name) for number, name in enumerate(TRICKS)}) as site:
        assert browse(site, visit) == []


@chromium
def test_nothing_inside_of_chromium_reaches_what_must_not_be_reached() -> None:
    async def visit(session: Session) -> None:
        for number in range(len(SUBRESOURCES)):
            try:
                await session.open(f"{site.url}/s{number}", None, scripts=True)
            except WebError:
                continue  # it went there, and was held

    with Site({"/": "secret"}) as canary, Site() as site:
        for number, markup in enumerate(SUBRESOURCES):
            body = markup.replace("{url}", f"{canary.url}/").replace("{port}", str(canary.port))
            site.pages[f"/s{number}"] = f"<p>page</p>{body}"
        browse(site, visit)
        assert len(site.hits) >= len(SUBRESOURCES)
        assert not canary.hits


@chromium
def test_a_page_that_failed_or_goes_on_by_itself_does_not_spoil_the_next(tmp_path: Path) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\0\xffnoise\r\n\r\n")

    binary = (200, {"Content-Type": "application/octet-stream"}, b"data")
    pages = {
        "/broken": broken, "/restless": "<p>hi</p><script>setTimeout(() => location.reload(), 20)</script>",
        "/plain": "<p>plain</p>", "/file": binary,
    }  # fmt: skip

    async def visit(session: Session) -> None:
        for before in ("/broken", "/restless", "/broken", "/file"):
            with contextlib.suppress(WebError):
                await session.open(site.url + before, tmp_path, scripts=True)
            assert text(await session.open(f"{site.url}/plain", tmp_path, scripts=True)) == "plain"
        await session.open(f"{site.url}/restless", tmp_path, scripts=True)
        assert "is a file" in text(await session.open(f"{site.url}/file", tmp_path, scripts=True))

    with Site(pages) as site:
        browse(site, visit)


@chromium
def test_forms_dialogs_windows_and_files(tmp_path: Path) -> None:
    extras = (
        "<button onclick=\"document.body.append('done')\">Do it</button><button onclick=\"alert('boo')\">Alert</button>"
        "<button onclick=\"window.open('/other')\">Window</button><a href=/file.bin>the file</a>"
        "<div style='position:relative'><button>Below</button><div style='position:absolute;inset:0'></div></div>"
    )

    def got(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.end_headers()
        handler.wfile.write(f"<h1>got</h1><code>{handler.path.replace('&', ' ')}</code>".encode())

    async def act(session: Session) -> None:
        url = f"{site.url}/form"
        page = await session.open(url, tmp_path)
        assert not page.live  # read without Chromium until something is to be done
        await session.fill(url, "query", "blue & green", tmp_path, submit=False)
        await session.fill(url, "F2", "Green", tmp_path, submit=False)
        await session.fill(url, "d", "2024-05-31", tmp_path, submit=False)
        page = await session.fill(url, "agree", "yes", tmp_path, submit=False)
        assert "[F1 text: Query = blue & green]" in text(page) and "[F3 checkbox: Agree = yes]" in text(page)
        for field, value in (("F2", "mauve"), ("F5", "/etc/passwd"), ("d", "tomorrow"), ("nothing", "x")):
            with pytest.raises(NoElement):
                await session.fill(url, field, value, tmp_path, submit=False)
        with pytest.raises(NoElement, match="lies over it"):
            await session.click(url, "Below", tmp_path)
        assert "done" in text(await session.click(url, "Do it", tmp_path))
        page = await session.click(url, "Alert", tmp_path)
        assert any("boo" in note and "dismissed" in note for note in page.notes)
        page = await session.click(url, "L1", tmp_path)
        assert any("file.bin" in note for note in page.notes)
        assert (tmp_path / "file.bin").read_bytes() == b"\0\1\2" * 100
        with pytest.raises(NoPage, match="is not open"):
            await session.click(site.url + "/elsewhere", "Do it", tmp_path)
        page = await session.fill(url, "F1", "again", tmp_path, submit=True)
        assert "q=again s=green c=on d=2024-05-31" in text(page)
        await session.open(url, tmp_path)
        page = await session.click(url, "Window", tmp_path)
        assert "other page" in text(page) and page.url == f"{site.url}/other"
        assert any("new window" in note for note in page.notes)
        assert (await session.picture(page.url, tmp_path, whole=False)).startswith(b"\x89PNG")

    pages: dict[str, object] = {
        "/form": FORM + extras,
        "/other": "<p>other page",
        "/file.bin": b"\0\1\2" * 100,
        "/got": got,
    }
    with Site(pages) as site:
        browse(site, act)


@chromium
def test_pages_made_by_scripts_and_pages_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos.drivers.web.pages.LOAD_SECONDS", 4.0)
    monkeypatch.setattr("llmos.drivers.web.pages.STEP_SECONDS", 4.0)
    monkeypatch.setattr("llmos.drivers.web.pages.SETTLE_SECONDS", 2.0)

    async def visit(session: Session) -> None:
        page = await session.open(f"{site.url}/app", None)
        assert page.live and "made by a script" in text(page)
        with pytest.raises(WebError):
            await session.open(f"{site.url}/hang", None, scripts=True)
        assert "made by a script" in text(await session.open(f"{site.url}/app", None))
        page = await session.open(f"{site.url}/windows", None)
        assert any("closed" in note for note in page.notes)
        await session.open(f"{site.url}/cookie", None)
        assert "k=v" in text(await session.open(f"{site.url}/cookie", None))
        page = await session.open(f"{site.url}/liar", None)
        assert "⟦hidden (not displayed): lie⟧" in text(page)

    pages: dict[str, object] = {
        "/app": "<div id=r></div><script>fetch('/data').then(a => a.text()).then(t => r.textContent = t)</script>",
        "/data": "made by a script", "/hang": "<p>x<script>for(;;);</script>",
        "/windows": "<p>page<script>open('/data'); open('about:blank')</script>",
        "/cookie": "<p id=p><script>p.textContent = document.cookie; document.cookie = 'k=v'</script>",
        "/liar": "<p>page</p><p style='display:none'>lie</p><script>window.getComputedStyle = () => ({});"
        "JSON.stringify = () => '{}'; Array.prototype.push = () => 0; Map.prototype.get = () => 0</script>",
    }  # fmt: skip
    with Site(pages) as site:
        browse(site, visit)


@chromium
def test_chromium_is_confined_and_leaves_nothing(tmp_path: Path) -> None:
    def lines() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                if str(profile).encode() in (process / "environ").read_bytes() and b"chrom" in words[0]:
                    found.append(b" ".join(words).decode("utf-8", "replace"))
                    assert os.getuid() or process.stat().st_uid
            except OSError:
                continue
        return found

    async def visit(session: Session) -> None:
        nonlocal profile
        await session.open(site.url, None, scripts=True)
        profile = session._chromium._folder  # type: ignore[union-attr]
        running = lines()
        assert running and not any("--no-sandbox" in line.split() for line in running)

    profile = tmp_path
    with Site({"/": "<p>page"}) as site:
        browse(site, visit)
    assert not profile.exists()


@chromium
def test_a_certificate_that_proves_nothing() -> None:
    async def visit(session: Session) -> None:
        url = site.url.replace("http:", "https:")
        for scripts in (False, True):
            with pytest.raises(BadCertificate):
                await session.open(url, None, scripts=scripts)

    with Site({"/": "secret"}) as site:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        site.server.socket = context.wrap_socket(site.server.socket, server_side=True)
        browse(site, visit)


def test_without_chromium_pages_are_read_and_what_needs_it_says_how_to_get_it(tmp_path: Path) -> None:
    async def visit(session: Session) -> None:
        page = await session.open(f"{site.url}/app", None)
        assert any("Chromium cannot be had" in note for note in page.notes)
        with pytest.raises(ChromiumMissing) as error:
            await session.picture(f"{site.url}/app", None, whole=False)
        assert error.value.do

    with Site({"/app": "<div id=root></div><script src=x.js></script>"}) as site:
        settings = Settings(allow=(f"127.0.0.1:{site.port}",), chromium=str(tmp_path / "none"))
        browse(site, visit, Session(settings))


def test_files_and_texts_that_are_no_pages(tmp_path: Path) -> None:
    async def visit(session: Session) -> None:
        assert text(await session.open(f"{site.url}/a.txt", tmp_path)) == "one\n\ntwo [[x"
        page = await session.open(f"{site.url}/x.bin", tmp_path)
        assert "report_.._1.bin" in text(page)
        await session.open(f"{site.url}/x.bin", tmp_path)
        assert (tmp_path / "report_.._1 (2).bin").read_bytes() == b"data"
        with pytest.raises(DownloadFailed):
            await session.open(f"{site.url}/x.bin", None)
        with pytest.raises(AddressRefused):
            await session.open("http://10.0.0.1/", tmp_path)
        assert "file" in text(session.page)  # what was open stays open

    attached = {
        "Content-Disposition": 'attachment; filename="../../report\\"..;1.bin"',
        "Content-Type": "application/x",
    }
    pages: dict[str, object] = {
        "/a.txt": (200, {"Content-Type": "text/plain"}, "one\n\ntwo ⟦x".encode()),
        "/x.bin": (200, attached, b"data"),
    }
    with Site(pages) as site:
        browse(site, visit)


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc/passwd", "passwd"), ("..", "download"), ("a\\b\\c.exe", "c.exe"), (".bashrc", "bashrc"),
     ("a\0b\n.txt", "a_b_.txt"),
     ("x" * 300 + ".pdf", "x" * 80 + ".pdf"), ("", "download")],
)  # fmt: skip
def test_names_of_files_lead_nowhere(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    "said",
    [
        {"allow": ["x y"]},
        {"search": "searxng"},
        {"search": "index", "index": "/tmp"},
        {"searxng": "ftp://x"},
        {"alow": []},
    ],
)
def test_settings_that_do_not_fit(said: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Settings.model_validate(said)
