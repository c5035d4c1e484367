"""Answers of a model that is being taught, by the engine that serves, many at a time.

What: for each of many questions some answers, drawn with an adapter as it stands, each token with its log-probability
    under what drew it: the policy that a gradient is taken about.
Invariant: a question's KV is computed by its first answer and shared by the others. What is drawn is a function of
    weights, adapter, question and randomness, not of who else is drawn. Full pages are shared, as always.
Interface: `Sampler(weights, window=...)`: `draw(prompts, count, ...)` -> `Drawn`s; `close`; a context manager.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from llmos.abi.errors import LLMOSError
from llmos.abi.limits import MAX_PROCESSES, PAGE_TOKENS
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sampling import Greedy, Randomness, Sample
from llmos.kernel.engine.sequence import Emitted, Finished, Item, Request, Stream
from llmos.kernel.model.load import load_model
from llmos.kernel.scheduler import Priority

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.engine import Counters
    from llmos.kernel.engine.sampling import Strategy
    from llmos.kernel.model.parameters import Mode

POOL = 512 << 20  # bytes, at most


@dataclass(frozen=True, slots=True)
class Drawn:
    """An answer: its tokens, the one that ends it included; log-probabilities under the whole distribution, untempered;
    whether it ended by itself; tokens of the question whose KV another had computed."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool
    cached: int


class Sampler:
    """An engine of its own over a model. Not thread-safe."""

    def __init__(self, weights: Weights, *, window: int, mode: Mode = "native") -> None:
        """`window`: tokens of the longest question and answer, in whole pages. Raises WeightsError."""
        model = load_model(weights, mode=mode, window=window)
        window = window // PAGE_TOKENS * PAGE_TOKENS
        least, most = window // PAGE_TOKENS + 2, (MAX_PROCESSES + 8) * window // PAGE_TOKENS
        pages = max(least, min(most, POOL // ModelRunner.page_bytes(model)))
        self._engine = Engine(ModelRunner(model, pages=pages, window=window))
        self._ends = weights.tokenizer().eos_ids

    @property
    def counters(self) -> Counters:
        """What the engine has done so far."""
        return self._engine.counters

    def __enter__(self) -> Sampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine."""
        self._engine.close()

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        count: int,
        *,
        tokens: int,
        randomness: Randomness,
        adapter: Adapter | None = None,
        greedy: bool = False,
    ) -> list[list[Drawn]]:
        """`count` answers to each of `prompts`, of `tokens` tokens at most.

        Raises:
            EngineError: a question and its answer do not fit the window.
            AdapterMismatch: the adapter was made for other weights.
        """
        strategy: Strategy = Greedy() if greedy else Sample()
        heard: queue.SimpleQueue[tuple[_Answer, _News]] = queue.SimpleQueue()

        def answer(q: int, n: int) -> _Answer:
            request = Request(
                tokens=tuple(prompts[q]), max_tokens=tokens, strategy=strategy, draft=0, adapter=adapter,
                randomness=randomness.fork(q).fork(n), priority=Priority.BATCH,
            )  # fmt: skip
            return _Answer(q, request, self._ends, heard)

        answers = [[answer(q, n) for n in range(count)] for q in range(len(prompts))]
        ready = deque(group[0] for group in answers)  # the others follow when a question is computed
        running, left = 0, len(prompts) * count
        try:
            while left:
                while ready and running < MAX_PROCESSES:
                    one = ready.popleft()
                    self._engine.start(one.request, one)
                    running += 1
                one, news = heard.get()
                if isinstance(news, LLMOSError):
                    raise news
                if news == "ended":
                    running, left = running - 1, left - 1
                elif one is answers[one.question][0]:  # it began: its question is computed
                    ready.extend(answers[one.question][1:])
        except BaseException:
            for group in answers:
                for one in group:
                    one.cancel()
            raise
        return [[one.drawn() for one in group] for group in answers]


_News = Literal["began", "ended"] | LLMOSError


class _Answer(Stream):
    """Collects one answer. It tells of its first token and of its end; the token that ends it ends it in the engine."""

    def __init__(
        self,
        question: int,
        request: Request,
        ends: frozenset[int],
        heard: queue.SimpleQueue[tuple[_Answer, _News]],
    ) -> None:
        super().__init__()
        self.question, self.request = question, request
        self._ends, self._heard = ends, heard
        self._tokens, self._logprobs = list[int](), list[float]()

    @property
    def full(self) -> bool:
        return False

    def put(self, item: Item) -> None:
        if isinstance(item, Emitted):
            if self._ended():
                return
            assert item.logprob is not None  # there is no grammar
            self._tokens.append(item.id)
            self._logprobs.append(item.logprob)
            if self._ended():
                self.cancel()
            if len(self._tokens) == 1:
                self._heard.put((self, "began"))
        elif isinstance(item, Finished):
            self.finished = item
            self._heard.put((self, "ended"))
        else:
            self._heard.put((self, item))

    def _ended(self) -> bool:
        return bool(self._tokens) and self._tokens[-1] in self._ends

    def drawn(self) -> Drawn:
        """What came of it."""
        assert self.finished is not None
        return Drawn(tuple(self._tokens), tuple(self._logprobs), self._ended(), self.finished.cached_tokens)
