"""Looking at a turn from within: its words as they passed, and what they stood on.

What: reads the last turn of a process again, and asks the model how likely its words would have been without a stretch
    of what it read.
Invariant: nothing is sampled and nothing changes: the words are told to the model, one after the other, and it says
    what it would have given for each. Runs beside everybody else, behind all who wait for an answer. What the template
    wrote stays in a masked window, so what is measured is the words, not a broken frame.
Interface: `passed(kernel, process)`, `why(kernel, process, call, progress)`, `attention(kernel, process)`,
    `window_of(kernel, process)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import ProcessError
from llmos.abi.labels import Label
from llmos.abi.machine import Influence, Passed, Region, Why
from llmos.abi.progress import Progress, silent
from llmos.kernel.engine.sequence import Emitted, Request
from llmos.kernel.lastturn import bursts
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from llmos.kernel.engine.gaze import Shares
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.layout import Layout
    from llmos.kernel.process import Process

ROLE = 16  # bytes behind a control token that may be the template's own: the role, and the end of its line
HEAD = 200  # characters of a stretch that are told


class Told:
    """A grammar that admits one text alone."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens, self._at = tokens, 0

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        """The next token, now and after each of the draft."""
        out[:] = 0
        for row, token in zip(out, self._tokens[self._at :], strict=False):
            row[token // 32] |= np.uint32(1 << (token % 32))

    def instead(self, token: int) -> list[int] | None:
        """Every token stands."""
        return None

    def accept(self, token: int) -> list[int]:
        """One further."""
        self._at += 1
        return []

    @property
    def finished(self) -> bool:
        """All is told."""
        return self._at >= len(self._tokens)


def passed(kernel: Kernel, process: Process) -> list[Passed]:
    """The last turn, stretch by stretch, with every special word in it.

    Raises:
        ProcessError: it has had no turn.
    """
    last = bursts(kernel, process)[-1]
    end = len(last.layout.tokens)
    found = [
        Passed(region, _words(kernel, last.layout.tokens[region.start : region.start + region.tokens]))
        for region in last.layout.map()
    ]
    answer = Region("assistant", "", end, len(last.tokens), last.layout.taint)
    return [*found, Passed(answer, _words(kernel, last.tokens), answer=True)]


def window_of(kernel: Kernel, process: Process) -> Layout:
    """The window that the last answer was written behind."""
    return bursts(kernel, process)[-1].layout


def attention(kernel: Kernel, process: Process) -> Shares | None:
    """What each token of the window had of the last answer's attention; None where that cannot be said: the answer is
    still being written, a remote model wrote it, or this device does not tell."""
    if process.current is not None or process.spawned.settings.get("model"):
        return None
    last = bursts(kernel, process)[-1]
    layout = last.layout
    tokens = (*layout.tokens, *last.tokens)[: kernel.runner.window - 1]
    request = Request(
        tokens=tokens, max_tokens=1, labels=(*layout.labels, (len(tokens), layout.taint)), pieces=layout.pieces,
        priority=Priority.BATCH, adapter=kernel.adapters.get(layout.adapter), attend=len(layout.tokens) - 1,
    )  # fmt: skip
    stream = kernel.engine.submit(request)
    for _ in stream:
        pass
    return None if stream.finished is None else stream.finished.attention


def why(kernel: Kernel, process: Process, *, call: bool = False, progress: Progress = silent) -> Why:
    """What the last answer stood on, or with `call` the last call.

    Raises:
        ProcessError: there was no such thing in the last turn.
    """
    written = [burst for burst in bursts(kernel, process) if burst.tokens]
    chosen = written[:-1] if call else written
    if not chosen:
        raise ProcessError(
            f"process {process.pid} has {'made no call' if call else 'said nothing'} in its last turn",
            do="ask it something first",
        )
    burst = chosen[-1]
    layout, said = burst.layout, burst.tokens
    regions = layout.map()
    progress("looking again", 0, len(regions) + 1)
    whole = _logprob(kernel, layout.tokens, layout.labels, said, layout.adapter)
    found = []
    for number, region in enumerate(regions, 1):
        progress("looking again", number, len(regions) + 1)
        tokens, labels, text = _without(kernel, layout, region)
        lost = _logprob(kernel, tokens, labels, said, layout.adapter) if text.strip() else whole
        found.append(Influence(region, text[:HEAD], lost))
    progress("looking again", len(regions) + 1, len(regions) + 1)
    return Why(burst.turn, _words(kernel, said), len(said), whole, tuple(found))


def _logprob(
    kernel: Kernel,
    tokens: tuple[int, ...],
    labels: tuple[tuple[int, Label], ...],
    said: tuple[int, ...],
    adapter: str,
) -> float:
    """Of `said` behind `tokens`, under the model's own distribution, with the adapter of that version."""
    request = Request(
        tokens=tokens, max_tokens=len(said), grammar=Told(said), hint=said, labels=labels, priority=Priority.BATCH,
        adapter=kernel.adapters.get(adapter),
    )  # fmt: skip
    return sum(
        item.logprob
        for item in kernel.engine.submit(request)
        if isinstance(item, Emitted) and item.logprob is not None
    )


def _without(
    kernel: Kernel, layout: Layout, region: Region
) -> tuple[tuple[int, ...], tuple[tuple[int, Label], ...], str]:
    """The window without the words of a region, its labels, and these words."""
    end = region.start + region.tokens
    begin = region.start + _frame(kernel, layout.tokens[region.start : end])
    gone = end - begin
    runs = [(at if at < end else at - gone, label) for at, label in layout.labels]
    labels = tuple((at, label) for n, (at, label) in enumerate(runs) if at > (runs[n - 1][0] if n else 0))
    text = _words(kernel, layout.tokens[begin:end])
    return (*layout.tokens[:begin], *layout.tokens[end:]), labels, text


def _frame(kernel: Kernel, tokens: Sequence[int]) -> int:
    """How many tokens at the beginning of a stretch are the template's: up to its last control token, and the line that
    says whose words follow."""
    last = max((i for i, token in enumerate(tokens) if token in kernel.tokenizer.control_ids), default=-1)
    if last < 0:
        return 0
    seen = 0
    for at in range(last + 1, len(tokens)):
        piece = kernel.tokenizer.token_bytes(tokens[at])
        if b"\n" in piece:
            return at + 1
        if (seen := seen + len(piece)) > ROLE:
            break
    return last + 1


def _words(kernel: Kernel, tokens: Sequence[int]) -> str:
    return b"".join(map(kernel.tokenizer.token_bytes, tokens)).decode("utf-8", "replace")
