"""The page that is open, as it was read, and how what it is made of is found.

What: `Page`, a value; its links and controls by number or by words; documents that are no HTML as pages.
Invariant: a name that fits nothing, or several things, is a NoElement that says what there is; nothing is guessed.
Interface: `Page`; `written_page`, `plain`, `document` make one; `same_page`; `clickable`, `control` find in one.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmos.abi.errors import DocumentError
from llmos.drivers.documents.worker import DocumentReader
from llmos.drivers.web.errors import NoElement, PageFailed
from llmos.drivers.web.fetch import Fetched
from llmos.drivers.web.parts import parts
from llmos.drivers.web.written import CLOSE, OPEN, Control, Link, Written

PART = 4000  # characters of a part: with its links about a quarter of a window of 8,192 tokens
_SIGNS = re.compile(f"[{OPEN}{CLOSE}]")


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


def plain(url: str, title: str, blocks: Sequence[str], notes: Sequence[str] = ()) -> Page:
    """A page of text that nobody has marked: our own signs in it are not ours."""
    return Page(
        url, title, tuple(parts([_SIGNS.sub("[[", block) for block in blocks], PART)), notes=tuple(notes)
    )


def written_page(
    url: str, written: Written, said: Sequence[str], left_out: Sequence[str], *, live: bool = False
) -> Page:
    """A page of HTML, with what is to be known of it."""
    notes = list(said)
    if written.marked:
        notes.append(
            f"{written.marked} stretches of text cannot be seen on the page; they are marked {OPEN}hidden{CLOSE}"
        )
    if left_out:
        notes.append("left out: " + ", ".join(left_out))
    text = tuple(parts(written.blocks or ("(the page has no text)",), PART))
    nodes = tuple(written.link_nodes.items()) if live else ()
    return Page(url, written.title or url, text, written.links, written.controls, tuple(notes), live, nodes)


def same_page(one: str, other: str) -> bool:
    """Whether two addresses are of one page: what stands behind a # and a last / make no difference."""
    return _bare(one) == _bare(other)


def _bare(url: str) -> str:
    return url.partition("#")[0].rstrip("/")


def clickable(page: Page, element: str) -> tuple[str, int]:
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
    found = control(page.controls, wanted, "BF", "link or button")
    return found.name, found.node


def control(controls: Sequence[Control], wanted: str, letters: str, kind: str) -> Control:
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


def document(fetched: Fetched, suffix: str) -> Page:
    """A PDF or office document, by the readers that volumes use, in their process."""
    with tempfile.TemporaryDirectory(prefix="llmos-document-") as folder:
        path = Path(folder) / ("document" + suffix)
        path.write_bytes(fetched.data)
        try:
            with DocumentReader() as reader:
                found = reader.read(path)
        except DocumentError as error:
            raise PageFailed(f"{fetched.address.url}: {error.what}", why=error.why, do=error.do) from None
    blocks = ["# " + b.text if b.kind == "heading" else b.text for b in found.blocks]
    url = fetched.address.url
    return plain(url, found.title if found.title != path.name else url, blocks, found.notes)
