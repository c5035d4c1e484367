"""Who leaves first: keys of one level of the hierarchy, bounded in bytes.

What: keeps sizes and worths of keys. The worth of a key is its uses plus a clock, which is the worth of whoever left
    last: so old fame fades, and what was never used again leaves before what was. Of equals the one that came first.
    Source: greedy dual size with frequency (Cherkasova 1998), for pieces of one size and cost.
Invariant: what is here has at most `limit` bytes, after whoever was named has left.
Interface: `Shelf(limit)`: `add(key, size) -> those that leave`, `touch`, `remove`, `in`, `held`, iterate
    (least first).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


@dataclass(slots=True)
class _Item:
    size: int
    uses: int
    rank: tuple[float, int]  # worth, and when it was given


class Shelf:
    """Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._items: dict[bytes, _Item] = {}
        self._heap: list[tuple[tuple[float, int], bytes]] = []  # with what was overtaken in between
        self._clock, self._ticks = 0.0, 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._items, key=lambda key: self._items[key].rank))

    def add(self, key: bytes, size: int) -> list[bytes]:
        """Take `key` in, or count one more use; the keys that leave for it, the key itself where it is larger than
        everything that may be here."""
        if key in self._items:
            self.touch(key)
            return []
        self._items[key] = _Item(size, 0, (0.0, 0))
        self.held += size
        self.touch(key)
        left = []
        while self.held > self.limit:
            rank, least = heappop(self._heap)
            if least in self._items and self._items[least].rank == rank:
                self._clock = rank[0]
                self.remove(least)
                left.append(least)
        return left

    def touch(self, key: bytes) -> None:
        """Count a use."""
        item = self._items[key]
        self._ticks += 1
        item.uses += 1
        item.rank = (self._clock + item.uses, self._ticks)
        heappush(self._heap, (item.rank, key))
        if len(self._heap) > 4 * len(self._items) + 64:
            self._heap = [(item.rank, key) for key, item in self._items.items()]
            heapify(self._heap)

    def remove(self, key: bytes) -> None:
        """Let `key` go."""
        self.held -= self._items.pop(key).size
