"""How a turn calls: whether it does, what it may write, and what its calls mean.

What: chooses between a call and words before each answer's first word, gives the grammar that keeps to the choice, and
    reads the calls with their arguments settled; all of it only for models that somebody has measured (see choice.py).
Invariant: a function of the window and what was said, so a turn that is resumed chooses and calls as it did. A turn
    comes to its end: behind results only syscalls are offered that it has not called, but that a call may be made anew
    behind one that failed: `MAX_FAILED` times, never word for word, without what its error names as wrong, and of the
    syscall that the error names in its place, where it does. Without measurements the model is as free as its grants.
Interface: `Calling(process, question, layout, table, free=…)`: `.choose(layout)`, `.words`, `.result`,
    `.lark(must, answer)`, `.calls(tokens, layout)`, `.told(tokens, layout, results)`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from llmos.kernel.asked import Asked, asked_in
from llmos.kernel.choice import CANDIDATES, FENCE, choice_of
from llmos.kernel.engine.sequence import Request
from llmos.kernel.mending import Fault, faults, mendable
from llmos.kernel.syscalls import Round
from llmos.kernel.telling import Result, told, written

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall
    from llmos.kernel.engine.grammar import Rules
    from llmos.kernel.layout import Layout
    from llmos.kernel.process import Process
    from llmos.kernel.prompt import Part
    from llmos.kernel.syscalls import Invocation, SyscallTable

MAX_FAILED = 2  # answers of a turn whose calls may fail and be made anew
# Effects of what may be called in place of a call that failed: whether something was sent or paid, nobody knows then.
_MILD = frozenset({"none", "read", "execute", "fetch", "write"})


class Calling:
    """The calls of one turn."""

    def __init__(
        self,
        process: Process,
        question: str,
        layout: Layout,
        table: SyscallTable,
        *,
        free: bool,
        first: bool = False,
    ) -> None:
        """
        Args:
            question: the user's words; empty where a whole conversation was given, whose last words of the user count.
            layout: as the turn begins; what stands in the window behind it is results.
            free: whether the asker leaves it open to call or not.
            first: whether it must begin with a call; what follows the result is open.
        """
        self._process, self._table, self._free, self._first = process, table, free, first
        self._given = len(layout.said)
        self._choice = choice_of(process.kernel.runner.identity)
        self._asked: Asked | None = None
        if self._choice is not None:
            self._asked = self._read(question, layout)
        self._offered: SyscallTable | None = table  # what may be called next; None: nothing
        self._must = False
        self._faults: list[Fault] = []  # of calls that failed, the last one last
        self.result: Result | None = None  # what the words that come next have to tell

    @property
    def open(self) -> int | None:
        """The token that opens a call, where one does."""
        return self._table.open

    @property
    def question(self) -> str:
        """What was asked; "" where nobody reads it."""
        return "" if self._asked is None else self._asked.question

    @property
    def words(self) -> bool:
        """Whether what is written next holds no call."""
        return self._offered is None

    async def choose(self, layout: Layout) -> int | None:
        """Choose for what is written next, at the beginning by one step of the engine. Behind results a small model
        that is left free makes the same call again, or writes one where none can be read; so it calls on only what
        the question speaks of and nobody has called, and then answers in words. An error is no answer: behind one it
        calls again. A window without the syscall table was laid out for words.

        Returns:
            How much of the window had been computed before, in tokens; None where that was not looked at.
        """
        self._offered, self._must, self.result = self._table, False, None
        if self._choice is None or self._asked is None or not self._free:
            return None
        syscalls, question = self._table.syscalls, self._asked.question
        if behind := layout.tokens[self._asked.end :]:
            rounds = self._table.rounds(behind)
            left = self._left(rounds)
            self._faults = [
                fault
                for call, error in self._errors(rounds)
                for fault in faults(syscalls[call.syscall], call.arguments, error)
            ]
            self._offered, self._must = self._table.only(left) if left else None, bool(left)
            self.result = None if left else self._came_to(rounds)
            return None
        if self._first:
            self._offered = self._table.only(self._choice.named(question, syscalls.values()))
            return None
        if layout.words:
            self._offered = None
            return None
        first, cached = await self._likeliest(layout)
        calls = partial(self._choice.calls, question, syscalls.values())
        found = calls(first)
        if found and not calls([word for word in first if word[0] != FENCE]):  # does it hold code?
            found = calls(first, (await self._likeliest(layout, FENCE))[0])
        self._must, self._offered = bool(found), self._table.only(found) if found else None
        return cached

    async def _likeliest(self, layout: Layout, behind: str = "") -> tuple[list[tuple[str, float]], int]:
        """The likeliest words of an answer that begins with `behind`; how many tokens had been computed before."""
        process, kernel = self._process, self._process.kernel
        tokens, labels = kernel.tokenizer.encode(behind), list(layout.labels)
        if tokens:
            labels.append((len(layout.tokens) + len(tokens), layout.taint))
        await process.going.wait()
        stream = kernel.engine.submit(
            Request(
                tokens=(*layout.tokens, *tokens), max_tokens=1, top=CANDIDATES, priority=process.priority,
                labels=tuple(labels), pieces=layout.pieces, adapter=await kernel.adapters.aget(layout.adapter),
            )
        )  # fmt: skip
        (item,) = await asyncio.to_thread(list, stream)
        assert stream.finished is not None
        words = [(kernel.tokenizer.token_bytes(i).decode("utf-8", "replace"), p) for i, p in item.top]
        return words, stream.finished.cached_tokens

    def lark(self, must: bool, answer: Mapping[str, Any] | None) -> Rules:
        """The grammar of what is written next (`SyscallTable.lark`)."""
        if self._offered is None:
            verbatim = "" if self.result is None else self.result.verbatim
            return self._table.lark(no_call=True, answer=answer, verbatim=verbatim)
        return self._offered.lark(
            must_call=must or self._must, answer=answer, asked=self.question, faults=self._faults
        )

    def calls(self, tokens: Sequence[int], layout: Layout) -> list[Invocation]:
        """The calls among these words, with arguments as the user meant them."""
        calls = self._table.read(tokens)[1]
        if self._asked is None:
            return calls
        results = [text for text, _ in layout.said[self._given :]]
        settled = self._table.settled(calls, self._asked.question, "\n".join([self._asked.heard, *results]))
        failed = self._errors(self._table.rounds(layout.tokens[self._asked.end :])) if self._free else []
        return [
            replace(call, failed=next((error for made, error in failed if made == written), ""))
            for written, call in zip(calls, settled, strict=True)
        ]

    def told(self, tokens: Sequence[int], layout: Layout, results: Sequence[Part]) -> tuple[Part, ...]:
        """What the model is told behind `results`, of the calls among these tokens, written behind `layout`; a small
        one that has just called goes on calling, or has nothing to say, or says the error."""
        if self._choice is None or self._asked is None or not self._free:
            return ()
        *before, last = self._table.rounds((*layout.tokens[self._asked.end :], *tokens))
        rounds = [*before, replace(last, results="\n".join(part.text for part in results))]
        if self._left(rounds):
            return told(self.question, results, "call" if self._failed(rounds[-1]) else "")
        return told(self.question, results, "words")

    def _left(self, rounds: Sequence[Round]) -> list[Syscall]:
        """What is still to be called behind these calls."""
        if self._choice is None or self._asked is None or not rounds:
            return []
        syscalls = self._table.syscalls
        failed = [bool(self._failed(one)) for one in rounds]
        if sum(failed) > MAX_FAILED:
            failed = [False] * len(rounds)  # enough: it was called, and came to nothing
        elif failed[-1]:
            last = {call.syscall for call in rounds[-1].calls}  # if it is not mild, it did nothing
            errors = " ".join(self._failed(rounds[-1]))
            others = [s for s in syscalls.values() if s.effect in _MILD and s.name not in last]
            named = [s for s in others if re.search(rf"\b{re.escape(s.name)}\b", errors)]
            return named or [s for s in syscalls.values() if s in others or s.name in last]
        made = [
            (syscalls[call.syscall], json.dumps(call.arguments, ensure_ascii=False))
            for one, anew in zip(rounds, failed, strict=True)
            for call in one.calls
            if not anew
        ]
        return self._choice.left(self._asked.question, syscalls.values(), made) if made else []

    def _failed(self, one: Round) -> list[str]:
        """The errors of all that an answer called for, where another call may mend them and these did no harm."""
        harmless = all(self._table.syscalls[call.syscall].effect in _MILD for call in one.calls)
        errors = mendable(one.results, undone=not harmless)
        return errors if len(errors) >= len(one.calls) > 0 else []

    def _errors(self, rounds: Sequence[Round]) -> list[tuple[Invocation, str]]:
        """The calls that failed since one did not (after which all may be otherwise), each with its error."""
        last = list(takewhile(lambda found: found[1], ((one, self._failed(one)) for one in reversed(rounds))))
        return [pair for one, errors in reversed(last) for pair in zip(one.calls, errors, strict=False)]

    def _came_to(self, rounds: Sequence[Round]) -> Result | None:
        """What the calls of the turn came to; None where there are none, or it would be read as another."""
        frame = self._process.kernel.prompt.frame
        found = [(one.calls[-1].syscall, written(one.results, frame)) for one in rounds if one.calls]
        result = Result.of(found) if found else None
        if result is None or self._table.reads_as_call(f"{result.text}\n{result.verbatim}"):
            return None
        return result

    def _read(self, question: str, layout: Layout) -> Asked | None:
        """The question, with what the process was told in this conversation, what it answered, and what it found in
        the documents within its reach."""
        process = self._process
        if not question:
            return asked_in(layout, process.kernel.prompt, process.kernel.tokenizer)
        heard = [text for e in process.conversation for text in (e.question, e.answer)]
        heard += [p.text for p in layout.passages]
        return Asked(question, "\n".join([*heard, question]), len(layout.tokens))
