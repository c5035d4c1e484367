"""Books (epub): chapters of HTML in a zip archive, in the order of the spine.

What: finds the package file, reads each chapter with the parser of HTML, under the book's title.
Invariant: nothing outside the archive is read; XML is parsed without entities and external references.
Interface: `parse_epub(data, name) -> Document`. Places are chapters (items of the spine, counted from 1).
"""

from __future__ import annotations

import posixpath
import zipfile
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError

from llmos.abi.errors import DocumentError
from llmos.abi.limits import MAX_EXPANDED_BYTES
from llmos.drivers.documents.archive import check_archive, library, member
from llmos.drivers.documents.document import Block, Document

_CONTAINER = "META-INF/container.xml"
_HTML = ("application/xhtml+xml", "text/html")


def parse_epub(data: bytes, name: str) -> Document:
    """Read a book; its title is the one it gives itself, else `name`."""
    from llmos.drivers.documents.reading import decode
    from llmos.drivers.documents.web import parse_html

    archive = check_archive(data, name)
    if "META-INF/encryption.xml" in archive.namelist():
        raise DocumentError(
            f"{name} is encrypted", why="its publisher locked it", do="use a book without a lock"
        )
    package_path = _package(archive, name)
    package = _xml(archive, package_path, name)
    items = {
        item.get("id"): item.get("href", "")
        for item in _all(package, "item")
        if item.get("media-type") in _HTML
    }
    title = next((" ".join("".join(node.itertext()).split()) for node in _all(package, "title")), "") or name
    blocks: list[Block] = []
    notes: list[str] = []
    left = MAX_EXPANDED_BYTES
    for place, reference in enumerate(_all(package, "itemref"), 1):
        href = items.get(reference.get("idref"))
        if href is None:
            continue
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(package_path), unquote(href.split("#")[0]))
        )
        raw = member(archive, path, name)
        left -= len(raw)
        if left < 0:
            raise DocumentError(f"{name} is too large", why="its chapters unpack to too much", do="split it")
        text, odd = decode(raw, name, declared=True)
        notes += [f"chapter {place}: {note}" for note in odd]
        chapter = parse_html(text, name)
        blocks += [Block(b.kind, b.text, (place,) * len(b.places), b.path) for b in chapter.blocks]
    return Document(title, "chapter", tuple(blocks), tuple(notes))


def _package(archive: zipfile.ZipFile, name: str) -> str:
    for node in _all(_xml(archive, _CONTAINER, name), "rootfile"):
        if path := node.get("full-path"):
            return path
    raise DocumentError(f"{name} is damaged", why="its container names no package", do="fetch it again")


def _xml(archive: zipfile.ZipFile, path: str, name: str) -> Element:
    parser = library("defusedxml.ElementTree", name)
    refused = library("defusedxml", name).DefusedXmlException
    try:
        root: Element = parser.fromstring(member(archive, path, name))
    except (ParseError, refused, ValueError) as error:
        raise DocumentError(
            f"{name} is damaged", why=f"{path} is not sound XML ({error!r})", do="fetch it again"
        ) from None
    return root


def _all(root: Element, tag: str) -> list[Element]:
    """Elements by name, whatever their namespace."""
    return [node for node in root.iter() if isinstance(node.tag, str) and node.tag.rpartition("}")[2] == tag]
