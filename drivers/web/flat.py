"""Flat markup: how both readers tell a page to a `Writer`, quickly.

What: markup in which every tag is written out, every value quoted, and `<` and `>` are always a tag's own: lexbor's
    serialisation, and what `walk.js` writes. Then a page is a list of tags and texts by one split, and what equal tags
    in equal surroundings come to is worked out once.
Invariant: depth costs no recursion. A tag that does not end where it should loses no text.
Interface: `tell(markup, writer, style, root, own)`; `quote(text)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from llmos.drivers.web.numbered import Attributes
from llmos.drivers.web.writing import SPECIAL, Writer

VOID = frozenset(
    "area base basefont bgsound br col embed frame hr img input keygen link meta param source track wbr".split()
)
CLOSED = frozenset({"select", "textarea", "iframe"})  # told as one thing: their attributes say what they hold
_NEVER = frozenset({"head", "script", "style", "template", "datalist", "rp"})
_NAMES = re.compile(r"<([^<>]*<[^<>]*(?:<[^<>]*)*)>")
_TAG = re.compile(r"[^\s/>]+")
_ATTRIBUTE = re.compile(r' (=?[^=\s/>]*)="([^"]*)"')
_HREF = re.compile(' href="([^"]*)"')
_CELL, _ROW = "\0", "\1"  # between two plain cells, and two rows of them: most tags of a large table
_SPACED, _SPACED_ROWS = re.compile(r"</td>\s+<td>"), re.compile(r"</td>\s*</tr>\s*<tr>\s*<td>")
_SEPARATORS = re.compile(f"[{_CELL}{_ROW}]")
_NO_ATTRIBUTES: dict[str, str] = {}


class Told(Protocol):
    """What an element hands down; `reason` says why a text in it is not seen, or ""."""

    @property
    def reason(self) -> str: ...


State = TypeVar("State", bound=Told)
Style = Callable[[str, Attributes, State], tuple[State, Attributes]]


@dataclass(slots=True, eq=False)
class _Level(Generic[State]):
    """One state, and what tags come to in it."""

    state: State
    reason: str
    tags: dict[str, _Tag[State]] = field(default_factory=dict)


class _Tag(NamedTuple, Generic[State]):
    tag: str
    told: bool
    attributes: Attributes
    inner: _Level[State]
    whole: bool  # it has no contents, or none that are told


def tell(
    markup: str, writer: Writer, style: Style[State], root: State, own: Mapping[str, str] | None = None
) -> None:
    """Tell a page.

    Args:
        style: what an element (tag, attributes, the state around it) hands down, and its attributes for the writer.
        own: the names that attributes of ours have in this markup -> those that the writer knows.
    """
    if markup.count("<") != markup.count(">"):  # there are < in names
        markup = _NAMES.sub(lambda found: f"<{found[1].replace('<', '_')}>", markup)
    own = own or {}
    levels: dict[int, _Level[State]] = {}

    def level_of(state: State) -> _Level[State]:
        return levels.setdefault(id(state), _Level(state, state.reason))

    def worked_out(head: str, level: _Level[State]) -> _Tag[State]:
        address = _HREF.search(head)
        shape = (
            f"{head[: address.start()]} href{head[address.end() :]}" if address else head
        )  # alike but for it
        known = level.tags.get(shape)
        if known is None:
            match = _TAG.match(head)
            name = match[0] if match else "_"
            attributes: Attributes = _NO_ATTRIBUTES
            if len(head) > len(name):
                found = _ATTRIBUTE.findall(head, len(name))
                attributes = {own.get(key, key): unquote(value) for key, value in found}
            state, attributes = style(name, attributes, level.state)
            told = name != "title" and (name in SPECIAL or "role" in attributes)
            whole = name in VOID or name in CLOSED or name in _NEVER
            known = level.tags[shape] = _Tag(name, told, attributes, level_of(state), whole)
        if address:
            return known._replace(attributes={**known.attributes, "href": unquote(address[1])})
        return known

    def within(head: str, level: _Level[State]) -> _Level[State]:
        return (level.tags.get(head) or worked_out(head, level)).inner

    level = level_of(root)
    stack: list[tuple[str, bool, _Level[State]]] = []
    if _SEPARATORS.search(markup):  # of the page's own
        markup = _SEPARATORS.sub("\ufffd", markup)
    if _SPACED.search(markup):
        markup = _SPACED.sub("</td><td>", _SPACED_ROWS.sub("</td></tr><tr><td>", markup))
    markup = markup.replace("</td><td>", _CELL).replace("</td></tr><tr><td>", _ROW)
    pieces = iter(markup.replace(">", "<").split("<"))
    next(pieces)
    for head, words in zip(pieces, pieces, strict=True):
        if head[0] == "/":
            tag, told, outer = stack[-1] if stack else ("", False, level)
            if tag == head[1:]:
                stack.pop()
                level = outer
                if told:
                    writer.end(tag)
            else:
                level = _ended(head[1:], writer, stack, level)
        else:
            tag, told, attributes, inner, whole = level.tags.get(head) or worked_out(head, level)
            if not whole:
                stack.append((tag, told, level))
                level = inner
                if told:
                    writer.start(tag, attributes)
            else:
                if told:
                    writer.start(tag, attributes)
                    writer.end(tag)
                if tag not in VOID:
                    words = _after(tag, pieces)
        if not words:
            continue
        if "&" in words:
            words = unquote(words)
        if _ROW not in words and _CELL not in words:
            writer.text(" " if words.isspace() else words, level.reason)
            continue
        for number, row in enumerate(words.split(_ROW)):
            first, *others = row.split(_CELL)
            if number:
                _ended("td", writer, stack, level, keep=True)
                outer = stack[-2][2]
                inner = within("tr", outer)
                stack[-1] = ("td", True, inner)
                level = within("td", inner)
                writer.next_row()
            if first:
                writer.text(" " if first.isspace() else first, level.reason)
            if others:
                _ended("td", writer, stack, level, keep=True)
                level = within("td", stack[-1][2])
                writer.cells(others, level.reason)


def _ended(
    tag: str,
    writer: Writer,
    stack: list[tuple[str, bool, _Level[State]]],
    level: _Level[State],
    keep: bool = False,
) -> _Level[State]:
    """The level after an end that is not the innermost element's: all within it end too; an end of nothing is none.
    With `keep` the element itself stays open."""
    if tag in VOID or all(tag != one for one, _, _ in stack):
        return level
    while not keep or stack[-1][0] != tag:
        one, told, level = stack.pop()
        if told:
            writer.end(one)
        if one == tag:
            break
    return level


def _after(tag: str, pieces: object) -> str:
    """Go on behind the end of an element whose contents are not told; the text that follows it."""
    depth = 1
    for head, words in zip(pieces, pieces, strict=True):  # type: ignore[call-overload]
        if head == "/" + tag:
            depth -= 1
            if not depth:
                return words
        elif head.partition(" ")[0] == tag:
            depth += 1
    return ""


def quote(text: str) -> str:
    """A text as flat markup has it."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def unquote(text: str) -> str:
    """What `quote` or lexbor has quoted."""
    if "&" not in text:
        return text
    text = text.replace("&nbsp;", "\xa0").replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">")
    return text.replace("&amp;", "&")
