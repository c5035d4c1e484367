"""Fetching: what servers may do to who reads them, each ended by a typed error."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import trustme

from benchmarks.browser_set import REDIRECTS, Site
from llmos.drivers.web.addresses import Gate
from llmos.drivers.web.engines import LocalIndex, SearXNG
from llmos.drivers.web.errors import (
    AddressRefused,
    BadCertificate,
    PageFailed,
    PageTimeout,
    PageTooLarge,
    RedirectLoop,
    SearchFailed,
    WebError,
)
from llmos.drivers.web.fetch import Client, Fetched

HTML = {"Content-Type": "text/html"}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


def get(site: Site, path: str = "/", **options: object) -> Fetched:
    async def fetch() -> Fetched:
        client = Client(Gate([f"127.0.0.1:{site.port}"]))
        try:
            return await client.get(site.url + path, **options)  # type: ignore[arg-type]
        finally:
            await client.aclose()

    return asyncio.run(fetch())


def test_a_page(site: Site) -> None:
    site.pages = {"/": "<p>grün</p>"}
    fetched = get(site)
    assert fetched.text() == ("<p>grün</p>", ())
    assert (fetched.mime, fetched.path) == ("text/html", ())


@pytest.mark.parametrize(
    ("header", "body", "wanted"),
    [
        ("text/html; charset=windows-1251", "река".encode("cp1251"), "река"),
        ("text/html; charset=shift_jis", "川".encode("shift_jis"), "川"),
        ("text/html", b"<meta charset=gb2312>" + "河".encode("gb2312"), "河"),
        ("text/html", b"\xff\xfe" + "é".encode("utf-16-le"), "é"),
        ("text/html; charset=nonsense", "ß".encode(), "ß"),
        ("text/html; charset=iso-8859-1", b"\x93x\x94", "“x”"),
        ("text/html", "naïve".encode("latin-1"), "naïve"),
    ],
)
def test_characters_are_read_as_browsers_do(site: Site, header: str, body: bytes, wanted: str) -> None:
    site.pages = {"/": (200, {"Content-Type": header}, body)}
    assert get(site).text()[0].endswith(wanted)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_counted_while_it_is_unpacked(site: Site, layers: int) -> None:
    body = gzip.compress(bytes(200 << 20), 1)
    for _ in range(layers - 1):
        body = gzip.compress(body)
    site.pages = {"/": (200, {**HTML, "Content-Encoding": ", ".join(["gzip"] * layers)}, body)}
    with pytest.raises(PageTooLarge):
        get(site)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", b"x"), ("gzip", b"no gzip"), ("deflate", b"\xff" * 99)],
)
def test_what_cannot_be_unpacked_is_said(site: Site, encoding: str, body: bytes) -> None:
    site.pages = {"/": (200, {**HTML, "Content-Encoding": encoding}, body)}
    with pytest.raises(PageFailed):
        get(site)


def test_a_page_that_never_finishes(site: Site) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"<p>more")
                time.sleep(0.05)
        except OSError:
            pass

    site.pages = {"/": drip}
    with pytest.raises(PageTimeout):
        get(site, seconds=1.0)


def test_a_server_that_speaks_something_else(site: Site) -> None:
    def noise(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\xff garbage \r\n" * 100)

    site.pages = {"/": noise}
    with pytest.raises(PageFailed):
        get(site)


def test_redirects_are_followed_told_and_bounded(site: Site) -> None:
    site.pages = {"/end": "end", "/loop": (302, {"Location": "/loop", "Content-Length": "0"}, b"")}
    site.pages["/"] = (301, {"Location": "/end", "Content-Length": "0"}, b"")
    fetched = get(site)
    assert fetched.address.url == site.url + "/end" and fetched.path == (site.url + "/",)
    with pytest.raises(RedirectLoop):
        get(site, "/loop")


@pytest.mark.parametrize("where", REDIRECTS)
def test_a_redirect_is_judged_like_an_address(site: Site, where: str) -> None:
    with Site({"/": "secret"}) as other:
        target = where.replace("{port}", str(other.port))
        site.pages = {"/": (302, {"Location": target, "Content-Length": "0"}, b"")}
        with pytest.raises(AddressRefused):
            get(site)
        assert not other.hits


def test_a_status_and_a_closed_port(site: Site) -> None:
    with pytest.raises(PageFailed, match="404 Not Found"):
        get(site, "/missing")
    site.server.server_close()
    with pytest.raises(PageFailed):
        get(site)


def test_a_certificate_that_proves_nothing(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    site.server.socket = context.wrap_socket(site.server.socket, server_side=True)

    async def fetch() -> None:
        client = Client(Gate([f"127.0.0.1:{site.port}"]))
        try:
            await client.get(site.url.replace("http:", "https:"))
        finally:
            await client.aclose()

    with pytest.raises(BadCertificate):
        asyncio.run(fetch())


def test_cookies_stay_with_one_client(site: Site) -> None:
    seen: list[str | None] = []

    def page(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("Cookie"))
        handler.send_response(200)
        handler.send_header("Set-Cookie", "a=1")
        handler.end_headers()

    site.pages = {"/": page}

    async def visit() -> None:
        one, other = Client(Gate([f"127.0.0.1:{site.port}"])), Client(Gate([f"127.0.0.1:{site.port}"]))
        for client in (one, one, other):
            await client.get(site.url)
        await one.aclose()
        await other.aclose()

    asyncio.run(visit())
    assert seen == [None, "a=1", None]


# --- engines ---


def search(site: Site, query: str = "rivers") -> list[str]:
    async def ask() -> list[str]:
        engine = SearXNG(site.url, Gate())  # no word of `allow`: the engine's own address passes
        try:
            return [f"{one.title}|{one.url}|{one.words}" for one in await engine.search(query, 5)]
        finally:
            await engine.aclose()

    return asyncio.run(ask())


def test_searxng(site: Site) -> None:
    json = {"Content-Type": "application/json"}
    body = (
        b'{"results": [{"title": "A <b>river</b>", "url": "https://r.example/", "content": "It &amp; runs"},'
        b'{"title": "bad", "url": "javascript:x"}]}'
    )
    site.pages = {"/search": (200, json, body)}
    assert search(site, "rivers & hills") == ["A river|https://r.example/|It & runs"]
    assert site.hits == ["/search?q=rivers+%26+hills&format=json"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"results": 7}', b'{"results": [7]}', b"[" * 100_000])
def test_an_engine_that_answers_garbage(site: Site, body: bytes) -> None:
    site.pages = {"/search": (200, {"Content-Type": "application/json"}, body)}
    with pytest.raises(SearchFailed, match="something else"):
        search(site)


def test_an_index_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<title>Rivers</title><p>The Elbe runs to the sea.")
    (tmp_path / "b b.md").write_text("# Hills\n\nNo water here.")
    (tmp_path / "c.bin").write_bytes(bytes(9))

    async def ask(query: str) -> list[str]:
        engine = LocalIndex(tmp_path, "http://127.0.0.1:8000")
        try:
            return [one.url for one in await engine.search(query, 5)]
        finally:
            await engine.aclose()

    assert asyncio.run(ask("where does the elbe run?")) == ["http://127.0.0.1:8000/a.html"]
    assert asyncio.run(ask("hills")) == ["http://127.0.0.1:8000/b%20b.md"]
    assert asyncio.run(ask('"*( OR')) == []
    with pytest.raises(SearchFailed):
        asyncio.run(LocalIndex(tmp_path / "none", "http://127.0.0.1/").search("x", 1))


def test_errors_are_one_tree() -> None:
    assert issubclass(SearchFailed, WebError)
