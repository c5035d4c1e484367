"""Prefetch: what a question will likely need is brought while nobody waits for it.

What: for a question that is still being typed, or that waits behind another turn, the window is laid out as far as that
    can be known, and a request behind all others has its pages brought: from disk and host memory, or computed.
Invariant: a hint costs others nothing that they wait for, changes no window and leaves no record; what comes of it are
    pages that are found by content, so a wrong hint is only of no use. The question itself, once it is asked, ends it.
Interface: `Ahead(process)`: `expect(question)`, `leave`. Any thread.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from llmos.abi.errors import LLMOSError
from llmos.kernel.engine.sequence import Finished, Item, Request, Stream
from llmos.kernel.execution import Asking
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from llmos.kernel.layout import Layout
    from llmos.kernel.process import Process


class Unread(Stream):
    """Nobody reads it."""

    @property
    def full(self) -> bool:
        return False

    def put(self, item: Item) -> None:
        """The end is all that counts."""
        if isinstance(item, Finished):
            self.finished = item


class Ahead:
    """Of one process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._hint = 0  # counts: a later one, or a question, makes those before worthless
        self._stream: Unread | None = None

    def expect(self, question: str, *, queued: bool = False) -> None:
        """Have brought what `question` will need, as far as it is known; "" for what any question will.

        Args:
            queued: another turn comes before it, so of its window only the pieces of a blend are known.
        """
        process = self._process
        if process.exit is not None or process.spawned.settings.get("model"):
            return
        with self._lock:
            self._hint += 1
            hint = self._hint
        try:
            layout = process.view.foreseen(question, Asking())
            upto = max(0 if queued else sure(layout), *(end + 1 for end in layout.pieces), 0)
            adapter = process.kernel.adapters.get(layout.adapter)
            request = Request(
                tokens=layout.tokens[:upto], max_tokens=1, draft=0, priority=Priority.BATCH, adapter=adapter,
                labels=layout.labels, pieces=layout.pieces,
            )  # fmt: skip
            with self._lock:
                if upto and hint == self._hint:
                    self._cancel()
                    self._stream = Unread()
                    process.kernel.engine.start(request, self._stream)
        except LLMOSError:  # it does not fit, say, or a volume is gone: whoever asks will be told
            return

    def leave(self) -> None:
        """The question is there, or none will be: what is under way ends where it is."""
        with self._lock:
            self._hint += 1
            self._cancel()

    def _cancel(self) -> None:
        if self._stream is not None and self._stream.finished is None:
            self._stream.cancel()
        self._stream = None


def sure(layout: Layout) -> int:
    """Tokens of a window that stand before its question."""
    ends = (
        r.start + r.tokens for r in layout.map() if r.source or r.kind in ("system", "syscall", "knowledge")
    )
    return max(ends, default=0)
