"""Which element has which declarations: style sheets matched against a parsed page.

What: finds each rule's elements with the parser's own selector engine and puts their declarations in the order of
    the cascade: weight, order, the `style` attribute, what is important.
Invariant: a selector that the engine does not know, and that holds while a page simply lies there, is a doubt.
    Rules whose classes and ids do not occur in the page cost one look-up each.
Interface: `Cascade(tree, sheets)`: `of(node, style) -> {property: value} | None`, `doubts`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmos.drivers.web.sheets import Declarations, Rule, Sheets, declarations

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_MATCHED = 1500  # selectors that one page's elements are looked for with
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
    """The style sheets of one page, matched."""

    def __init__(self, tree: LexborHTMLParser, sheets: Sheets) -> None:
        self.doubts = list(sheets.doubts)
        self._found: dict[int, list[Rule]] = {}
        self._final: dict[tuple[tuple[int, ...], str], dict[str, str]] = {}
        names = _names(tree) if sheets.rules else frozenset()
        matched = 0
        for rule in sheets.rules:
            selector = _at_rest(rule.selector)
            if not selector:
                continue
            bare = re.sub(r":not\([^)]*\)|\[[^\]]*\]", "", selector)
            if (
                not all(kind + name in names for kind, name in _CLASS_OR_ID.findall(bare))
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
                self._found.setdefault(node.mem_id, []).append(rule)

    def of(self, node: LexborNode, style: str | None) -> dict[str, str] | None:
        """What is declared for an element, in the order of the cascade (the last word last); None for nothing.
        Equal ones are the same object."""
        rules = self._found.get(node.mem_id)
        if rules is None and not style:
            return None
        key = (tuple(map(id, rules or ())), style or "")
        if key not in self._final:
            self._final[key] = _final(rules or [], declarations(style) if style else {})
        return self._final[key]


def _final(rules: list[Rule], own: Declarations) -> dict[str, str]:
    ordered = sorted(rules, key=lambda rule: (rule.weight, rule.order))
    final: dict[str, str] = {}
    for important in (False, True):
        for declared in (*(rule.declared for rule in ordered), own):
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
