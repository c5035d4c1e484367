"""Knowledge that is computed ahead of need: within a budget of bytes, and only after its cost was told.

What: the passages of a process's mounts, as its blended windows have them (behind the same front, under the same
    labels, with the same adapter), go through the model behind all other work and into the page store, on disk at the
    end. The likeliest first: what the questions of the journal find, then the documents' beginnings.
Invariant: nothing is computed that the store has, so what was stopped goes on where it stood, and the same budget again
    costs nothing. A budget is a bound on what the passages take together, wherever they came from.
Interface: `fill(process, budget, look, progress) -> Filling`. Any thread but the engine's and the loop's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING

from llmos.abi.errors import ConfigError
from llmos.abi.machine import Filling
from llmos.abi.progress import Progress
from llmos.kernel import grounding
from llmos.kernel.engine.sequence import Request
from llmos.kernel.execution import Asking
from llmos.kernel.journal.records import Asked
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmos.kernel.engine.blend import Blender
    from llmos.kernel.process import Process

QUESTIONS = 64  # of the journal, the newest
PROBE = 128  # tokens that are computed to learn how long others will take
WRITTEN_S = 60.0  # that the disk may take at the end


def fill(process: Process, budget: int, look: bool, progress: Progress) -> Filling:
    """Bring the likeliest passages of a process into the page store; with `look` only say what that costs.

    Raises:
        ConfigError: the process does not blend or has no mounts; the budget is too small for a passage, or more than
            the store holds.
    """
    kernel, blender = process.kernel, process.kernel.blender
    if not process.view.blends or blender is None:
        raise ConfigError(
            f"process {process.pid} computes what it reads as it stands", why="its fidelity is exact",
            do='spawn it with fidelity="blend"',
        )  # fmt: skip
    room = kernel.config.memory.ram + kernel.config.memory.swap
    if budget > room:
        raise ConfigError(
            f"{budget:,} bytes are more than the page store holds", why=f"memory.ram and memory.swap are {room:,}",
            do="give a smaller budget, or raise memory.swap in llmos.yaml",
        )  # fmt: skip
    chosen, told = _chosen(process, blender, budget, progress)
    missing = [request for request, there in chosen if not there]
    if look:
        return replace(told, seconds=_seconds(process, missing, told.missing))
    began, done = perf_counter(), 0
    for request in missing:
        if process.exit is not None:
            break
        for _ in kernel.engine.submit(request):
            pass
        done += 1
        progress("fill", done, len(missing))
    kernel.pages.flush(WRITTEN_S)
    return replace(told, seconds=perf_counter() - began, stopped=done < len(missing))


def _chosen(
    process: Process, blender: Blender, budget: int, progress: Progress
) -> tuple[list[tuple[Request, bool]], Filling]:
    """A request for each passage that the budget has room for, with whether it is stored, and what they cost."""
    kernel, view = process.kernel, process.view
    if not process.mounts:
        raise ConfigError(
            f"process {process.pid} has nothing mounted", do="give what it is to know: --mount PATH"
        )
    chosen: list[tuple[Request, bool]] = []
    every = sum(kernel.library.size(mount) for mount in process.mounts)
    tokens = missing = 0
    for passage in kernel.library.likely(process.mounts, _questions(process), grounding.BLENDED):
        layout = view.in_pieces([passage], Asking())
        if not layout.pieces or layout.pieces[-1] >= view.size:
            continue  # no window has room for it
        front, end = layout.pieces
        size = end - front + (0 if chosen else front)
        if (tokens + size) * blender.token_bytes > budget:
            break
        request = Request(
            tokens=layout.tokens[: end + 1], max_tokens=1, draft=0, priority=Priority.BATCH,
            adapter=kernel.adapters.get(layout.adapter), labels=layout.labels, pieces=layout.pieces,
        )  # fmt: skip
        there = all(blender.stored(request))
        chosen.append((request, there))
        tokens, missing = tokens + size, missing + (0 if there else size)
        progress("weigh", len(chosen), every)
    if not chosen:
        raise ConfigError(
            f"{budget:,} bytes have room for no passage", why=f"a token takes {blender.token_bytes:,} bytes",
            do="give a larger budget, such as 64MiB",
        )  # fmt: skip
    progress("weigh", every, every)
    stored = sum(there for _, there in chosen)
    return chosen, Filling(len(chosen), every, stored, tokens, missing, tokens * blender.token_bytes, 0.0)


def _questions(process: Process) -> list[str]:
    """What was asked on this machine last, each once."""

    def newest() -> Iterator[str]:
        records = [*process.kernel.journal.records(kinds=[Asked])]
        for record in reversed(records):
            if isinstance(record.body, Asked) and record.body.text.strip():
                yield record.body.text

    return list(islice(dict.fromkeys(newest()), QUESTIONS))


def _seconds(process: Process, missing: list[Request], tokens: int) -> float:
    """About how long so many tokens take, by some that are computed now and kept by nobody."""
    if not missing:
        return 0.0
    probe = replace(missing[0], tokens=missing[0].tokens[:PROBE][::-1], pieces=(), labels=())
    began = perf_counter()
    for _ in process.kernel.engine.submit(probe):
        pass
    return tokens * (perf_counter() - began) / len(probe.tokens)
