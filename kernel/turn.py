"""A turn: one question to an agent, and all that follows until its answer.

What: an iterator of events while the model writes, and the answer, citations, usage and timings afterwards.
Invariant: the last event is one `Done`. Reading `answer` and the rest runs the turn to its end first.
Interface: iterate, `answer`, `citations`, `usage`, `timings`, `reason`, `cancel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from llmos.abi.events import Citation, Done, Event, StopReason, Timings, Token, Usage
from llmos.drivers.weights import Tokenizer
from llmos.kernel.engine.sequence import BlockingStream
from llmos.kernel.stops import StopText

Extract = Callable[[str], tuple[str, tuple[Citation, ...], int]]


class Turn:
    """Made by `Process.ask`. Belongs to one thread, except `cancel`."""

    def __init__(
        self,
        stream: BlockingStream,
        tokenizer: Tokenizer,
        *,
        prompt_tokens: int,
        before: Sequence[Event],
        stop: tuple[str, ...],
        extract: Extract,
        started: float,
        boot_s: float,
        finish: Callable[[str], None],
    ) -> None:
        self._stream, self._tokenizer = stream, tokenizer
        self._prompt_tokens, self._before = prompt_tokens, before
        self._stop, self._extract, self._finish = stop, extract, finish
        self._started, self._boot_s = started, boot_s
        self._events = self._run()
        self._done: Done | None = None

    def __iter__(self) -> Iterator[Event]:
        yield from self._events

    def cancel(self) -> None:
        """Stop; what was written so far becomes the answer. Any thread, any time."""
        self._stream.cancel()

    @property
    def result(self) -> Done:
        """The last event; waits for it."""
        for _ in self._events:
            pass
        if self._done is None:
            raise RuntimeError("the turn was abandoned while it ran")
        return self._done

    @property
    def answer(self) -> str:
        return self.result.answer

    @property
    def reason(self) -> StopReason:
        return self.result.reason

    @property
    def citations(self) -> tuple[Citation, ...]:
        return self.result.citations

    @property
    def usage(self) -> Usage:
        return self.result.usage

    @property
    def timings(self) -> Timings:
        return self.result.timings

    def _run(self) -> Iterator[Event]:
        answered = False
        try:
            yield from self._before
            text, count, first, last = "", 0, 0.0, 0.0
            decoder, stop = self._tokenizer.stream(), StopText(self._stop)
            for item in self._stream:
                last = perf_counter()
                first = first or last
                count += 1
                piece = stop.push(decoder.push(item.id))
                text += piece
                yield Token(piece, item.id, item.logprob)
                if stop.met:
                    self._stream.cancel()
                    break
            if rest := stop.push(decoder.flush()) + stop.flush():
                text += rest
                yield Token(rest, -1)
            for _ in self._stream:  # tokens that were under way when a stop text was met
                pass
            finished = self._stream.finished
            assert finished is not None
            answer, citations, dropped = self._extract(text)
            self._finish(answer)
            answered = True
            fill = max((first or perf_counter()) - self._started, 1e-9)
            self._done = Done(
                answer,
                "stop" if stop.met else finished.reason,
                citations,
                Usage(
                    prompt_tokens=self._prompt_tokens,
                    cached_tokens=finished.cached_tokens,
                    completion_tokens=count,
                    pages=finished.pages,
                    citations_dropped=dropped,
                ),
                Timings(
                    boot_s=self._boot_s,
                    first_token_s=fill,
                    total_s=perf_counter() - self._started,
                    prefill_tokens_per_s=(self._prompt_tokens - finished.cached_tokens) / fill,
                    decode_tokens_per_s=(count - 1) / (last - first) if count > 1 and last > first else 0.0,
                ),
            )
            yield self._done
        finally:
            if not answered:
                self._stream.cancel()
                self._finish("")
