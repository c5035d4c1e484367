"""A study of scaling as a picture.

What: two panels: the loss of each size against its text, with the law's lines; and the law against the measured losses,
    the run that was foretold among them.
Interface: `draw(study, folder) -> [path]` (SVG and PNG); `picture(folder, name, paint)`, by which benchmarks draw too;
    `require()` raises where matplotlib is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmos.abi.errors import LearningError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from llmos.kernel.learn.scaling import Study

STAR = "#c1121f"


def require() -> None:
    """Raises LearningError where there is no matplotlib: said before a study, not behind it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise LearningError(
            "the plot cannot be drawn",
            why="the library matplotlib is missing",
            do="pip install 'llmos[science]'",
        ) from None


def picture(
    folder: Path, name: str, paint: Callable[[Figure], None], width: float = 7, dpi: int = 110
) -> list[Path]:
    """Has `paint` draw a figure `width` inches wide, as `name`.svg and `name`.png: the same figure, the same files.

    Raises:
        LearningError: matplotlib is missing.
    """
    require()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "llmos", "font.size": 9}):
        figure = Figure(figsize=(width, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        paths = [folder / f"{name}.svg", folder / f"{name}.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=dpi)
    return paths


def draw(study: Study, folder: Path) -> list[Path]:
    """Draws `scaling.svg` and `scaling.png`.

    Raises:
        LearningError: matplotlib is missing.
    """

    def paint(figure: Figure) -> None:
        by_text, by_law = figure.subplots(1, 2)
        _by_text(by_text, study)
        _by_law(by_law, study)

    return picture(folder, "scaling", paint, width=10, dpi=150)


def _by_text(axes: Axes, study: Study) -> None:
    law, larger = study.foretold.law, study.larger
    sizes = sorted({done.run.size.parameters for done in study.grid})
    longest = max(done.run.tokens for done in (*study.grid, larger))
    shortest = min(done.run.tokens for done in study.grid)
    line_D = np.geomspace(shortest / 1.2, longest * 1.2, 100)
    for i, size in enumerate(sizes):
        colour = (0.10 + 0.55 * i / max(1, len(sizes) - 1), 0.30, 0.65 - 0.45 * i / max(1, len(sizes) - 1))
        runs = [done for done in study.grid if done.run.size.parameters == size]
        axes.plot(line_D, [law.loss(size, d) for d in line_D], color=colour, linewidth=1)
        axes.plot(
            [d.run.tokens for d in runs], [d.loss for d in runs], "o", color=colour, markersize=4,
            label=f"N = {_short(size)}",
        )  # fmt: skip
    big = larger.run.size.parameters
    axes.plot(line_D, [law.loss(big, d) for d in line_D], color=STAR, linewidth=1, linestyle="--")
    axes.plot([larger.run.tokens], [larger.loss], "*", color=STAR, markersize=12, label=f"N = {_short(big)}")
    axes.set(xscale="log", yscale="log", xlabel="tokens of text, D", ylabel="held-out loss, nats a token")
    axes.set_title(str(law), fontsize=8)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)


def _by_law(axes: Axes, study: Study) -> None:
    law, larger, foretold = study.foretold.law, study.larger, study.foretold
    said = [law.loss(d.run.size.parameters, d.run.tokens) for d in study.grid]
    found = [d.loss for d in study.grid]
    ends = [min(*said, *found, larger.loss) * 0.97, max(*said, *found) * 1.03]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.plot(
        said, found, "o", color="#1d3557", markersize=4, label=f"{len(said)} runs that the law was fitted to"
    )
    times = larger.run.compute / max(d.run.compute for d in study.grid)
    axes.plot(
        [foretold.loss], [larger.loss], "*", color=STAR, markersize=12,
        label=f"foretold {foretold.loss:.3f}, measured {larger.loss:.3f}: {study.error:.1%} off "
        f"at {times:.1f}x the computing",
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="loss by the law", ylabel="loss measured")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)


def _short(count: float) -> str:
    return f"{count / 1e6:.2f}M" if count >= 1e6 else f"{count / 1e3:.0f}k"
