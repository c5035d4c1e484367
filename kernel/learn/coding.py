"""Arithmetic coding: a sequence of choices in as many bits as they are surprising.

What: an encoder and a decoder of choices out of integer frequencies (a range coder; Martin 1979), and the frequencies
    that a model's logits stand for.
Invariant: integers only, so what was encoded is decoded, exactly, wherever both sides have the same frequencies. Equal
    logits give equal frequencies on every machine: they come from a subtraction and a product, which IEEE 754 rounds
    one way, a table of integers, and shifts. Neither `exp` nor a sum of floats takes part, whose last bits depend on
    library, processor and order. Every choice has a frequency of at least 1, so nothing is impossible to say.
Interface: `frequencies(logits)`; `Encoder().put(start, size, total)`, `.finish()`; `Decoder(data)`: `.place(total)`,
    then `.take(start, size)`.
"""

from __future__ import annotations

from math import isqrt, log

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import EngineError, ZipError

Frequencies = NDArray[np.int64]

_TOP, _BOTTOM = (
    96,
    88,
)  # bits of the state; a byte leaves when the range falls below 2^88, so 2^48 places are nothing
_MASK = (1 << _TOP) - 1

_ONE = 30  # bits: the likeliest token's frequency is 2^30
_STEPS = (
    12  # bits: a logit is rounded to ln 2 / 4096, a probability thereby changed by less than one in 11,000
)


def _powers() -> NDArray[np.int32]:
    """2^(30 - i / 4096) for i = 0 … 4095, rounded down, by square roots of integers."""
    bits = 256
    root = 1 << (bits - 1)  # 2^-1 as a fraction of 2^256
    for _ in range(_STEPS):
        root = isqrt(root << bits)  # ends as 2^(-1 / 4096)
    powers, value = [], 1 << bits
    for _ in range(1 << _STEPS):
        powers.append(value >> (bits - _ONE))
        value = value * root >> bits
    return np.array(powers, np.int32)


_POWERS = _powers()
_SCALE = np.float32((1 << _STEPS) / log(2))
_FAR = np.float32(31 << _STEPS)  # from here on 2^30 has been shifted away


def frequencies(logits_V: NDArray[np.float32]) -> Frequencies:
    """Frequencies i64 [V] in proportion to the softmax of one row of logits.

    Raises:
        EngineError: a logit is no number, or the largest is infinite.
    """
    best = logits_V.max()
    if not np.isfinite(best):
        raise EngineError("the model's logits are no numbers", why=f"the largest is {best}")
    with np.errstate(over="ignore"):  # further away than a float can say is far enough
        below = (best - logits_V) * _SCALE  # two roundings, each prescribed; numpy does not fuse them
    steps = np.rint(np.minimum(below, _FAR)).astype(np.int32)
    return (_POWERS[steps & ((1 << _STEPS) - 1)] >> (steps >> _STEPS)).astype(np.int64) + 1


class Encoder:
    """Writes choices."""

    def __init__(self) -> None:
        self._low, self._range = 0, _MASK
        self._out = bytearray()

    def put(self, start: int, size: int, total: int) -> None:
        """A choice that takes the places `start` to `start + size` of `total`."""
        part = self._range // total
        self._low += part * start
        self._range = part * size
        self._carry()
        while self._range < 1 << _BOTTOM:
            self._out.append(self._low >> _BOTTOM)
            self._low = self._low << 8 & _MASK
            self._range <<= 8

    def finish(self) -> bytes:
        """All that was put, in bytes. Ends the encoder."""
        # Of the numbers in the range, the one with the most zeros at its end: the decoder reads zeros past the end.
        for bits in range(_TOP, -1, -1):
            rounded = -(-self._low >> bits) << bits
            if rounded < self._low + self._range:
                break
        self._low = rounded
        self._carry()
        self._out += self._low.to_bytes(_TOP // 8)
        return bytes(self._out).rstrip(b"\0")

    def _carry(self) -> None:
        if self._low <= _MASK:
            return
        self._low &= _MASK
        at = len(self._out) - 1
        while self._out[at] == 0xFF:
            self._out[at] = 0
            at -= 1
        self._out[at] += 1


class Decoder:
    """Reads choices that an `Encoder` wrote."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, _TOP // 8
        self._code = int.from_bytes(data[: self._at].ljust(self._at, b"\0"))
        self._range, self._part = _MASK, 0

    def place(self, total: int) -> int:
        """Where among `total` the next choice lies.

        Raises:
            ZipError: no encoder wrote this.
        """
        self._part = self._range // total
        found = self._code // self._part
        if found >= total:
            raise ZipError("the compressed bytes are damaged", why="they name a choice that does not exist")
        return found

    def take(self, start: int, size: int) -> None:
        """The choice was the one at `start` to `start + size`: go on behind it."""
        self._code -= self._part * start
        self._range = self._part * size
        while self._range < 1 << _BOTTOM:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._code = self._code << 8 | byte
            self._range <<= 8
            self._at += 1
