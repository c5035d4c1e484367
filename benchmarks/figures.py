"""What a benchmark gives back, and which models it runs on.

What: `Figures` (numbers by key, with notes for people), the models, medians of alternating runs.
Invariant: a figure is a number that was measured in this run; where llama.cpp is not installed its keys are
    absent, never guessed.
Interface: `Figures`, `Progress`, `models(quick)`, `alternate`, `digest`.

A benchmark is a module of this folder with `run(quick, progress) -> Figures` whose docstring's first line says
what it measures; nothing else is needed for `python -m benchmarks NAME`.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str], None]

SMALL = ("smollm2-135m", "qwen2.5-coder-0.5b")
LARGE = ("qwen2.5-coder-1.5b",)


@dataclass(frozen=True, slots=True)
class Figures:
    """Numbers by key, the models they were measured on, what a reader should know beside them, and what draws them
    into a folder, where there is a picture of them."""

    values: Mapping[str, float]
    models: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())
    draw: Callable[[Path], Sequence[Path]] | None = None


def models(quick: bool) -> dict[str, Path]:
    """Catalogue name -> file of the models to measure: the two small ones (fetched if need be), and without
    `quick` the larger one if it is on this machine."""
    from llmos.abi.errors import ModelNotFound
    from llmos.drivers.weights import find

    found = {name: find(name).path for name in SMALL}
    for name in () if quick else LARGE:
        try:
            found[name] = find(name, fetch=False).path
        except ModelNotFound:
            continue
    return found


def alternate(
    a: Callable[[], float], b: Callable[[], float] | None, rounds: int
) -> tuple[float, float | None]:
    """Medians of a and b measured in turn (A B A B ...), so that what disturbs the machine disturbs both."""
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(a())
        if b is not None:
            theirs.append(b())
    return statistics.median(ours), statistics.median(theirs) if theirs else None


def digest(folder: Path, names: Sequence[str], *dials: object) -> str:
    """Of the modules `names` of a folder and of dials: what a result that is kept was made by."""
    code = b"".join((folder / f"{name}.py").read_bytes() for name in names)
    return hashlib.sha256(code + repr(dials).encode()).hexdigest()[:12]
