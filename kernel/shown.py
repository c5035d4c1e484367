"""What a description says of the form of a value, as part of the schema.

What: many schemas say in words what a keyword would say: "Options: 'miles', 'kilometers'", "The city and state, e.g.
    Boston, MA". `narrowed` gives these parameters the keyword, so that the grammar lets a model write nothing else.
Invariant: what fits the narrowed schema fits the schema. Where a keyword says something already, it stays
    alone; examples ("such as 'a' or 'b'") are no list of choices.
Interface: `narrowed(schema)`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SAID = frozenset({"enum", "const", "format", "pattern"})  # keywords that say it already
_CHOICE = r"""(?:'[^',"]{1,40}'|"[^",']{1,40}")"""
_CHOICES = re.compile(  # a list of quoted texts behind words that call it complete
    r"(?i:\b(?:choices|options|(?:valid|possible|allowed|accepted) values|either|one of|(?:can|must|should|may) be)\b"
    rf"[^.'\"]{{0,24}}|\w: ?)({_CHOICE}(?:(?: \([^)]*\)| for [\w ]+)?,? ?(?:\b(?:or|and) )?{_CHOICE})+)"
)
_EXAMPLES = re.compile(  # a form is shown by examples, too
    r"(?i)\b(?:e\.?g|for (?:example|instance)|such as|like|examples?|etc|in the form(?:at)?)\b|\.\.\.|…"
)
_DEFAULT = re.compile(rf"(?i)\bdefaults?\b[^.'\"]*({_CHOICE})")
_PLACE = re.compile(  # "Boston, MA" shows one where places are spoken of; "Vinyl, CD" does not
    r"(?i:\bcity(?: and|,) (?:state|country)\b)"
    r"|(?i:\b(?:city|town|location|place|address|destination|where|area)\b).*(?<!, )\b[A-Z]\w+, [A-Z]{2}\b"
)
_WITH_STATE = r'^[^,"\\]+(?:, [^,"\\]+){1,2}$'


def narrowed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a syscall's parameters, with what their descriptions say of their form."""
    if "properties" not in schema:
        return dict(schema)
    return {**schema, "properties": {name: _narrowed(p) for name, p in schema["properties"].items()}}


def _narrowed(parameter: Any) -> Any:
    if not isinstance(parameter, Mapping) or parameter.get("type") != "string" or _SAID & parameter.keys():
        return parameter
    description = str(parameter.get("description", ""))
    if choices := _choices(description, parameter.get("default")):
        return {**parameter, "enum": choices}
    if _PLACE.search(description):
        return {**parameter, "pattern": _WITH_STATE}
    return parameter


def _choices(description: str, default: Any) -> list[str]:
    """All that a description says may be chosen; nothing where it says so of none, or its default is another."""
    found = _CHOICES.search(description)
    if found is None or _EXAMPLES.search(description):
        return []
    listed = [text[1:-1] for text in re.findall(_CHOICE, found[1])]
    named = [text[1:-1] for text in _DEFAULT.findall(description)]
    others = [*named, *([default] if default is not None else [])]
    return listed if all(other in listed for other in others) else []
