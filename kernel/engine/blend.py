"""Page-in of knowledge at any place: KV that was computed for a passage once goes into a window where it is wanted.

What: a request may say that its beginning is made of pieces: first what stands in front of all knowledge, then
    passages. Each passage is computed once behind that front, alone with it, and kept with its keys unrotated; a
    window's pieces are put together, keys turned to their places, and written to the pool's pages. A few tokens at
    their borders are computed again there, and so is what follows the pieces (the passages nearest to the question, the
    question), as always.
Invariant: this is not what a full prefill computes: passages do not see each other. It is a function of the
    request alone all the same: whether a piece was found or has to be computed, the KV is the same bit for bit. Pages
    made so are found under hashes of their own, never by requests without pieces.
Interface: `Blender(model, runner, store)`: `fits(model)`, `bring(sequence, …)`, `computed`, the engine thread's own;
    `stored(request)`, `token_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from flax import nnx
from numpy.typing import NDArray

from llmos.kernel.engine.batch import Batch, empty_tables
from llmos.kernel.engine.capture import Capture
from llmos.kernel.model.rope import rotate_keys
from llmos.kernel.recompute import borders
from llmos.memory.chunks import KV, Chunks, chunk_key

if TYPE_CHECKING:
    from llmos.drivers.weights.adapter import Adapter
    from llmos.kernel.engine.runner import ModelRunner
    from llmos.kernel.engine.sequence import Request
    from llmos.kernel.engine.sequence import Sequence as Running
    from llmos.kernel.model.load import Model
    from llmos.memory.pages import Store


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens `start` to `end` of a request, what they are computed behind, and the address of their KV."""

    start: int
    end: int
    before: tuple[int, ...]
    key: bytes


class Blender:
    """Between the chunk store, the computing of what it has not got, and the pool."""

    def __init__(self, model: Model, runner: ModelRunner, store: Store) -> None:
        """`store` has host memory for the pieces of a window at least."""
        c = model.config
        self._chunks = Chunks(store, (c.layers, c.kv_heads, 2, c.head_dim), model.pool_type)
        self._model, self._runner, self._identity = model, runner, runner.identity
        # A piece: its key, where it starts, tokens, and who computes it.
        self._begun: tuple[bytes, int, list[int], Adapter | None] | None = None
        self.computed = 0  # tokens of pieces that were not found

    @staticmethod
    def fits(model: Model) -> bool:
        """Whether its pages have the form in which pieces are kept; some devices have one of their own."""
        c = model.config
        as_kept = np.dtype(model.pool_type).name in ("uint16", "float32")
        return as_kept and tuple(model.slot_shape) == (c.kv_heads, 2, c.head_dim)

    @cached_property
    def _capture(self) -> Capture:
        r = self._runner
        return Capture(self._model, r.bank, page=r.page, window=r.window, budget=r.budget)

    @cached_property
    def _ropes(self) -> list[tuple[NDArray[np.float32], ...]]:
        """Cosines and sines of each layer."""
        decoder = nnx.merge(self._model.graph, self._model.state)
        tables = [tuple(np.asarray(table) for table in rope.get_value()) for rope in decoder.ropes]
        return [tables[i] for i in decoder.rope_of_layer]

    def bring(
        self,
        sequence: Running,
        room: Callable[[int], bool],
        post: Callable[[Callable[[], None]], None],
        budget: int,
    ) -> bool:
        """Give `sequence` the pages of its pieces, as far as they are whole; whether it can go on now.

        Args:
            room: takes pages for so many more tokens; False where it must wait for them.
            post: has something done on this thread.
            budget: tokens to compute in this call, of pieces that nobody has or at the borders of those that are there.
        """
        page, held = self._runner.page, sequence.held
        keep = sequence.request.pieces[-1] // page * page
        begin = sequence.computed  # what the pool or the swap remembered
        if begin >= keep:
            return True
        made = self.pieces(sequence.request)
        missing = [piece for piece in made if not self._holds(held, piece.key)]
        if on_disk := [piece.key for piece in missing if piece.key in self._chunks]:
            self._fetch(sequence, on_disk, post)
            return False
        if missing:
            self._compute(sequence.request, missing[0], budget)
            return False
        again = [at for at in self._again(made) if begin <= at < keep]
        end = keep if len(again) <= budget else max(again[budget] // page * page, begin + page)
        if not room(end - begin):
            return False
        whole = self._assembled(made, held, begin, end)
        paged = whole.reshape(len(whole), -1, page, *whole.shape[2:]).swapaxes(0, 1)
        self._runner.write_pages(sequence.pages[begin // page : end // page], paged)
        self._compute_again(sequence, [at for at in again if at < end])
        sequence.advance(end - begin)
        return end == keep

    def pieces(self, request: Request) -> list[Piece]:
        """What a request's beginning is made of: each passage behind the front, the first piece."""
        tokens, front, found, start = request.tokens, request.pieces[0], list[Piece](), 0
        who = self._identity if request.adapter is None else f"{self._identity}/{request.adapter.version}"
        for end in request.pieces:
            before = tokens[:front] if start else ()
            label = request.label(0, front).key + request.label(start, end).key
            key = chunk_key(who, before, tokens[start:end], label)
            found.append(Piece(start, end, before, key))
            start = end
        return found

    def stored(self, request: Request) -> list[bool]:
        """Of each piece of a request whether host memory or disk has it. Any thread."""
        return [piece.key in self._chunks for piece in self.pieces(request)]

    @property
    def token_bytes(self) -> int:
        """What is kept of a token."""
        return self._chunks.token_bytes

    def _holds(self, held: dict[bytes, KV], key: bytes) -> bool:
        """Whether a piece is held now, or can be had at once."""
        if key not in held and (kv := self._chunks.get(key)) is not None:
            held[key] = kv
        return key in held

    def _fetch(
        self, sequence: Running, keys: Sequence[bytes], post: Callable[[Callable[[], None]], None]
    ) -> None:
        """Have the disk read for `sequence`, which stands still until it is."""

        def arrived(found: dict[bytes, KV], lost: int) -> None:
            sequence.fetching = False
            sequence.lost += lost
            sequence.held.update(found)

        sequence.fetching = True
        self._chunks.fetch(keys, lambda found, lost: post(lambda: arrived(found, lost)))

    def _compute(self, request: Request, piece: Piece, budget: int) -> None:
        """Some tokens of a piece that nobody has: of the one that was begun, whoever wanted it."""
        if self._begun is None:
            whole = [*piece.before, *request.tokens[piece.start : piece.end]]
            self._begun = piece.key, len(piece.before), whole, request.adapter
        key, start, whole, adapter = self._begun
        self.computed += self._capture.advance(whole, budget, adapter)
        if self._capture.holds(whole):
            self._chunks.put(key, self._capture.read(start, len(whole)))
            self._begun = None

    def _again(self, made: Sequence[Piece]) -> list[int]:
        """Places of the tokens that are computed again."""
        return borders([piece.end for piece in made])

    def _compute_again(self, sequence: Running, places: Sequence[int]) -> None:
        """Tokens of the pages that were just written, each behind all that stands before it in this window."""
        runner = self._runner
        tables_BP = empty_tables(runner)
        tables_BP[0, : len(sequence.pages)] = sequence.pages
        nothing = np.zeros(0, np.int32)  # no logits
        for first in range(0, len(places), runner.budget):
            some = np.asarray(places[first : first + runner.budget], np.int32)
            tokens = np.asarray([sequence.tokens[at] for at in some], np.int32)
            batch = Batch(tokens, some, np.zeros_like(some), tables_BP, nothing, [sequence.request.adapter])
            runner.forward(batch)

    def _assembled(self, made: Sequence[Piece], held: dict[bytes, KV], begin: int, end: int) -> KV:
        """KV [L, T, K, 2, H] of tokens `begin` to `end`: pieces one behind the other, turned to their places."""
        first = held[made[0].key]
        whole: KV = np.empty((first.shape[0], end - begin, *first.shape[2:]), first.dtype)
        for piece in made:
            here = slice(max(piece.start, begin), min(piece.end, end))
            if here.start >= here.stop:
                continue
            own = slice(here.start - piece.start, here.stop - piece.start)
            there = slice(here.start - begin, here.stop - begin)
            for layer, (cos, sin) in enumerate(self._ropes):
                rotate_keys(held[piece.key][layer, own], cos[here], sin[here], whole[layer, there])
        return whole
