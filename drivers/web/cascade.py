"""Which element has which declarations: style sheets matched against a parsed page.

What: finds each rule's elements and puts their declarations in the order of the cascade: weight, order, the `style`
    attribute, what is important. Rules of one tag, classes and id are looked up; what all others select is found by
    the parser's own selector engine, and these elements get an attribute that says which rules theirs are.
Invariant: a selector that the engine does not know, and that holds while a page simply lies there, is a doubt.
    Rules whose classes and ids do not occur in the page cost one look-up each.
Interface: `Cascade(tree, sheets, mark)`: `of(tag, attributes) -> {property: value} | None`, `doubts`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmos.drivers.web.sheets import Declarations, Rule, Sheets, declarations

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser

    from llmos.drivers.web.numbered import Attributes

MAX_MATCHED = 1500  # selectors that one page's elements are looked for with
_COMPOUND = re.compile(r"(\*|[a-zA-Z][\w-]*)?((?:[.#]-?[A-Za-z_][\w-]*)*)")
_CLASS_OR_ID = re.compile(r"([.#])(-?[A-Za-z_][\w-]*)")
# States that a page which simply lies there is not in; what holds only in one of them does not hold.
_STATES = (
    r":(?:hover|focus(?:-visible|-within)?|active|target|visited|disabled|checked|invalid|placeholder-shown"
    r"|autofill)"
)
_NOT_STATE = re.compile(rf":not\(\s*{_STATES}\s*\)")
_STATE = re.compile(_STATES)
_FOREIGN = re.compile(
    r"::?-(?:webkit|moz|ms|o)-|::(?!first-li|first-le)[\w-]+|:(?:before|after)\b|:(?:host|slotted)\b"
)


class Cascade:
    """The style sheets of one page, matched.

    Args:
        mark: the name of the attribute that the marked elements get; one that no page can know.
    """

    def __init__(self, tree: LexborHTMLParser, sheets: Sheets, mark: str) -> None:
        self.doubts = list(sheets.doubts)
        self._mark = mark
        self._plain: dict[
            str, list[tuple[frozenset[str], Rule]]
        ] = {}  # one of its names -> all of them, the rule
        self._marked: list[tuple[Rule, ...]] = [()]
        self._final: dict[tuple[tuple[int, ...], str], dict[str, str]] = {}
        others: list[tuple[str, Rule]] = []
        for rule in sheets.rules:
            selector = _at_rest(rule.selector)
            if not selector:
                continue
            if (match := _COMPOUND.fullmatch(selector)) is not None:
                names = frozenset(re.findall(r"[.#][^.#]+", match[2])) | {(match[1] or "*").lower()}
                self._plain.setdefault(max(names), []).append((names, rule))
            else:
                others.append((selector, rule))
        if others:
            self._find(tree, others)

    def _find(self, tree: LexborHTMLParser, rules: list[tuple[str, Rule]]) -> None:
        """Mark the elements of rules that are not looked up by name."""
        present = _names(tree)
        sets: dict[tuple[int, ...], int] = {}  # the rules of an element, by their order -> its mark
        matched = 0
        for selector, rule in rules:
            bare = re.sub(r":not\([^)]*\)|\[[^\]]*\]", "", selector)
            if (
                not all(kind + name in present for kind, name in _CLASS_OR_ID.findall(bare))
                and ":is(" not in bare
            ):
                continue
            matched += 1
            if matched > MAX_MATCHED:
                self.doubts.append("more rules than are matched")
                return
            try:
                nodes = tree.css(selector)
            except Exception:  # the engine has one plain error for all it does not know
                self.doubts.append(f"the selector {selector[:60]}")
                continue
            for node in nodes:
                before = self._marked[int(node.attrs.get(self._mark) or 0)]
                if before and before[-1] is rule:
                    continue
                key = (*(one.order for one in before), rule.order)
                if key not in sets:
                    sets[key] = len(self._marked)
                    self._marked.append((*before, rule))
                node.attrs[self._mark] = str(sets[key])

    def of(self, tag: str, attributes: Attributes) -> dict[str, str] | None:
        """What is declared for an element, in the order of the cascade (the last word last); None for nothing.
        Equal ones are the same object."""
        rules = list(self._marked[int(attributes.get(self._mark) or 0)]) if attributes else []
        if self._plain:
            mine = {"*", tag.lower(), *(f".{name}" for name in (attributes.get("class") or "").split())}
            mine.add(f"#{attributes.get('id')}")
            for name in mine:
                rules += [rule for names, rule in self._plain.get(name, ()) if names <= mine]
        style = attributes.get("style")
        if not rules and not style:
            return None
        rules.sort(key=lambda rule: (rule.weight, rule.order))
        key = (tuple([rule.order for rule in rules]), style or "")
        if key not in self._final:
            self._final[key] = _final(rules, declarations(style) if style else {})
        return self._final[key]


def _final(rules: list[Rule], own: Declarations) -> dict[str, str]:
    """The declarations of rules that are in order, and of the attribute."""
    final: dict[str, str] = {}
    for important in (False, True):
        for declared in (*(rule.declared for rule in rules), own):
            for name, (value, strong) in declared.items():
                if strong == important:
                    final.pop(name, None)
                    final[name] = value
    return final


def _at_rest(selector: str) -> str:
    """The selector as it is for a page that nobody touches; "" where it then matches nothing of its text."""
    selector = _NOT_STATE.sub("", selector).replace(":any-link", "[href]").replace(":link", "[href]")
    if _FOREIGN.search(selector) or (_STATE.search(selector) and ":not(" not in selector):
        return ""
    return selector.strip() or "*"


def _names(tree: LexborHTMLParser) -> frozenset[str]:
    """All classes and ids of a page, as `.name` and `#name`."""
    found: set[str] = set()
    for node in tree.css("[class]"):
        found.update("." + name for name in (node.attributes.get("class") or "").split())
    for node in tree.css("[id]"):
        found.add("#" + (node.attributes.get("id") or ""))
    return frozenset(found)
