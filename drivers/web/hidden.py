"""When a person does not see a text: the thresholds, and the arithmetic of colours.

What: numbers that both readers go by, the light one on style sheets and Chromium's on computed styles.
Invariant: a reason is a short phrase that stands in the text's mark; "" means that it can be seen.
Interface: the constants, `Colour`, `contrast(text, ground)`, `too_faint(text, ground)`.
"""

from __future__ import annotations

from typing import NamedTuple

MIN_CONTRAST = 1.35  # WCAG ratio; 1 is the same colour, pale grey that people still print has 1.5
MIN_OPACITY = 0.1
MIN_SIZE = 4.0  # CSS pixels
FAR = 500.0  # CSS pixels that an element is moved away by those who want it off the screen
MIN_BOX = 1.5  # CSS pixels: a box with cut-off contents that is no larger shows none of them

NOT_SHOWN = "not displayed"
INVISIBLE = "invisible"
TRANSPARENT = "transparent"
TINY = "too small"
FAINT = "colour of its background"
AWAY = "off the screen"
CUT = "cut off"
FOLDED = "folded away"
NO_SCRIPTS = "only without scripts"
COVERED = "covered by something else"


class Colour(NamedTuple):
    """sRGB from 0 to 1, and how opaque it is."""

    red: float
    green: float
    blue: float
    alpha: float = 1.0

    def over(self, ground: Colour, opacity: float = 1.0) -> Colour:
        """What is seen of this colour on an opaque ground."""
        a = self.alpha * opacity
        return Colour(*(top * a + under * (1 - a) for top, under in zip(self[:3], ground[:3], strict=True)))


WHITE, BLACK, LINK = Colour(1, 1, 1), Colour(0, 0, 0), Colour(0, 0, 0.933)


def _luminance(colour: Colour) -> float:
    """Relative luminance, WCAG 2.2."""
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3])
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: Colour, other: Colour) -> float:
    """The contrast ratio of two opaque colours, 1 to 21 (WCAG 2.2)."""
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def too_faint(text: Colour, ground: Colour, opacity: float = 1.0) -> bool:
    """Whether text of a colour cannot be told from the opaque ground behind it."""
    return contrast(text.over(ground, opacity), ground) < MIN_CONTRAST
