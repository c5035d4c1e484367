"""What the data say against an answer: a trend that is not the best line, a plot that shows something else.

What: checks of what the model's calls gave, and figures as they are told.
Invariant: "" where nothing speaks against it. A check knows the data file's figures and no answer.
Interface: `trend_of`, `no_trend`, `no_plot`, `place`, `spoken`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date
from math import isclose, log

from examples.scale_ai.table import shown
from llmos.abi.events import Call, Result


def trend_of(results: Sequence[tuple[Call, Result]]) -> dict[date, float]:
    """What `calculator.trend` said, by date."""
    said = json.loads(results[0][1].text)
    return {date.fromisoformat(day): float(number) for day, number in said.items() if day[:1].isdigit()}


def no_trend(
    points: Sequence[tuple[date, float]], trend: Mapping[date, float], today: date, until: date
) -> str:
    """What is wrong with a trend: it leaves a date out, or is not the line of least squares. The distances of that
    one from the data add up to nothing, also when weighed by the date, and two of its points give the others."""
    if missing := {*(day for day, _ in points), today, until} - trend.keys():
        return f"{min(missing)} is left out"
    off = [(day.toordinal() - points[0][0].toordinal(), log(y) - log(trend[day])) for day, y in points]
    if abs(sum(d for _, d in off)) > 1e-3 or abs(sum(x * d for x, d in off)) > 1e-3 * max(1, off[-1][0]):
        return "it is not the best line"
    first, last = points[0][0], until
    share = (today - first).days / (last - first).days
    between = log(trend[first]) + share * log(trend[last] / trend[first])
    return "" if isclose(between, log(trend[today]), abs_tol=1e-3) else "it is not a straight line"


def no_plot(text: str, wanted: Sequence[str]) -> str:
    """What is wrong with the plot that a result tells of."""
    figures = re.findall(r"^\[figure: (.*)\]$", text, re.MULTILINE)
    if len(figures) != 1:
        return f"there are {len(figures)} figures; {(text.strip() or 'nothing was run').splitlines()[-1]}"
    parts = [re.sub(r"line '[^']*'", "line", part) for part in figures[0].split("; ")]
    axes = {part[0]: part for part in parts if part[:2] in ("x ", "y ")}
    if "dates" not in axes.get("x", "") or "logarithmic" not in axes.get("y", ""):
        return "the axes are not dates and logarithmic"
    if not all("with grid" in axis for axis in axes.values()):
        return "there is no grid"
    return next((f"there is no {part}" for part in wanted if part not in parts), "")


def place(day: date, number: float) -> str:
    return f"({day}, {float(shown(number)):.6g})"


def spoken(number: float) -> str:
    """Millions in words."""
    for size, name in ((1e6, "trillion"), (1e3, "billion")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:.3g} million"
