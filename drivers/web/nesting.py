"""How deeply a page's elements stand in each other, before a parser is given the page.

What: a parser's time grows with the square of the depth, so a page of tags that nothing closes would take for ever.
Invariant: never less than what a browser builds; linear in the page's length.
Interface: `too_deep(html)`, `MAX_DEPTH`.
"""

from __future__ import annotations

import re

MAX_DEPTH = 8000  # elements in each other, and choices of a page
MAX_OPEN = 20_000  # elements that may nest, of a page that is not looked at for how deeply they do
_SHALLOW = "|".join(  # elements that have no contents, or that by themselves do not stand in each other
    """area base br col embed hr img input link meta source track wbr p tr td th thead tbody tfoot option html head
    body a button""".split()
)
_NESTING = re.compile(rf"<(?!/|(?:{_SHALLOW})[\s/>])[a-z]", re.IGNORECASE)
_INLINE = frozenset(
    "b i em strong span u s small big font code kbd tt sub sup abbr cite label mark time".split()
)
_DRAWN = frozenset("path rect circle ellipse line polyline polygon use stop image g".split())
_ITEMS = {
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
}  # ended by the next
_LISTS = {
    "ul": _ITEMS["li"],
    "ol": _ITEMS["li"],
    "menu": _ITEMS["li"],
    "dl": _ITEMS["dt"],
}  # whose end ends them
_TAGS = re.compile(  # whatever is never closed reaches to the end, so this is linear
    r"<!--(?:.*?-->|.*)|<(?:script|style|textarea|title)\b(?:.*?</(?:script|style|textarea|title)|.*)"
    rf"|<(?!/?(?:{_SHALLOW})[\s/>])(/?)([a-zA-Z][^\s/>]*)(?:[^>\"']|\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z))*+(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def too_deep(html: str) -> bool:
    """Whether elements or choices may stand in each other more than `MAX_DEPTH` deep."""
    return html.count("<") > MAX_DEPTH and (_deep(html) or html.lower().count("<option") > MAX_DEPTH)


def _deep(html: str) -> bool:
    """The same of elements alone. An end counts only where a browser surely closes the element at it, so that no stray
    ends hide how deep a page is."""
    if len(_NESTING.findall(html)) <= MAX_OPEN:
        return False
    nested: list[str] = []
    for match in _TAGS.finditer(html):
        if match[2] is None:
            continue
        name = match[2].lower()
        if match[1]:
            for back in range(1, min(len(nested), 8) + 1):
                if nested[-back] == name:
                    del nested[-back:]
                    break
                if name in _INLINE or nested[-back] not in _INLINE | _LISTS.get(name, frozenset()):
                    break
        elif nested and nested[-1] in _ITEMS.get(name, ()):
            nested[-1] = name
        elif name not in _DRAWN or not match[0].endswith("/>"):
            nested.append(name)
            if len(nested) > MAX_DEPTH:
                return True
    return False
