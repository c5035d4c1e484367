"""A process: an agent with a window of its own.

What: keeps the conversation, lays out the window for each question within its budget, and starts the turn.
Invariant: one turn at a time. The window never exceeds its budget: knowledge that does not fit stays out
    (whole passages, the least relevant first), then the oldest exchanges leave, each told as an event; a
    question that alone does not fit is an error.
Interface: `ask(question, …) -> Turn`, `mount`, `forget`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused, WindowOverflow
from llmos.abi.events import Citation, Event, PageIn, PageOut
from llmos.abi.labels import Label
from llmos.abi.progress import Progress, silent
from llmos.kernel import grounding
from llmos.kernel.engine.sampling import Randomness, strategy
from llmos.kernel.engine.sequence import Request
from llmos.kernel.prompt import Message, Part
from llmos.kernel.turn import Turn
from llmos.memory.window import Segment, Window

if TYPE_CHECKING:
    from llmos.abi.mount import Mount
    from llmos.kernel.boot import Kernel
    from llmos.memory.volume import Passage, Volume

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A question that was answered; `label` is of all that the answer was written from."""

    question: str
    answer: str
    label: Label

    @property
    def messages(self) -> tuple[Message, Message]:
        return Message.of("user", self.question), Message.of("assistant", self.answer, self.label)


@dataclass(frozen=True, slots=True)
class _Layout:
    """A window that fits, the passages in it, and what was left out to make it so."""

    window: Window
    passages: tuple[Passage, ...] = ()
    events: tuple[Event, ...] = ()


class Process:
    """Made by `Kernel.spawn`."""

    def __init__(self, kernel: Kernel, pid: int) -> None:
        self.pid = pid
        self._kernel = kernel
        self._volumes: list[Volume] = []
        self._history: list[_Exchange] = []
        self._busy = threading.Lock()

    def mount(self, mount: Mount, progress: Progress = silent) -> None:
        """Put a body of documents within this process's reach."""
        self._volumes.append(self._kernel.volume(mount, progress))

    def forget(self) -> None:
        """Empty the conversation; mounts stay."""
        self._history.clear()

    def ask(
        self,
        question: str,
        *,
        max_tokens: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        raw: bool = False,
    ) -> Turn:
        """Start a turn.

        Args:
            question: what to ask; with `raw`, the text to continue as a base model would.
            max_tokens: of the answer; None for as many as the window leaves, at most 512.
            seed: of the random bits, where temperature is above 0.
            temperature: 0 (also None) is greedy.
            stop: texts that end the answer where they appear, themselves not shown.

        Raises:
            TurnRefused: a turn is running.
            WindowOverflow: the question does not fit the window.
        """
        started = perf_counter()
        if not self._busy.acquire(blocking=False):
            raise TurnRefused(
                f"process {self.pid} is still answering", do="read that turn to its end, or cancel it"
            )
        try:
            kernel = self._kernel
            grounded = bool(self._volumes) and not raw
            layout = self._raw(question, max_tokens) if raw else self._layout(question, max_tokens)
            tokens = tuple(layout.window.tokens)
            grammar = None
            if grounded:
                grammar = grounding.answer_grammar(question, layout.passages, kernel.tokenizer)
            stream = kernel.engine.submit(
                Request(
                    tokens=tokens,
                    max_tokens=min(max_tokens or DEFAULT_MAX_TOKENS, kernel.window - len(tokens)),
                    stop=kernel.tokenizer.eos_ids,
                    strategy=strategy(temperature or 0.0, top_k, top_p, min_p, repetition_penalty),
                    randomness=Randomness(seed or 0),
                    grammar=grammar,
                )
            )
        except BaseException:
            self._busy.release()
            raise

        def extract(text: str) -> tuple[str, tuple[Citation, ...], int]:
            if not grounded:
                return (text if raw else text.strip()), (), 0
            found = grounding.extract(text, layout.passages, question)
            return found.answer, found.citations, found.dropped

        def finish(answer: str) -> None:
            if answer and not raw:
                # Later questions come with other passages: what was [1] now is not [1] then.
                kept = grounding.uncited(answer) if grounded else answer
                self._history.append(_Exchange(question, kept, layout.window.taint))
            self._busy.release()

        return Turn(
            stream,
            kernel.tokenizer,
            prompt_tokens=len(tokens),
            before=layout.events,
            stop=tuple(stop),
            extract=extract,
            started=started,
            boot_s=kernel.boot_s,
            finish=finish,
        )

    def _window(self, max_tokens: int | None) -> Window:
        """An empty window that leaves room for the answer: what was asked for, or at least a short one."""
        whole = self._kernel.window
        return Window(max(whole - (max_tokens or min(DEFAULT_MAX_TOKENS, whole // 2)), 1))

    def _raw(self, text: str, max_tokens: int | None) -> _Layout:
        window = self._window(max_tokens)
        window.add(Segment("user", tuple(self._kernel.raw_tokens(text))))
        return _Layout(window)

    def _layout(self, question: str, max_tokens: int | None) -> _Layout:
        """Lay the window out; leave out what does not fit, the least valuable first."""
        passages = self._search(question)
        history = list(self._history)
        left: list[Event] = []
        while True:
            window = self._window(max_tokens)
            try:
                window.add(*self._kernel.prompt.segments(self._messages(question, passages, history)))
                break
            except WindowOverflow:
                if len(passages) > 1 or (passages and not history):
                    left.append(PageOut(passages.pop().source, 0, "the passage does not fit the window"))
                elif history:
                    gone = f"exchange: {history.pop(0).question[:60]!r}"
                    left.append(PageOut(gone, 0, "the window is full, and it is the oldest"))
                else:
                    raise
        knowledge = [s for s in window if s.kind == "knowledge"]
        read = [
            PageIn(p.source, p.position, len(s), s.label) for p, s in zip(passages, knowledge, strict=False)
        ]
        return _Layout(window, tuple(passages), (*left, *read))

    def _messages(
        self, question: str, passages: Sequence[Passage], history: Sequence[_Exchange]
    ) -> list[Message]:
        earlier = [m for exchange in history for m in exchange.messages]
        if not self._volumes:
            return [*earlier, Message.of("user", question)]
        knowledge = [
            Part("knowledge", f"{text}\n\n", p.label, f"{p.source}, {p.position}")
            for p, text in zip(passages, grounding.knowledge_text(passages, question), strict=True)
        ]
        asked = Part("user", grounding.question_text(question))
        return [Message.of("system", grounding.INSTRUCTIONS), *earlier, Message("user", (*knowledge, asked))]

    def _search(self, question: str) -> list[Passage]:
        found = [p for v in self._volumes for p in v.search(question, k=grounding.PASSAGES)]
        return sorted(found, key=lambda p: -p.score)[: grounding.PASSAGES]
