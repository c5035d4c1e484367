"""A call's arguments, held against what the user said.

What: small models fill every parameter that they see, count per cent where a fraction is wanted, cut names short and
    copy dates as they stand. `settled` puts right what can be told from the user's own words and the declared type,
    without asking the model again.
Invariant: a pure function of the call, its schema and what was said, so a turn that is resumed or replayed makes the
    same call. Required arguments are never left out, choices never changed to another one; the monitor judges what
    comes out of here. A call whose arguments stand on what was said passes unchanged.
Interface: `settled(arguments, schema, asked, heard, about)`; `wanted(schema, asked)`;
    `numbers_as_declared(value, schema)`.

The rules, in this order:
    an optional argument that nothing heard supports is left out; of choices in a list those that nothing supports
        (a choice is said where those of its words were that no other choice has);
    an optional text that only repeats a required one is left out, and a number that was said in one alone: the same
        words do not support both;
    a number with the user's digits and another number of zeros is the one that the user named;
    a quantity is counted in the unit that the parameter's description names;
    n per cent is n/100, but where the parameter says that it counts per cent;
    a name is as long as the user made it: "Les Paul" of "a Gibson Les Paul" becomes "Gibson Les Paul", but for
    words that belong to the syscall itself or to another argument;
    what another parameter holds by choice or by default is not part of a text too, but where it is part of a name;
    a switch of one word is off where the user said "not" or "without" it;
    latitudes south and longitudes west are negative;
    a date is written in the form that the parameter's description names;
    what only copies the example of the parameter's description is the one value of its form that was said;
    an address is the one that was said, where only http or https differs;
    a function of x is what stands behind its `y =`, but where the parameter speaks of equations.

Objects in arguments are held against it member by member, by the same rules. What the question speaks of and the model
would leave out is asked of it beforehand: `wanted`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from llmos.kernel.dates import dated
from llmos.kernel.forms import as_said
from llmos.kernel.heard import FLAG_WORDS, NUMBER, Heard, stems
from llmos.kernel.quantities import counted, directed
from llmos.kernel.support import words

_PERCENT = re.compile(rf"({NUMBER})\s*(?:%|per ?cent\b)", re.IGNORECASE)
_NAME_AFTER = re.compile(r",? ((?:of |the |de )*[A-Z][\w'’]*)")
_NAME_BEFORE = re.compile(r"([A-Z][\w'’]*(?: of| the| de)*) $")
_ADDRESS = re.compile(r"(https?)://(\S+)")
_AFTER = ".,;:!?)]}>'\"»"  # signs behind an address that are not its own
_BEGINS = re.compile(r"(?:^|[.?!'\"]\s*)$")  # what stands before a sentence: its first word is no name
_NOT = re.compile(r"(?:\b(?:not|no|never|without)|n['’]t) (?:(?:a|an|any|the|get|be|being|very) )?(\w+)")
_EQUATION = re.compile(r"(?:[a-z]|[a-z]\([a-z]\))\s*=\s*([^=].*)")
_LARGE = 10_000  # a number with zeros to miscount
_FIXED = frozenset({"enum", "const", "format", "pattern"})  # texts that may not be changed


def settled(
    arguments: Mapping[str, Any], schema: Mapping[str, Any], asked: str, heard: str, about: str
) -> dict[str, Any]:
    """The arguments as the user meant them.

    Args:
        schema: of the syscall's parameters.
        asked: the question, word for word.
        heard: all that the process has been told in this conversation, the question included.
        about: the syscall's name and description.
    """
    described = {n: _mapping(p) for n, p in schema.get("properties", {}).items()}
    required = frozenset(schema.get("required", ()))
    kept = _supported(arguments, described, required, Heard(heard), asked)
    own = stems(" ".join([about, *(f"{n} {p.get('description', '')}" for n, p in described.items())]))
    meant: dict[str, Any] = {}
    for name, value in kept.items():
        parameter = described.get(name, {})
        meant[name] = value
        if isinstance(value, str) and not _FIXED & parameter.keys():
            others = stems(" ".join(str(v) for n, v in {**kept, **meant}.items() if n != name and v != value))
            description = str(parameter.get("description", ""))
            value = as_said(value, description, asked)
            value = _once(value, {n: p for n, p in described.items() if n != name}, kept, asked)
            value = _in_full(value, asked, own | others, place=not name.lower().endswith("city"))
            meant[name] = _function(_address(dated(value, description), heard), description)
        elif value is True:
            meant[name] = not _denied(name, asked)
        elif isinstance(value, float | int) and not isinstance(value, bool):
            value = counted(_unslipped(value, Heard(asked)), str(parameter.get("description", "")), asked)
            meant[name] = _fraction(value, name, parameter, asked)
    for name, value in meant.items():
        hint = f"{name} {described.get(name, {}).get('description', '')}"
        inner = _within(value, described.get(name), asked, heard, about)
        meant[name] = numbers_as_declared(directed(inner, hint, asked), described.get(name))
    return meant


def _within(value: Any, schema: Any, asked: str, heard: str, about: str) -> Any:
    """`value` with the objects in it as the user meant them."""
    schema = _mapping(schema)
    if isinstance(value, list):
        return [_within(part, schema.get("items"), asked, heard, about) for part in value]
    if isinstance(value, dict) and "properties" in schema:
        return settled(value, schema, asked, heard, about)
    return value


def _supported(
    arguments: Mapping[str, Any],
    described: Mapping[str, Mapping[str, Any]],
    required: frozenset[str],
    known: Heard,
    asked: str,
) -> dict[str, Any]:
    """What is required, and what stands on something that was said."""
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        needed = name in required
        choices = _choices(described.get(name, {}))
        if isinstance(value, list) and (not needed or choices):
            found = [part for part in value if known.holds(part, name) or _chosen(part, choices, known)]
            if (
                not needed
                and len(found) < len(value)
                and all(isinstance(part, float | int) for part in value)
            ):
                found = []  # some of its numbers are said by chance
            if found or needed:
                kept[name] = found or value
        elif needed or known.holds(value, name) or _chosen(value, choices, known):
            kept[name] = value
    texts = [v for n, v in kept.items() if n in required and isinstance(v, str)]
    return {n: v for n, v in kept.items() if n in required or not _repeats(v, texts, asked)}


def _repeats(value: Any, texts: list[str], asked: str) -> bool:
    """Whether a text is one of these, or a number was said in these alone."""
    if isinstance(value, str):
        return _flat(value) in map(_flat, texts)
    if isinstance(value, bool) or not isinstance(value, float | int):
        return False
    said = [float(found.replace(",", "")) for found in re.findall(NUMBER, asked)].count(abs(value))
    used = [float(found.replace(",", "")) for text in texts for found in re.findall(NUMBER, text)]
    return 0 < said <= used.count(abs(value))


def _choices(parameter: Mapping[str, Any]) -> list[Any]:
    """Those that a parameter, or each member of its list, may have; none where it is free."""
    return list(parameter.get("enum", ()) or _mapping(parameter.get("items")).get("enum", ()))


def _chosen(value: Any, choices: list[Any], known: Heard) -> bool:
    """Whether the words were said that tell this choice from all others."""
    others = [choice for choice in choices if choice != value]
    if not isinstance(value, str) or len(others) == len(choices):
        return False
    own = stems(value) - stems(" ".join(map(str, others)))
    return bool(own) and all(map(known.word, own))


def wanted(schema: Mapping[str, Any], asked: str) -> Mapping[str, Any]:
    """The schema with those optional parameters required that the question speaks of: by their name, or by one of their
    choices. What then cannot be taken from the question is left out again by `settled`."""
    known, required = Heard(asked), list(schema.get("required", ()))
    spoken = [
        name
        for name, parameter in schema.get("properties", {}).items()
        if name not in required and _spoken(name, _mapping(parameter), known)
    ]
    return {**schema, "required": [*required, *spoken]} if spoken else schema


def _spoken(name: str, parameter: Mapping[str, Any], known: Heard) -> bool:
    own = stems(name) - FLAG_WORDS
    return (bool(own) and all(map(known.word, own))) or any(
        isinstance(choice, str) and len(choice) > 2 and known.holds(choice) for choice in _choices(parameter)
    )


def numbers_as_declared(value: Any, schema: Any) -> Any:
    """`value` with every number that the schema calls a `number` as a float: 3 is 3.0 where a float is wanted."""
    schema = _mapping(schema)
    match value:
        case bool():
            return value
        case int() if schema.get("type") == "number":
            return float(value)
        case list():
            return [numbers_as_declared(part, schema.get("items")) for part in value]
        case dict():
            fields = schema.get("properties", {})
            return {key: numbers_as_declared(part, fields.get(key)) for key, part in value.items()}
    return value


def _unslipped(value: float, asked: Heard) -> float:
    """The user's number with the digits of `value`, if `value` itself was not named: models miscount zeros."""
    if asked.holds(value):
        return value
    meant = {said for said in asked.numbers if said >= _LARGE and _digits(said) == _digits(abs(value))}
    return type(value)(meant.pop() if value > 0 else -meant.pop()) if len(meant) == 1 else value


def _digits(number: float) -> str:
    return f"{number:.15e}".partition("e")[0]


def _fraction(value: float, name: str, parameter: Mapping[str, Any], asked: str) -> float:
    said = {float(found[1].replace(",", "")) for found in _PERCENT.finditer(asked)}
    about = f"{name} {parameter.get('description', '')}"
    counts = re.search(r"per ?cent|%", about, re.IGNORECASE) and not re.search(r"(?<!\d)0?\.\d", about)
    return value / 100 if parameter.get("type") == "number" and value in said and not counts else value


def _in_full(value: str, asked: str, taken: frozenset[str], *, place: bool = True) -> str:
    """`value`, where it is part of a longer name in the question, as the whole name, but for words of `taken`; with the
    state or country behind its comma where it may be a `place`."""
    if len(value) < 3 or not value[0].isupper():
        return value
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", asked)
    if found is None:
        return value
    start, end = found.span()

    def free(name: str) -> bool:
        return bool(own := set(words(name))) and not own & taken

    while (more := _NAME_AFTER.match(asked, end)) and free(more[1]) and (place or more[0][0] != ","):
        end = more.end()
    while (
        (more := _NAME_BEFORE.search(asked[:start]))
        and not _BEGINS.search(asked[: more.start()])
        and free(more[1])
    ):
        start = more.start()
    return asked[start:end]


def _denied(name: str, asked: str) -> bool:
    """Whether the one word that a switch is called was said with a "not"."""
    own = stems(name) - FLAG_WORDS
    return len(own) == 1 and any(own <= stems(found[1]) for found in _NOT.finditer(asked.lower()))


def _once(value: str, others: Mapping[str, Any], given: Mapping[str, Any], asked: str) -> str:
    """`value` without those words at its ends that one of the `others` holds, as the user wrote them small."""
    held = set[str]()
    for name, parameter in others.items():
        if _choices(parameter) or "default" in parameter:
            holds = given.get(name, parameter.get("default"))
            held |= {
                _flat(one) for one in (holds if isinstance(holds, list) else [holds]) if isinstance(one, str)
            }
    parts = value.split(" ")
    for n in range(1, len(parts)):
        for cut, rest in ((parts[:n], parts[n:]), (parts[-n:], parts[:-n])):
            found = re.search(rf"(?<!\w){re.escape(' '.join(cut))}(?!\w)", asked, re.IGNORECASE)
            if found and found[0].islower() and _flat(found[0]) in held:
                return " ".join(rest)
    return value


def _address(value: str, heard: str) -> str:
    """The address that was said with this host and path: a model that has seen `https` in an example writes it too."""
    if not (match := _ADDRESS.fullmatch(value)):
        return value
    said = {found[0].rstrip(_AFTER) for found in _ADDRESS.finditer(heard)}
    meant = {f"{scheme}://{match[2]}" for scheme in ("http", "https")} & said
    return meant.pop() if len(meant) == 1 else value


def _function(value: str, description: str) -> str:
    """What stands behind `y =`, where the description has no equations."""
    found = _EQUATION.fullmatch(value.strip())
    return value if found is None or re.search(r"=|\bequation", description) else found[1]


def _flat(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


def _mapping(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}
