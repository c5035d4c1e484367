"""Units of measure, exactly.

What: a table of units as rational multiples of base units, SI prefixes, and temperatures with an offset.
Invariant: every factor is exact (but for the degree of angle, which has pi in it). A name means one unit.
Interface: `find(name) -> Unit | None`; `Dimension` is exponents of base units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from llmos.apps.calculator.arithmetic import PI, Number, divide, multiply

Dimension = tuple[tuple[str, Fraction], ...]
"""(base unit, exponent) in the order of their names; () for a plain number."""

NONE: Dimension = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """`value * factor + offset` in base units; only temperatures have an offset."""

    name: str
    factor: Number
    dimension: Dimension
    offset: Fraction = Fraction(0)


def combine(a: Dimension, b: Dimension, sign: int = 1) -> Dimension:
    """The dimension of a product (sign 1) or quotient (sign -1)."""
    powers = dict(a)
    for name, exponent in b:
        powers[name] = powers.get(name, Fraction(0)) + sign * exponent
    return tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))


def raised(a: Dimension, exponent: Fraction) -> Dimension:
    """The dimension of a power."""
    return tuple((name, power * exponent) for name, power in a) if exponent else NONE


def spell(dimension: Dimension) -> str:
    """As text: "kg m^2/s^2", "m/(s A)", "s^-1"."""
    above = [_term(name, power) for name, power in dimension if power > 0]
    below = [_term(name, -power if above else power) for name, power in dimension if power < 0]
    if not above or not below:
        return " ".join(above or below)
    return f"{' '.join(above)}/{below[0] if len(below) == 1 else '(' + ' '.join(below) + ')'}"


def _term(name: str, power: Fraction) -> str:
    if power == 1:
        return name
    return f"{name}^{power}" if power.denominator == 1 else f"{name}^({power})"


# Names (the first is shown): factor, base units; "+" takes prefixes. Volumes of the kitchen are those of the US.
_TABLE = """
m meter meters metre metres: 1 m +
g gram grams gramme grammes: 1/1000 kg +
s second seconds sec secs: 1 s +
A ampere amperes amp amps: 1 A +
K kelvin kelvins: 1 K +
mol mole moles: 1 mol +
cd candela candelas: 1 cd +
bit bits: 1 bit +
B byte bytes: 8 bit +
rad radian radians: 1
min minute minutes mins: 60 s
h hour hours hr hrs: 3600 s
d day days: 86400 s
week weeks wk: 604800 s
year years yr yrs: 31557600 s
Hz hertz: 1 s^-1 +
rpm: 1/60 s^-1
N newton newtons: 1 kg m s^-2 +
Pa pascal pascals: 1 kg m^-1 s^-2 +
J joule joules: 1 kg m^2 s^-2 +
W watt watts: 1 kg m^2 s^-3 +
C coulomb coulombs: 1 A s +
V volt volts: 1 kg m^2 s^-3 A^-1 +
F farad farads: 1 kg^-1 m^-2 s^4 A^2 +
ohm ohms Ω: 1 kg m^2 s^-3 A^-2 +
T tesla teslas: 1 kg s^-2 A^-1 +
Wh watthour watthours: 3600 kg m^2 s^-2 +
eV electronvolt electronvolts: 1.602176634e-19 kg m^2 s^-2 +
cal calorie calories: 4.184 kg m^2 s^-2 +
BTU btu: 1055.05585262 kg m^2 s^-2
hp horsepower: 745.69987158227022 kg m^2 s^-3
bar bars: 100000 kg m^-1 s^-2 +
atm atmosphere atmospheres: 101325 kg m^-1 s^-2
mmHg: 133.322387415 kg m^-1 s^-2
lbf: 4.4482216152605 kg m s^-2
kgf: 9.80665 kg m s^-2
l L liter liters litre litres: 1/1000 m^3 +
t tonne tonnes: 1000 kg +
ha hectare hectares: 10000 m^2
acre acres: 4046.8564224 m^2
in inch inches: 0.0254 m
ft foot feet: 0.3048 m
yd yard yards: 0.9144 m
mi mile miles: 1609.344 m
nmi: 1852 m
au: 149597870700 m
ly lightyear lightyears: 9460730472580800 m
lb lbs pound pounds: 0.45359237 kg
oz ounce ounces: 0.028349523125 kg
st stone stones: 6.35029318 kg
gal gallon gallons: 0.003785411784 m^3
qt quart quarts: 0.000946352946 m^3
pt pint pints: 0.000473176473 m^3
cup cups: 0.0002365882365 m^3
floz: 0.0000295735295625 m^3
tbsp tablespoon tablespoons: 0.00001478676478125 m^3
tsp teaspoon teaspoons: 0.00000492892159375 m^3
mph: 0.44704 m s^-1
kmh kph: 5/18 m s^-1
kn knot knots: 463/900 m s^-1
"""
_PREFIXES = {
    "Q": 30, "R": 27, "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1,
    "d": -1, "c": -2, "m": -3, "u": -6, "µ": -6, "μ": -6, "n": -9, "p": -12, "f": -15, "a": -18,
    "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "deci": -1, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
    "tera": 12, "peta": 15, "pico": -12,
}  # fmt: skip
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "kibi": 10, "mebi": 20, "gibi": 30, "tebi": 40}
_SPECIAL = {
    **dict.fromkeys(("deg", "degree", "degrees", "°"), Unit("deg", divide(PI, Fraction(180)), NONE)),
    **dict.fromkeys(
        ("degC", "celsius", "°C"), Unit("degC", Fraction(1), (("K", Fraction(1)),), Fraction("273.15"))
    ),
    **dict.fromkeys(
        ("degF", "fahrenheit", "°F"),
        Unit("degF", Fraction(5, 9), (("K", Fraction(1)),), Fraction("459.67") * Fraction(5, 9)),
    ),
}


@cache
def _units() -> tuple[dict[str, Unit], frozenset[str]]:
    """Every unit by each of its names, and the names that take prefixes."""
    units, prefixed = dict(_SPECIAL), set()
    for line in _TABLE.strip().splitlines():
        names, _, meaning = line.partition(":")
        factor, *bases = meaning.replace("+", "").split()
        powers = [(base.partition("^")[0], Fraction(base.partition("^")[2] or 1)) for base in bases]
        known = names.split()
        for name in known:
            assert name not in units, name
            units[name] = Unit(known[0], Fraction(factor), tuple(sorted(powers)))
        if meaning.endswith("+"):
            prefixed.update(known)
    return units, frozenset(prefixed)


@cache
def find(name: str) -> Unit | None:
    """The unit of that name, with or without a prefix."""
    units, prefixed = _units()
    if name in units:
        return units[name]
    for prefix, ten in _PREFIXES.items():
        rest = name[len(prefix) :]
        if name.startswith(prefix) and rest in prefixed and _alike(prefix, rest):
            return _scaled(name, units[rest], _scale(ten))
    for prefix, two in _BINARY.items():
        base = units.get(name[len(prefix) :]) if name.startswith(prefix) else None
        if base is not None and base.dimension == (("bit", Fraction(1)),):
            return _scaled(name, base, Fraction(2**two))
    return None


def _scaled(name: str, base: Unit, scale: Fraction) -> Unit:
    return Unit(name, multiply(base.factor, scale), base.dimension)


def _alike(prefix: str, name: str) -> bool:
    """Long prefixes go with long names, short ones with symbols: no `kilom`, no `kmeter`."""
    return (len(prefix) > 2) == (len(name) > 3)


def _scale(ten: int) -> Fraction:
    return Fraction(10**ten) if ten >= 0 else Fraction(1, 10**-ten)


def names() -> list[str]:
    """Every name in the table, for suggestions."""
    return list(_units()[0])


def spelled() -> str:
    """A regular expression of the names that `find` knows, and of some more, for it is to be short: any prefix goes
    with any name that takes one, and every name has a plural."""
    units, prefixed = _units()
    made = [
        f"(?:{_any(p for p in (*_PREFIXES, *_BINARY) if (len(p) > 2) == long)})?"
        + _folded({name for name in prefixed if (len(name) > 3) == long})
        for long in (False, True)
    ]
    return "|".join([_folded({name for name in units if name[0].isalpha()} - prefixed), *made])


def _folded(names: set[str]) -> str:
    return f"(?:{_any(name for name in names if not (name.endswith('s') and name[:-1] in names))})s?"


def _any(names: Iterable[str]) -> str:
    return "|".join(sorted(names))
