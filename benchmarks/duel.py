"""Ours against llama.cpp on the same file: the loop that decode, prefill, streams and compare share.

What: for each model, boots ours, lets llama.cpp choose its best settings by a probe, then measures both in turn.
Invariant: A B A B in one run, medians; both sides loaded at the same time, only one of them at work.
Interface: `duel(...) -> Figures` with keys `ours.…`, `llama_cpp.…`, `ratio.…`, each ending in `<model>.<size>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from benchmarks import llama
from benchmarks.figures import Figures, Progress, alternate, models
from benchmarks.ours import Ours


class Side(Protocol):
    """What both sides can be asked for."""

    def decode(self, context: int, tokens: int = 48) -> float: ...

    def prefill(self, tokens: int) -> float: ...

    def streams(self, n: int, context: int = 64, tokens: int = 24) -> float: ...


def duel(
    quick: bool,
    progress: Progress,
    *,
    sizes: Sequence[int],
    measure: Callable[[Side, int], float],
    probe: Callable[[Side], float],
    choices: Sequence[llama.Settings],
    context: int,
    streams: int = 1,
) -> Figures:
    """Measure `measure(side, size)` for every model and size.

    Args:
        probe: a short measurement by which llama.cpp's settings are chosen, out of `choices`.
        context, streams: what llama.cpp's context must hold.
    """
    values: dict[str, float] = {}
    notes: list[str] = []
    files = models(quick)
    there = llama.installed()
    for name, path in files.items():
        with ExitStack() as stack:
            progress(f"{name}: loading")
            ours = stack.enter_context(Ours(name))
            theirs = None
            if there:
                theirs = stack.enter_context(llama.Llama(path, choices[0], context=context, streams=streams))
                notes.append(f"llama.cpp, {name}: {llama.best(theirs, probe, choices)}")
            for size in sizes:
                measure(ours, size)  # the first run sets things up
                a, b = alternate(
                    lambda x=ours, n=size: measure(x, n),
                    None if theirs is None else lambda x=theirs, n=size: measure(x, n),
                    2 if quick else 3,
                )
                key = f"{name}.{size}"
                values[f"ours.{key}"] = a
                if b is not None:
                    values[f"llama_cpp.{key}"], values[f"ratio.{key}"] = b, a / b
                progress(f"{name} {size}: ours {a:.1f}" + (f", llama.cpp {b:.1f}" if b is not None else ""))
    notes.append(llama.flags() if there else "llama-cpp-python is not installed: no comparison")
    return Figures(values, tuple(files), tuple(notes))
