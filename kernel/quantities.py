"""Quantities in the unit that a parameter asks for.

What: reads "3 minutes" in the user's words, and gives 180 for a parameter that counts seconds; and -3.5 for a longitude
    of 3.5 W.
Invariant: a number that is right already, or that may mean several quantities, stays as it is; so do speeds, areas and
    other compounds. Whole numbers stay whole.
Interface: `counted(value, description, asked) -> float`; `directed(value, about, asked)`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from llmos.kernel.heard import NUMBER, Heard

_UNITS = {
    name: (kind, Fraction(size))
    for kind, units in {
        "time": "millisecond|ms 1/1000, second|sec 1, minute|min 60, hour|hr 3600, day 86400, week 604800",
        "length": "millimeter|millimetre|mm 1/1000, centimeter|centimetre|cm 1/100, meter|metre|m 1, "
        "kilometer|kilometre|km 1000, inch|inche 127/5000, foot|feet|ft 381/1250, yard 1143/1250, mile 201168/125",
        "mass": "milligram|mg 1/1000, gram|g 1, kilogram|kg 1000, ounce|oz 45359237/1600000, pound|lb 45359237/100000",
    }.items()
    for names, size in (unit.split() for unit in units.split(", "))
    for name in names.split("|")
}
_COORDINATE = re.compile(r"coord|latitude|longitude", re.IGNORECASE)
_BELOW = re.compile(rf"({NUMBER})\s*°?\s*(?:[SW]\b|[Ss]outh|[Ww]est)")
_ALONE = r"([a-z]+)\b(?!\s*(?:[/^²³]|per\b))"  # a word that is no part of a compound
_SAID = re.compile(rf"({NUMBER})[ -]?{_ALONE}", re.IGNORECASE)
_WANTED = re.compile(rf"\bin {_ALONE}", re.IGNORECASE)


def counted(value: float, description: str, asked: str) -> float:
    """`value` in the unit that `description` names ("in seconds"), where the user named a quantity in another one."""
    wanted = next((unit for found in _WANTED.finditer(description) if (unit := _unit(found[1]))), None)
    if wanted is None:
        return value
    said = [
        (Fraction(found[1].replace(",", "")), unit)
        for found in _SAID.finditer(asked)
        if (unit := _unit(found[2])) and unit[0] == wanted[0]
    ]
    meant = {number: number * unit[1] / wanted[1] for number, unit in said}
    if len(meant) != len(said) or value in meant.values():
        return value
    if value in meant:
        found = [meant[Fraction(value)]]
    else:
        found = [] if Heard(asked).holds(value) else list(meant.values())
    if len(found) != 1 or (isinstance(value, int) and found[0].denominator != 1):
        return value
    return type(value)(found[0])


def directed(value: Any, about: str, asked: str) -> Any:
    """Coordinates, one or a list of them, south and west of zero below it. `about`: the parameter, by its name and
    description."""
    if isinstance(value, list):
        return [directed(part, about, asked) for part in value]
    if isinstance(value, bool) or not isinstance(value, float | int) or not _COORDINATE.search(about):
        return value
    said = {float(found[1]) for found in _BELOW.finditer(asked)}
    return -value if value in said else value


def _unit(word: str) -> tuple[str, Fraction] | None:
    """Its kind, and how many of the kind's own unit it is."""
    word = word.lower()
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
