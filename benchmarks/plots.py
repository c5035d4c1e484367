"""A result as a picture: one panel, as SVG and PNG.

What: what all plots of benchmarks share; what is on them is the benchmark's own.
Invariant: the same figures give the same files.
Interface: `picture(folder, name, paint) -> [path]`; `require()` raises where matplotlib is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.kernel.learn import scaling_plot
from llmos.kernel.learn.scaling_plot import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture", "require"]


def picture(folder: Path, name: str, paint: Callable[[Axes], None]) -> list[Path]:
    """Has `paint` draw on the axes of `name`.svg and `name`.png.

    Raises:
        LearningError: matplotlib is missing.
    """
    return scaling_plot.picture(folder, name, lambda figure: paint(figure.subplots()))
