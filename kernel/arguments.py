"""A call's arguments, held against what the user said.

What: small models fill every parameter that they see, cut names short and misspell what they copy. `settled` puts
    right what can be told from the user's own words, without asking the model again.
Invariant: a pure function of the call, its schema and what was said, so a turn that is resumed or replayed makes the
    same call. Required arguments are never left out, choices never changed to another one; the monitor judges what
    comes out of here. A call whose arguments stand on what was said passes unchanged.
Interface: `settled(arguments, schema, asked, heard, about)`; `numbers_as_declared(value, schema)`.

The rules, in this order:
    an optional argument that nothing heard supports is left out; of choices in a list those that nothing supports;
    an optional text that only repeats another argument is left out;
    a large number with zeros too many or too few is the one that the user named;
    n per cent is n/100, but where the parameter says that it counts per cent;
    a word that is misspelt or cut short is written as the user wrote it;
    a name is as long as the user made it: "Les Paul" of "a Gibson Les Paul" becomes "Gibson Les Paul", but for
    words that belong to the syscall itself or to another argument;
    a date is written in the form that the parameter's description names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from llmos.kernel.dates import dated
from llmos.kernel.heard import NUMBER, Heard, stems
from llmos.kernel.support import words

_PERCENT = re.compile(rf"({NUMBER})\s*(?:%|per ?cent\b)", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")
_NAME_AFTER = re.compile(r",? ((?:of |the |de )*[A-Z][\w'’]*)")
_NAME_BEFORE = re.compile(r"([A-Z][\w'’]*(?: of| the| de)*) $")
_BEGINS = re.compile(r"(?:^|[.?!'\"]\s*)$")  # what stands before a sentence: its first word is no name
_FIXED = frozenset({"enum", "const", "format", "pattern"})  # texts that may not be changed
_LARGE = 10_000  # from here on models miscount zeros, and units are rarely converted
_SLIPS = 2  # letters that a misspelt word may differ by


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
    kept = _supported(arguments, described, required, Heard(heard))
    own = stems(" ".join([about, *(f"{n} {p.get('description', '')}" for n, p in described.items())]))
    meant: dict[str, Any] = {}
    for name, value in kept.items():
        parameter = described.get(name, {})
        meant[name] = value
        if isinstance(value, str) and not _FIXED & parameter.keys():
            others = stems(" ".join(str(v) for n, v in {**kept, **meant}.items() if n != name and v != value))
            value = _in_full(_whole_words(_as_spelt(value, asked), asked), asked, own | others)
            meant[name] = dated(value, str(parameter.get("description", "")))
        elif isinstance(value, float | int) and not isinstance(value, bool):
            meant[name] = _fraction(_unslipped(value, Heard(asked)), name, parameter, asked)
    return {name: numbers_as_declared(value, described.get(name)) for name, value in meant.items()}


def _supported(
    arguments: Mapping[str, Any],
    described: Mapping[str, Mapping[str, Any]],
    required: frozenset[str],
    known: Heard,
) -> dict[str, Any]:
    """What is required, and what stands on something that was said."""
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        needed = name in required
        members = _mapping(described.get(name, {}).get("items"))
        if isinstance(value, list) and (not needed or "enum" in members):
            found = [part for part in value if known.holds(part, name)]
            if found or needed:
                kept[name] = found or value
        elif needed or known.holds(value, name):
            kept[name] = value
    texts = {_flat(v) for n, v in kept.items() if n in required and isinstance(v, str)}
    return {n: v for n, v in kept.items() if n in required or not isinstance(v, str) or _flat(v) not in texts}


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
    """A large number of the user's where `value` is that with zeros too many or too few."""
    if not asked.holds(value):
        for said in asked.numbers:
            if said >= _LARGE and any(abs(value) == said * 10.0**zeros for zeros in (-3, -2, -1, 1, 2, 3)):
                return type(value)(said if value > 0 else -said)
    return value


def _fraction(value: float, name: str, parameter: Mapping[str, Any], asked: str) -> float:
    said = {float(found[1].replace(",", "")) for found in _PERCENT.finditer(asked)}
    counts = re.search(r"per ?cent|%", f"{name} {parameter.get('description', '')}", re.IGNORECASE)
    return value / 100 if parameter.get("type") == "number" and value in said and not counts else value


def _as_spelt(value: str, asked: str) -> str:
    """`value` with words that differ from the user's by an accent or a slip written as the user did."""
    said = re.findall(r"\w+", asked)
    lower = {word.lower() for word in said}

    def spelt(found: re.Match[str]) -> str:
        word = found[0]
        if len(word) < 5 or word.lower() in lower:
            return word
        for other in said:
            if _plain(other) == _plain(word) or _slip(word.lower(), other.lower()):
                return other
        return word

    return _LETTERS.sub(spelt, value)


def _slip(word: str, said: str) -> bool:
    """Whether `word` is `said` misspelt, and not another form of it."""
    return (
        len(said) >= 6
        and word[:2] == said[:2]
        and not set(words(word)) & set(words(said))
        and not word.startswith(said[:-2])
        and _distance(word, said) <= _SLIPS
    )


def _whole_words(value: str, asked: str) -> str:
    """`value` with words that are cut short (C of C#, Christian of Christianity) as long as the user wrote them."""
    said = [word.strip(".,;:!?'\"()[]") for word in asked.split()]
    lower = {word.lower() for word in said}

    def whole(word: str) -> str:
        if not word or word.lower() in lower:
            return word
        longer = [w for w in said if w.lower().startswith(word.lower()) and "'" not in w[len(word) :][:1]]
        if len(word) < 4:
            return next((w for w in longer if len(w) == len(word) + 1 and not w[-1].isalnum()), word)
        other = [w for w in longer[:1] if len(word) > 4 and not set(words(w)) & set(words(word))]
        return other[0] if other else word

    return " ".join(map(whole, value.split(" ")))


def _in_full(value: str, asked: str, taken: frozenset[str]) -> str:
    """`value`, where it is part of a longer name in the question, as the whole name, but for words of `taken`."""
    if len(value) < 3 or not value[0].isupper():
        return value
    found = re.search(rf"(?<!\w){re.escape(value)}(?!\w)", asked)
    if found is None:
        return value
    start, end = found.span()

    def free(name: str) -> bool:
        return bool(own := set(words(name))) and not own & taken

    while (more := _NAME_AFTER.match(asked, end)) and free(more[1]):
        end = more.end()
    while (
        (more := _NAME_BEFORE.search(asked[:start]))
        and not _BEGINS.search(asked[: more.start()])
        and free(more[1])
    ):
        start = more.start()
    return asked[start:end]


def _distance(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _plain(word: str) -> str:
    """Without accents and case."""
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)).lower()


def _flat(text: str) -> str:
    return re.sub(r"\W+", "", text.lower())


def _mapping(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}
