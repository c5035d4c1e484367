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
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused, WindowOverflow
from llmos.abi.events import Citation, Event, PageIn, PageOut
from llmos.abi.progress import Progress, silent
from llmos.kernel import grounding
from llmos.kernel.engine.sampling import Randomness, strategy
from llmos.kernel.engine.sequence import Request
from llmos.kernel.prompt import Message
from llmos.kernel.turn import Turn

if TYPE_CHECKING:
    from llmos.abi.mount import Mount
    from llmos.kernel.boot import Kernel
    from llmos.memory.volume import Passage, Volume

DEFAULT_MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A question that was answered."""

    question: str
    answer: str

    @property
    def messages(self) -> tuple[Message, Message]:
        return Message("user", self.question), Message("assistant", self.answer)


@dataclass(frozen=True, slots=True)
class _Layout:
    """A window that fits: its tokens, and what was left out to make it so."""

    tokens: tuple[int, ...]
    passages: tuple[Passage, ...]
    events: list[Event] = field(default_factory=list)


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
            room = kernel.window - len(layout.tokens)
            grammar = None
            if grounded:
                grammar = grounding.answer_grammar(question, layout.passages, kernel.tokenizer)
            stream = kernel.engine.submit(
                Request(
                    tokens=layout.tokens,
                    max_tokens=min(max_tokens or DEFAULT_MAX_TOKENS, room),
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
                self._history.append(_Exchange(question, grounding.uncited(answer) if grounded else answer))
            self._busy.release()

        return Turn(
            stream,
            kernel.tokenizer,
            prompt_tokens=len(layout.tokens),
            before=layout.events,
            stop=tuple(stop),
            extract=extract,
            started=started,
            boot_s=kernel.boot_s,
            finish=finish,
        )

    def _raw(self, text: str, max_tokens: int | None) -> _Layout:
        t = self._kernel.tokenizer
        ids = t.encode(text)
        if t.bos_id is not None and (t.add_bos or not ids):
            ids.insert(0, t.bos_id)
        self._check_fits(len(ids), max_tokens)
        return _Layout(tuple(ids), ())

    def _layout(self, question: str, max_tokens: int | None) -> _Layout:
        """Lay the window out; leave out what does not fit, the least valuable first."""
        passages = self._search(question)
        history = list(self._history)
        events: list[Event] = []
        while True:
            tokens = self._kernel.prompt.tokens(self._messages(question, passages, history))
            if len(tokens) + self._reserve(max_tokens) <= self._kernel.window:
                break
            if len(passages) > 1 or (passages and not history):
                left_out, passages = passages[-1], passages[:-1]
                events.append(PageOut(left_out.source, 0, "the passage does not fit the window"))
            elif history:
                oldest = history.pop(0)
                events.append(PageOut(f"exchange: {oldest.question[:60]!r}", 0, "oldest exchange, window full"))
            else:
                self._check_fits(len(tokens), max_tokens)
                break
        encode = self._kernel.tokenizer.encode
        texts = grounding.knowledge_text(passages, question)
        events += [
            PageIn(p.source, p.position, len(encode(t)), p.label)
            for p, t in zip(passages, texts, strict=True)
        ]
        return _Layout(tuple(tokens), tuple(passages), events)

    def _messages(
        self, question: str, passages: Sequence[Passage], history: Sequence[_Exchange]
    ) -> list[Message]:
        earlier = [m for exchange in history for m in exchange.messages]
        if not self._volumes:
            return [*earlier, Message("user", question)]
        asked = "\n\n".join([*grounding.knowledge_text(passages, question), grounding.question_text(question)])
        return [Message("system", grounding.INSTRUCTIONS), *earlier, Message("user", asked)]

    def _search(self, question: str) -> list[Passage]:
        found = [p for v in self._volumes for p in v.search(question, k=grounding.PASSAGES)]
        return sorted(found, key=lambda p: -p.score)[: grounding.PASSAGES]

    def _reserve(self, max_tokens: int | None) -> int:
        """Tokens kept free for the answer: what was asked for, or at least a short one."""
        return min(max_tokens or DEFAULT_MAX_TOKENS, self._kernel.window // 2)

    def _check_fits(self, tokens: int, max_tokens: int | None) -> None:
        room, reserve = self._kernel.window, max_tokens or 1
        if tokens + reserve > room:
            raise WindowOverflow(
                f"{tokens} tokens to read and {reserve} to write do not fit the window",
                why=f"it holds {room} tokens",
                do="ask something shorter, mount the long text instead, or raise `kernel.window` in llmos.yaml",
            )


