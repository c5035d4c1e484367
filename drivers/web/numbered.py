"""What of a page can be followed, filled in or pressed, numbered for a reader: `[L3]`, `[F1 text: Name]`, `[B1 …]`.

What: the links, fields and buttons of one page, in the order in which they are met.
Invariant: an address is one of the web, made whole by the page's own; a link that is met again keeps its number.
Interface: `Numbered(base, labels)`: `address(href)`, `link(url, words, node) -> name`, `field(tag, attributes)` and
    `button(words, node)` -> what stands for it in the text; `links`, `controls`, `link_nodes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urljoin

from llmos.drivers.web.written import Control, Link

MAX_LINKS = 5000  # of a page that are numbered
MAX_OPTIONS = 40  # of a choice that are shown
# What whoever tells the elements says about them, beside their own attributes: no page can write such a name.
NODE, HIDDEN, OPTIONS = " node", " hidden", " options"
_BUTTONS = frozenset({"submit", "button", "reset", "image"})
_CONTROL = re.compile("[\0- ]")

Attributes = Mapping[str, "str | None"]


class Numbered:
    """Of one page.

    Args:
        base: what relative addresses are relative to.
        labels: an element's id -> the words of its label.
    """

    def __init__(self, base: str, labels: Mapping[str, str]) -> None:
        self.links: dict[str, Link] = {}  # by address
        self.link_nodes: dict[int, int] = {}
        self.controls: list[Control] = []
        self._base, self._labels = base, labels
        self._origin = base[: base.find("/", base.find("://") + 3)] if "://" in base else base
        self._last = {"F": 0, "B": 0}  # numbers of the last field and button

    def address(self, href: str) -> str:
        """Where a link leads; "" where that is no page of the web."""
        href = href.strip()
        if not href or href.startswith("#"):
            return ""
        if href[0] == "/" and href[1:2] not in ("/", "\\"):
            url = self._origin + href
        else:
            try:
                url = urljoin(self._base, href)
            except ValueError:
                return ""
        return url if url.startswith(("http://", "https://")) and not _CONTROL.search(url) else ""

    def link(self, url: str, words: str, node: int) -> str:
        """The name of a link; "" where a page has too many."""
        link = self.links.get(url)
        if link is None:
            if len(self.links) >= MAX_LINKS:
                return ""
            link = self.links[url] = Link(len(self.links) + 1, words[:200], url)
            self.link_nodes[link.number] = node
        return link.name

    def field(self, tag: str, attributes: Attributes) -> str:
        """An input, a choice or a text area; "" for what no person fills in."""
        kind = (attributes.get("type") or "text").lower() if tag == "input" else tag
        if kind == "hidden":
            return ""
        value, node = " ".join((attributes.get("value") or "").split()), node_of(attributes)
        if kind in _BUTTONS:
            return self.button(value or attributes.get("alt") or kind, node)
        label = self._labels.get(attributes.get("id") or "", "") or attributes.get("aria-label")
        words = " ".join((label or attributes.get("placeholder") or attributes.get("name") or kind).split())
        options, state = attributes.get(OPTIONS) or "", ""
        if kind in ("checkbox", "radio"):
            state = " = yes" if "checked" in attributes else " = no"
            words = f"{words} {value}".strip() if value not in ("", "on") else words
        elif kind != "password" and value:
            state = f" = {value[:100]}"
        return self._control("F", kind, words, node, state + (f" of: {options}" if options else ""))

    def button(self, words: str, node: int) -> str:
        """What is pressed."""
        return self._control("B", "button", words, node)

    def _control(self, letter: str, kind: str, words: str, node: int, state: str = "") -> str:
        self._last[letter] += 1
        control = Control(f"{letter}{self._last[letter]}", kind, words[:200], node)
        self.controls.append(control)
        return f" [{control.name} {kind}: {control.words}{state}] "


def node_of(attributes: Attributes) -> int:
    """Which element it is, to whoever told it; -1 unknown."""
    return number_of(attributes.get(NODE), -1)


def number_of(text: str | None, otherwise: int) -> int:
    """A whole number, as attributes have them."""
    return int(text) if text and re.fullmatch(r"-?\d{1,6}", text := text.strip()) else otherwise
