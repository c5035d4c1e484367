"""Scaling laws: a grid of small models foretells the loss of a larger one, at 8 times the computing.

What: `llmos learn scaling` on real text (`texts`): `predicted` and `measured` loss of the larger run (nats a
    token), `error` between them; the law's exponents `a` and `b` and irreducible loss `E`; `fit_error`, root mean
    square over the grid; `runs`; `n_range`, `d_range`, how far the grid's sizes and amounts of text spread;
    `compute_ratio`, the larger run's computing over the grid's largest; `no_law_error`, how far off the grid's best
    loss would have been as a guess.
Invariant: what is foretold is written down before the larger run begins. A run that was ended goes on where it
    stopped (its results are in the cache, by the code's and the dials' digest).
Interface: `run(quick, progress)`; `--quick` takes ten minutes and shorter runs.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks.figures import Figures, Progress, digest
from benchmarks.texts import texts
from llmos.cli.learn_scaling import Shown
from llmos.connect import load_config
from llmos.kernel.boot import prepare_jax
from llmos.kernel.learn import scaling
from llmos.kernel.learn.scaling import Design, study
from llmos.kernel.learn.scaling_plot import draw, require

LEARNT = ("scaling", "stream", "student", "trainer", "objective", "ops")  # modules that a result depends on


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    require()
    config = load_config(None)
    prepare_jax(config)
    design = Design(minutes=10.0, least=50) if quick else Design()
    made_by = digest(Path(scaling.__file__).parent, LEARNT, design)
    made = study(texts(progress), config.machine.cache / "scaling" / made_by, design, Shown(sys.stderr))
    law, grid, larger = made.foretold.law, [d.run for d in made.grid], made.larger.run
    sizes, tokens = [r.size.parameters for r in grid], [r.tokens for r in grid]
    values = {
        "predicted": made.foretold.loss, "measured": made.larger.loss, "error": made.error,
        "predicted_low": made.foretold.low, "predicted_high": made.foretold.high,
        "a": law.a, "b": law.b, "E": law.E, "fit_error": law.misses, "runs": len(grid),
        "n_range": max(sizes) / min(sizes), "d_range": max(tokens) / min(tokens),
        "compute_ratio": larger.compute / max(r.compute for r in grid),
        "no_law_error": min(d.loss for d in made.grid) / made.larger.loss - 1,
        "training_s": sum(d.seconds for d in (*made.grid, made.larger)),
    }  # fmt: skip
    about = f"{larger.size.parameters:,} parameters without the vocabulary's, {larger.tokens:,} tokens"
    return Figures(values, (), (str(law), f"the larger run: {about}"), partial(draw, made))
