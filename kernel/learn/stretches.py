"""Many stretches of text, read by the model side by side, each token coded as it comes.

What: a `Stretch` is a run of tokens that is coded by itself: what the model expects next is taken from its own earlier
    tokens alone. A `Reader` holds the model and reads stretches in the rows of one batch.
Invariant: the model is told the same tokens at the same places of the same windows whether a stretch is written (all of
    its tokens are known, many are computed at once) or read (each is known once it is decoded). By the row contract
    the logits are then the same bits, whatever is computed beside them; `Reader.identity` names what they depend on.
    A full window is given up for one that begins with its last `overlap` tokens.
Interface: `Writing(tokens, plan)`, `Reading(coded, count, plan)`; `Reader(model, plan)`: `.read(stretches, coded=…)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import EngineError, ZipError
from llmos.abi.limits import PAGE_TOKENS
from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.learn.coding import Decoder, Encoder, frequencies
from llmos.kernel.model.load import Model

Logits = NDArray[np.float32]

STEP = 64  # tokens computed at once, and rows whose logits are wanted: more costs memory and gains little
ROWS = 32  # stretches read at once


@dataclass(frozen=True, slots=True)
class Plan:
    """What both sides must do alike.

    `start`: the token that stands before a stretch. `window`: tokens, the start included, that the model sees at most.
    `overlap`: how many of the last ones begin the next window.
    """

    start: int
    window: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.window - 1:
            raise ZipError(
                f"a window of {self.window} tokens cannot begin with {self.overlap} of the last",
                why="nothing would be left to read",
            )


class Stretch(ABC):
    """A run of `count` tokens and how far it is coded."""

    def __init__(self, plan: Plan, tokens: list[int], count: int) -> None:
        self.plan, self.tokens, self.count = plan, tokens, count
        self.coded = 0
        self._base = 0  # of the tokens, the first in the window
        self._computed = 0  # of the window, the start included

    @property
    def behind(self) -> int:
        """How many tokens the model can be told now, at least one unless all are coded."""
        known = min(len(self.tokens), self.count - 1) - self._base + 1
        return min(known, self.plan.window) - self._computed

    def tell(self, most: int) -> tuple[list[int], int, list[int]]:
        """The next tokens, at most so many; the position of the first; which of them are asked what comes next."""
        first, count = self._computed, min(most, self.behind)
        positions = range(first, first + count)
        told = [self.tokens[self._base + p - 1] if p else self.plan.start for p in positions]
        self._computed += count
        return told, first, [i for i, p in enumerate(positions) if self._base + p >= self.coded]

    def hear(self, logits_V: Logits) -> None:
        """What the model expects behind the first token that was asked and has not been answered."""
        self._code(logits_V)
        self.coded += 1
        if self.coded < self.count and self.coded - self._base == self.plan.window:
            self._base, self._computed = self.coded - self.plan.overlap, 0

    @abstractmethod
    def _code(self, logits_V: Logits) -> None: ...


class Writing(Stretch):
    """A stretch whose tokens are known."""

    def __init__(self, tokens: list[int], plan: Plan) -> None:
        super().__init__(plan, tokens, len(tokens))
        self._encoder = Encoder()

    def _code(self, logits_V: Logits) -> None:
        token, found = self.tokens[self.coded], frequencies(logits_V)
        self._encoder.put(int(found[:token].sum()), int(found[token]), int(found.sum()))

    def finish(self) -> bytes:
        """The coded bytes; once."""
        return self._encoder.finish()


class Reading(Stretch):
    """A stretch that was written elsewhere. Raises ZipError where its bytes are none of ours."""

    def __init__(self, coded: bytes, count: int, plan: Plan) -> None:
        super().__init__(plan, [], count)
        self._decoder = Decoder(coded)

    def _code(self, logits_V: Logits) -> None:
        found = frequencies(logits_V)
        ends = found.cumsum()
        token = int(ends.searchsorted(self._decoder.place(int(ends[-1])), "right"))
        self._decoder.take(int(ends[token] - found[token]), int(found[token]))
        self.tokens.append(token)


class Reader:
    """A model that reads. Not thread-safe."""

    def __init__(self, model: Model, *, window: int, pool: int, rows: int = ROWS) -> None:
        """
        Args:
            window: the longest that any stretch wants.
            pool: bytes that keys and values may take; fewer rows are read at once where they do not suffice.

        Raises:
            EngineError: not even one row fits, or logits are not reproducible on this device.
        """
        if model.backend not in ("cpu", "xla"):
            raise EngineError(
                f"nothing is zipped on a {model.backend}",
                why="reading it back takes logits that are the same bits in batches of any width, and that is "
                "promised on a CPU alone",
                do="set `machine: {device: cpu}` in llmos.yaml",
            )
        if window > model.config.context:
            raise EngineError(f"the model sees {model.config.context} tokens, fewer than {window}")
        self.window = window
        self._pages = -(-window // PAGE_TOKENS)
        self.rows = min(rows, pool // (ModelRunner.page_bytes(model) * self._pages))
        if not self.rows:
            raise EngineError(
                f"a window of {window} tokens does not fit the pool", do="raise `kernel.pool` in llmos.yaml"
            )
        self._runner = ModelRunner(
            model, pages=1 + self.rows * self._pages, window=self._pages * PAGE_TOKENS, processes=STEP,
            budget=STEP,
        )  # fmt: skip
        self.identity = self._runner.identity
        self._tables_BP = empty_tables(self._runner)
        for row in range(self.rows):
            self._tables_BP[row] = 1 + row * self._pages + np.arange(self._pages)

    def read(self, stretches: Iterable[Stretch], coded: Callable[[int], None] = lambda count: None) -> None:
        """Read all of them to their ends; `coded` is told how many tokens each step has coded.

        Raises:
            ZipError: a stretch that nobody has written.
        """
        waiting = deque(s for s in stretches if s.count)
        active: dict[int, Stretch] = {}
        while waiting or active:
            for row in range(self.rows):
                if row not in active and waiting:
                    active[row] = waiting.popleft()
            coded(self._step(active))
            active = {row: s for row, s in active.items() if s.coded < s.count}

    def _step(self, active: dict[int, Stretch]) -> int:
        """Tell every row a little, those first that wait for a token alone; how many tokens were coded."""
        tokens, positions, slots = list[int](), list[int](), list[int]()
        asked: list[tuple[Stretch, int]] = []
        for row, stretch in sorted(active.items(), key=lambda item: item[1].behind):
            if (room := STEP - len(tokens)) == 0:
                break
            told, first, wanted = stretch.tell(room)
            asked += [(stretch, len(tokens) + i) for i in wanted]
            tokens += told
            positions += range(first, first + len(told))
            slots += [row] * len(told)
        rows = [i for _, i in asked]
        i32 = np.int32
        batch = Batch(
            np.array(tokens, i32), np.array(positions, i32), np.array(slots, i32), self._tables_BP,
            np.array(rows, i32),
        )  # fmt: skip
        logits_BV = np.asarray(self._runner.forward(batch))
        for (stretch, _), logits_V in zip(asked, logits_BV, strict=False):
            stretch.hear(logits_V)
        return len(asked)
