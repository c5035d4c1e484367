"""How a turn calls: whether it does, what it may write, and what its calls mean.

What: chooses between a call and words before a turn's first word, gives the grammar that keeps to the choice, and reads
    the calls with their arguments settled; all of it only for models that somebody has measured (see choice.py).
Invariant: a function of the window and what was said, so a turn that is resumed chooses and calls as it did. Without
    measurements the model is as free as its grants.
Interface: `Calling(process, question, layout, table, free=…)`: `.choose(layout)`, `.lark(must, answer)`,
    `.calls(tokens, layout)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmos.kernel.choice import CANDIDATES, choice_of
from llmos.kernel.engine.sequence import Request

if TYPE_CHECKING:
    from llmos.kernel.layout import Layout
    from llmos.kernel.process import Process
    from llmos.kernel.syscalls import Invocation, SyscallTable


class Calling:
    """The calls of one turn."""

    def __init__(
        self, process: Process, question: str, layout: Layout, table: SyscallTable, *, free: bool
    ) -> None:
        """
        Args:
            question: the user's words; without them (a whole conversation was given) nothing is judged by them.
            layout: as the turn begins; what stands in the window behind it is results.
            free: whether the asker leaves it open to call or not.
        """
        self._process, self._question, self._table, self._free = process, question, table, free
        self._given = len(layout.said)
        self._choice = choice_of(process.kernel.runner.identity) if question else None
        self._chosen: bool | None = None  # None: either

    async def choose(self, layout: Layout) -> int | None:
        """Choose for what is written next, one step of the engine. A turn that has its results answers in words: left
        free, a small model makes the same call again, or writes one where none can be read.

        Returns:
            How much of the window had been computed before, in tokens; None where there was nothing to choose.
        """
        self._chosen = None
        if self._choice is None or not self._free:
            return None
        if len(layout.said) > self._given:
            self._chosen = False
            return None
        process, kernel = self._process, self._process.kernel
        await process.going.wait()
        stream = kernel.engine.submit(
            Request(
                tokens=layout.tokens, max_tokens=1, top=CANDIDATES, priority=process.priority, labels=layout.labels
            )
        )  # fmt: skip
        for item in await asyncio.to_thread(list, stream):
            first = [(kernel.tokenizer.token_bytes(i).decode("utf-8", "replace"), p) for i, p in item.top]
            self._chosen = self._choice.calls(self._question, self._table.syscalls.values(), first)
        assert stream.finished is not None
        return stream.finished.cached_tokens

    def lark(self, must: bool, answer: Mapping[str, Any] | None) -> str:
        """The grammar of what is written next (`SyscallTable.lark`)."""
        return self._table.lark(
            must_call=must or self._chosen is True, no_call=self._chosen is False, answer=answer
        )

    def calls(self, tokens: Sequence[int], layout: Layout) -> list[Invocation]:
        """The calls among these words, with arguments as the user meant them."""
        calls = self._table.read(tokens)[1]
        if self._choice is None:
            return calls
        heard = [text for e in self._process.conversation for text in (e.question, e.answer)]
        heard += [p.text for p in layout.passages] + [text for text, _ in layout.said[self._given :]]
        return self._table.settled(calls, self._question, "\n".join([*heard, self._question]))
