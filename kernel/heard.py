"""What was said: whether a word, a number or a value stands on somebody's words.

What: `Heard` indexes a text by word stems, numbers (in digits and in words) and initials, and says whether a value
    that a model wrote can have come from there.
Invariant: pure functions of text: the same words give the same verdict on every machine and in every replay.
Interface: `Heard(text)`: `.word(stem)`, `.share(stems)`, `.holds(value, name)`; `stems(text)`, `NUMBER`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from llmos.kernel.dates import named
from llmos.kernel.support import words

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+"  # thousands may stand between commas
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NUMBERS = {
    name: float(value)
    for value, names in enumerate(
        "zero one|single|first|once|yearly|annually two|second|couple|twice|semiannually three|third four|quarterly "
        "five six seven eight nine ten eleven twelve|dozen|monthly thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split()
    )
    for name in names.split("|")
} | {
    "half": 0.5, "quarter": 0.25, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "weekly": 52.0, "sixty": 60.0,
    "hundred": 100.0, "daily": 365.0, "thousand": 1000.0,
}  # fmt: skip
_SCALES = {"k": 1e3, "thousand": 1e3, "million": 1e6, "mn": 1e6, "billion": 1e9, "bn": 1e9}
_SCALED = re.compile(rf"({NUMBER})\s?({'|'.join(_SCALES)})\b")
_DATE = re.compile(r"(?<!\d)(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})(?!\d)")
_LIKE = 4  # letters from which one word may be the beginning of another


def stems(text: str) -> frozenset[str]:
    """The stems of content words, also of those in `snake_case` and `camelCase`."""
    return frozenset(words(_CAMEL.sub(" ", text.replace("_", " "))))


FLAG_WORDS = stems("include get show use set")  # of a switch's name: they say nothing of what it switches


class Heard:
    """What is known of a text."""

    def __init__(self, text: str) -> None:
        lower = text.lower()
        self.stems = stems(text)
        self.numbers = {float(found[0].replace(",", "")) for found in re.finditer(NUMBER, text)}
        self.numbers |= {
            float(found[1].replace(",", "")) * _SCALES[found[2]] for found in _SCALED.finditer(lower)
        }
        self.numbers |= {float(part) for found in _DATE.finditer(text) for part in found.group(1, 3, 4)}
        self._letters = re.findall(r"[a-z]+", lower)
        self.numbers |= {_NUMBERS[word] for word in self._letters if word in _NUMBERS}
        self._initials = "".join(word[0] for word in self._letters)
        self._flat = re.sub(r"\W+", "", lower)

    def word(self, stem: str) -> bool:
        """Whether a word of this stem was said, or one that begins with it or that it begins with."""
        if stem in self.stems:
            return True
        if re.fullmatch(r"\d+(?:\.\d+)?", stem):
            return float(stem) in self.numbers
        return len(stem) >= _LIKE and any(
            len(said) >= _LIKE and (said.startswith(stem) or stem.startswith(said)) for said in self.stems
        )

    def share(self, wanted: Collection[str]) -> float:
        """The part of these stems that was said; 0 of none."""
        return sum(map(self.word, wanted)) / max(1, len(wanted))

    def holds(self, value: Any, name: str = "") -> bool:
        """Whether `value`, of a parameter called `name`, can have come from what was said: a number that was named
        (or its hundredth, or its opposite), a text whose words were all said (or that abbreviates them), a date or time
        however it was written, a switch whose name was; of a list or an object some part."""
        match value:
            case bool():
                return any(self.word(stem) for stem in stems(name) - FLAG_WORDS)
            case int() | float():
                size = abs(float(value))
                return any(
                    abs(size - said * f) <= 1e-9 * max(1, said) for said in self.numbers for f in (1, 0.01)
                )
            case "True" | "False" | "true" | "false" if name:
                return self.holds(value.lower() == "true", name)
            case str():
                flat, wanted = re.sub(r"\W+", "", value.lower()), stems(value)
                return bool(wanted) and (
                    all(map(self.word, wanted))
                    or (len(flat) >= 3 and flat in self._flat)
                    or self._abbreviates(value)
                    or named(value, self.numbers, self._letters)
                )
            case list():
                return any(self.holds(part, name) for part in value)
            case dict():
                return any(self.holds(part, key) for key, part in value.items())
        return False

    def _abbreviates(self, value: str) -> bool:
        """Whether `value` is short for a word (km, kilometre) or for several (NY, New York)."""
        letters = re.sub(r"[^a-z]", "", value.lower())
        if not 0 < len(letters) <= 4:
            return False
        if len(letters) > 1 and letters in self._initials:
            return True
        return any(word[0] == letters[0] and _within(letters, word) for word in self._letters)


def _within(letters: str, word: str) -> bool:
    """Whether `letters` stand in `word` in this order."""
    rest = iter(word)
    return all(letter in rest for letter in letters)
