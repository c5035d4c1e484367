"""The windows of `page_in`: the model loaded once, requests over passages, and the ways to put stored ones together.

What: `Bench` (engines whose pools remember nothing), `Window` (tokens of one context and question, in the ways that are
    compared), `Alone` and `Unturned` (what others ship).
Invariant: all ways have the same tokens but for the order of passages, and answer greedily.
Interface: as named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import accumulate

from llmos.abi.config import Config
from llmos.drivers.weights import find, open_weights
from llmos.kernel.boot import prepare_jax
from llmos.kernel.engine.blend import Blender, Piece
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.sequence import Request
from llmos.kernel.model.load import load_model
from llmos.kernel.prompt import ChatPrompt, Message, Part
from llmos.kernel.recompute import SHARE, arrange, borders
from llmos.kernel.scheduler import Priority
from llmos.memory.chunks import KV, chunk_key
from llmos.memory.pages import PageStore

MODEL = "qwen2.5-coder-0.5b"
TOKENS = 4608  # of a window
TOGETHER = 14  # windows side by side
PAGES = 4600  # of 16 tokens: room for these
BLENDS = {"blend": SHARE, "blend_15": 0.15}  # as shipped, and where more is computed: shares of the knowledge
SYSTEM = "Answer the user's question from the documents given. Answer in one sentence."


class Alone(Blender):
    """Passages computed with nothing before them."""

    def pieces(self, request: Request) -> list[Piece]:
        made = super().pieces(request)
        tokens = request.tokens
        keys = [chunk_key(self._identity, (), tokens[p.start : p.end], b"") for p in made]
        return [replace(p, before=(), key=key) for p, key in zip(made, keys, strict=True)]

    def _again(self, made: Sequence[Piece]) -> list[int]:
        return []


class Unturned(Alone):
    """And with their keys left as they were there."""

    def _assembled(self, made: Sequence[Piece], held: dict[bytes, KV], begin: int, end: int) -> KV:
        whole = super()._assembled(made, held, begin, end)
        for piece in made:
            size = piece.end - piece.start
            own = super()._assembled([replace(piece, start=0, end=size)], held, 0, size)
            first, last = max(piece.start, begin), min(piece.end, end)
            if first < last:
                whole[:, first - begin : last - begin] = own[:, first - piece.start : last - piece.start]
        return whole


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk, as `recompute` reads it."""

    text: str
    heading: str = ""
    similarity: float = 0.0


@dataclass(frozen=True, slots=True)
class Window:
    """One question over one context."""

    front: list[int]
    passages: list[list[int]]
    question: list[int]  # and the opening of the answer
    chosen: dict[
        str, tuple[list[int], list[int]]
    ]  # of each way to blend: the pieces, and what is computed last

    def recomputed(self, way: str = "blend") -> float:
        """Share of the knowledge's tokens."""
        sizes, (pieces, last) = list(map(len, self.passages)), self.chosen[way]
        again = borders(list(accumulate([len(self.front), *(sizes[i] for i in pieces)])))
        return (sum(sizes[i] for i in last) + len(again)) / sum(sizes)

    def full(self, **more: object) -> Request:
        """All of it computed, passages in the order of the document."""
        return _request([], [*self.front, *_joined(self.passages), *self.question], more)

    def reused(self, **more: object) -> Request:
        """All passages put together; only the question is computed."""
        return _request([self.front, *self.passages], self.question, more)

    def blend(self, way: str = "blend", **more: object) -> Request:
        """What `recompute` says."""
        pieces, last = ([self.passages[i] for i in some] for some in self.chosen[way])
        return _request([self.front, *pieces], [*_joined(last), *self.question], more)


def _joined(parts: Sequence[Sequence[int]]) -> list[int]:
    return [token for part in parts for token in part]


def _request(pieces: Sequence[Sequence[int]], rest: Sequence[int], more: dict[str, object]) -> Request:
    common = dict(max_tokens=1, draft=0, priority=Priority.BATCH)
    ends = tuple(accumulate(map(len, pieces)))
    return Request(**common | more, tokens=(*_joined(pieces), *rest), pieces=ends)  # type: ignore[arg-type]


class Bench:
    """The model."""

    def __init__(self) -> None:
        prepare_jax(Config())
        self.path = find(MODEL).path
        weights = open_weights(find(MODEL))
        self.model = load_model(weights, window=TOKENS)
        self.tokenizer = weights.tokenizer()
        self._prompt = ChatPrompt(self.tokenizer, weights.template())
        self.runner = ModelRunner(self.model, pages=PAGES, window=TOKENS)
        self.runner.warm_up()
        self._blender = Blender(self.model, self.runner, PageStore(None, ram=1, disk=0))

    @contextmanager
    def engine(self, kind: type[Blender] = Blender, store: PageStore | None = None) -> Iterator[Engine]:
        """An engine whose pool remembers nothing; what is stored stays in `store`, else goes with the engine."""
        pages = store or PageStore(None, ram=1 << 30, disk=0)
        engine = Engine(self.runner, blender=kind(self.model, self.runner, pages))
        try:
            yield engine
        finally:
            engine.close()
            if store is None:
                pages.close()

    def mark(self, window: Window) -> str:
        """Of all that decides what is answered: weights and numeric mode, the window, and what stored pieces are."""
        digest = sha256(self.runner.identity.encode())
        digest.update(repr(window.full().tokens).encode())
        for request in map(window.blend, BLENDS):
            keys = [piece.key for piece in self._blender.pieces(request)]
            digest.update(repr((request.tokens, keys)).encode())
        return digest.hexdigest()[:16]

    def window(self, chunks: Sequence[str], question: str, asked: str) -> Window:
        """`asked`: the question as it is put to the model."""
        knowledge = [Part("knowledge", f"{chunk}\n\n") for chunk in chunks]
        parts = (Part("user", "Documents:\n\n"), *knowledge, Part("user", asked))
        segments = self._prompt.segments([Message.of("system", SYSTEM), Message("user", parts)])
        first = next(i for i, s in enumerate(segments) if s.kind == "knowledge")
        last = first + len(chunks)
        passages = [list(s.tokens) for s in segments[first:last]]
        texts, sizes = [Passage(chunk) for chunk in chunks], list(map(len, passages))
        return Window(
            _joined([s.tokens for s in segments[:first]]), passages, _joined([s.tokens for s in segments[last:]]),
            {way: arrange(question, texts, sizes, share) for way, share in BLENDS.items()},
        )  # fmt: skip
