"""Bytes that no model reads: what `zip` does with pictures, programs and broken text.

What: three ways to store a stretch of bytes, of which the shortest is taken: as they are, by LZMA, or by arithmetic
    coding under counts of what followed the last two bytes, the last one, and any (small stretches, where LZMA has not
    learnt anything yet).
Invariant: `unpack` gives what `pack` was given, or ZipError; it never makes more bytes than it was told to.
Interface: `pack(data) -> (way, stored)`, `unpack(way, stored, size)`.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterator

import numpy as np

from llmos.abi.errors import ZipError
from llmos.kernel.learn.coding import Decoder, Encoder, Frequencies

AS_IS, LZMA, COUNTS = 0, 1, 2
MAX_COUNTED = 1 << 16  # bytes: it takes ten microseconds a byte, and LZMA has caught up
_ORDERS = (1, 24, 400)  # what a count is worth by how many bytes before it agree


def pack(data: bytes) -> tuple[int, bytes]:
    """The shortest way to store `data`, and what is stored."""
    ways = [(AS_IS, data), (LZMA, lzma.compress(data, lzma.FORMAT_RAW, filters=_filters(len(data))))]
    if len(data) <= MAX_COUNTED:
        ways.append((COUNTS, _count(data)))
    return min(ways, key=lambda way: len(way[1]))


def unpack(way: int, stored: bytes, size: int) -> bytes:
    """The `size` bytes that `pack` was given.

    Raises:
        ZipError: it never gave this.
    """
    if way == AS_IS:
        data = stored
    elif way == LZMA:
        try:
            data = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(size)).decompress(stored, size + 1)
        except lzma.LZMAError as error:
            raise _damaged(str(error)) from error
    elif way == COUNTS and size <= MAX_COUNTED:
        data = _uncount(stored, size)
    else:
        raise _damaged("it is stored in a way that does not exist")
    if len(data) != size:
        raise _damaged(f"it holds {len(data)} bytes, not {size}")
    return data


def _filters(size: int) -> list[dict[str, int]]:
    """Preset 9e, with a dictionary no larger than there is to look back on: the reader allocates it."""
    dictionary = max(1 << 12, min(1 << 26, 1 << (size - 1).bit_length() if size else 0))
    return [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}]


def _count(data: bytes) -> bytes:
    encoder = Encoder()
    counts = _Counts()
    for byte in data:
        ends = counts.ends()
        start = int(ends[byte - 1]) if byte else 0
        encoder.put(start, int(ends[byte]) - start, int(ends[-1]))
        counts.add(byte)
    return encoder.finish()


def _uncount(stored: bytes, size: int) -> bytes:
    decoder = Decoder(stored)
    counts = _Counts()
    return bytes(_bytes(decoder, counts, size))


def _bytes(decoder: Decoder, counts: _Counts, size: int) -> Iterator[int]:
    for _ in range(size):
        ends = counts.ends()
        byte = int(np.searchsorted(ends, decoder.place(int(ends[-1])), "right"))
        start = int(ends[byte - 1]) if byte else 0
        decoder.take(start, int(ends[byte]) - start)
        counts.add(byte)
        yield byte


class _Counts:
    """How often each byte has followed what now stands before the next one."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Frequencies] = {}
        self._before = b""
        self._look()

    def ends(self) -> Frequencies:
        """The end of each byte's place, i64 [256]."""
        total = np.ones(256, np.int64)
        for count, worth in zip(self._here, _ORDERS, strict=False):
            total += count * worth
        return total.cumsum()

    def add(self, byte: int) -> None:
        """The next byte is this one."""
        for count in self._here:
            count[byte] += 1
        self._before = (self._before + bytes((byte,)))[-2:]
        self._look()

    def _look(self) -> None:
        before = self._before
        contexts = [before[at:] for at in range(len(before), -1, -1)]  # the shortest first
        self._here = [self._seen.setdefault(c, np.zeros(256, np.int64)) for c in contexts]


def _damaged(why: str) -> ZipError:
    return ZipError("the compressed bytes are damaged", why=why, do="get the file again")
