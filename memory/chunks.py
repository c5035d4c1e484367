"""Chunk KV: what the model made of a passage, kept for any place in any window.

What: keys and values of stretches of tokens, values as computed, keys not yet rotated. A stretch was computed behind
    its `before`: the tokens that stood in front of it and that it could see. They are kept in a page store, in host
    memory and on disk.
Invariant: a key names everything that made the KV (weights and numerics, adapter, what stood before, the tokens,
    whose they are), so nothing is found that would not have been computed. Host memory and disk are the page store's:
    bounded, checked when read, least valuable first out.
Interface: `chunk_key(identity, before, tokens, label)`, for storing and looking up alike; `Chunks(store, shape, type)`:
    `in`, `get`, `put`, `fetch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import DTypeLike, NDArray

from llmos.memory.pagefile import Page
from llmos.memory.pages import KEY_BYTES, Store

KV = NDArray[np.generic]
"""[L, T, K, 2, H] in the pool's type: of each token its keys, before rotation, and its values."""


def chunk_key(identity: str, before: Sequence[int], tokens: Sequence[int], label: bytes) -> bytes:
    """The address of the KV of `tokens` behind `before`.

    Args:
        identity: of weights, numeric mode and adapter: equal identity means bit-equal KV.
        label: whose words these are; only equals share.
    """
    digest = blake2b(digest_size=KEY_BYTES, person=b"chunk")
    for part in (identity.encode(), _bytes(before), _bytes(tokens), label):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _bytes(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, "<u4").tobytes()


class Chunks:
    """A page store as arrays of KV. Any thread."""

    def __init__(self, store: Store, shape: tuple[int, int, int, int], type_: DTypeLike) -> None:
        """`shape` is of one token: [L, K, 2, H]."""
        self._store, self._shape, self._type = store, shape, np.dtype(type_)

    def __contains__(self, key: bytes) -> bool:
        return key in self._store

    @property
    def token_bytes(self) -> int:
        """Bytes of one token."""
        return math.prod(self._shape) * self._type.itemsize

    def put(self, key: bytes, kv: KV) -> None:
        """Keep KV [L, T, K, 2, H]."""
        self._store.put(key, np.ascontiguousarray(kv).reshape(-1).view(np.uint8))

    def get(self, key: bytes) -> KV | None:
        """The KV, where host memory has it."""
        page = self._store.get(key)
        return None if page is None else self._array(page)

    def fetch(self, keys: Sequence[bytes], then: Callable[[dict[bytes, KV], int], None]) -> None:
        """Read from disk, up to the first that is not there; `then` gets what was read, and how many were damaged, on
        the store's thread."""
        self._store.fetch(
            keys, lambda found, lost: then({key: self._array(page) for key, page in found.items()}, lost)
        )

    def _array(self, page: Page) -> KV:
        layers, *slot = self._shape
        kv: KV = page.view(self._type).reshape(layers, -1, *slot)
        return kv
