"""Pool bytes to host memory and back, verbatim.

What: reads pages of the pools (one a layer) into one host array, and writes such an array into pages.
Invariant: what is written is what was read, bit for bit; pages that are not named keep what they hold. The pools are
    never copied: on a CPU their memory is read and written where it lies, elsewhere a write donates them. Time grows
    with the pages moved, not with the pool.
Interface: `Transfer(pools)`: `read(pools, pages) -> [P, L, S, *slot]`, `layer(pool, pages) -> [P, S, *slot]`,
    `write(pools, pages, data) -> pools`. On the thread that owns the pools.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

Pools = tuple[Array, ...]
Pages = NDArray[np.generic]
"""Host pages [P, L, S, *slot_shape] in the pool's type: one page after the other, each with all its layers."""

CHUNK = 32  # pages that one program on a device moves: two programs in all, whatever is asked


class Transfer:
    """Moves pages of pools of one shape."""

    def __init__(self, pools: Pools) -> None:
        first = pools[0]
        self.type = np.dtype(first.dtype)
        self.shape = (len(pools), *first.shape[1:])  # of one page
        self._in_place = jax.default_backend() == "cpu" and len(first.sharding.device_set) == 1
        self._gather = jax.jit(lambda pools, ids: jnp.stack([pool[ids] for pool in pools], axis=1))
        self._scatter = jax.jit(
            lambda pools, ids, data: tuple(pool.at[ids].set(data[:, i]) for i, pool in enumerate(pools)),
            donate_argnums=0,
            out_shardings=tuple(pool.sharding for pool in pools),
        )

    @property
    def page_bytes(self) -> int:
        """Bytes of one page over all layers."""
        return int(np.prod(self.shape)) * self.type.itemsize

    def read(self, pools: Pools, pages: Sequence[int]) -> Pages:
        """What `pages` hold; waits for what is being computed."""
        ids = np.asarray(pages, np.int32)
        out: Pages = np.empty((len(ids), *self.shape), self.type)
        if self._in_place:
            for layer, pool in enumerate(_memory(pools)):
                out[:, layer] = pool[ids]
            return out
        for at in range(0, len(ids), CHUNK):
            chunk = ids[at : at + CHUNK]
            out[at : at + CHUNK] = np.asarray(self._gather(pools, _padded(chunk)))[: len(chunk)]
        return out

    def layer(self, pool: Array, pages: Sequence[int]) -> Pages:
        """What `pages` hold of one layer alone."""
        ids = np.asarray(pages, np.int32)
        if self._in_place:
            held: Pages = _memory((pool,))[0][ids]
            return held
        chunks = [ids[at : at + CHUNK] for at in range(0, len(ids), CHUNK)]
        return np.concatenate(
            [np.asarray(self._gather((pool,), _padded(chunk)))[: len(chunk), 0] for chunk in chunks]
        )

    def write(self, pools: Pools, pages: Sequence[int], data: Pages) -> Pools:
        """The pools with `data` in `pages`; those that were given are used up."""
        ids = np.asarray(pages, np.int32)
        if data.shape != (len(ids), *self.shape) or data.dtype != self.type:
            raise ValueError(f"{data.dtype} {data.shape} is not {len(ids)} pages of {self.type} {self.shape}")
        if self._in_place:
            for layer, pool in enumerate(_memory(pools)):
                pool[ids] = data[:, layer]
            return pools
        for at in range(0, len(ids), CHUNK):
            chunk = ids[at : at + CHUNK]
            moved = np.zeros((CHUNK, *self.shape), self.type)  # page 0, which nobody owns, stays finite
            moved[: len(chunk)] = data[at : at + CHUNK]
            pools = self._scatter(pools, _padded(chunk), moved)
        return pools


def _padded(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """A whole chunk, the rest of it page 0."""
    return np.concatenate([ids, np.zeros(CHUNK - len(ids), np.int32)])


def _memory(pools: Pools) -> list[Pages]:
    """The pools' own memory. Not by `np.asarray`: the array would remember the view, and a step that finds one
    copies the pool instead of taking it over."""
    jax.block_until_ready(pools)
    views: list[Pages] = []
    for pool in pools:
        raw = (ctypes.c_uint8 * pool.nbytes).from_address(pool.unsafe_buffer_pointer())
        views.append(np.ctypeslib.as_array(raw).view(pool.dtype).reshape(pool.shape))
    return views
