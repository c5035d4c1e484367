"""Arithmetic coding: what goes in comes out, in as many bits as it should, and from integers alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.abi.errors import EngineError, ZipError
from llmos.kernel.learn import plainbytes
from llmos.kernel.learn.coding import Decoder, Encoder, frequencies

WIDEST = (1 << 48) - 1  # places of a choice among a million tokens
choices = st.lists(
    st.tuples(st.integers(1, WIDEST), st.floats(0, 1), st.floats(0, 1)).map(
        lambda t: (int(t[1] * (t[0] - 1)), t[0], t[2])
    ),
    max_size=60,
)


def placed(drawn: list[tuple[int, int, float]]) -> list[tuple[int, int, int]]:
    """(start, size, total) of choices that fit."""
    return [(start, 1 + int(share * (total - start - 1)), total) for start, total, share in drawn]


@given(choices)
@settings(max_examples=300, deadline=None)
def test_choices_come_back(drawn: list[tuple[int, int, float]]) -> None:
    put = placed(drawn)
    encoder = Encoder()
    for start, size, total in put:
        encoder.put(start, size, total)
    coded = encoder.finish()
    decoder = Decoder(coded)
    for start, size, total in put:
        assert start <= decoder.place(total) < start + size
        decoder.take(start, size)
    bits = sum(-math.log2(size / total) for _, size, total in put)
    assert 8 * len(coded) <= bits + 16, "more than two bytes above what the choices are worth"


def test_a_carry_runs_through_bytes_that_are_full() -> None:
    """The last place, again and again, and then a step over the edge."""
    put = [(WIDEST - 1, 1, WIDEST)] * 40 + [(0, 1, 3), (2, 1, 3)] * 40
    encoder = Encoder()
    for choice in put:
        encoder.put(*choice)
    decoder = Decoder(encoder.finish())
    for start, size, total in put:
        assert decoder.place(total) == start
        decoder.take(start, size)


def test_bytes_that_nobody_wrote() -> None:
    with pytest.raises(ZipError, match="damaged"):
        Decoder(b"\xff" * 12).place(3)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(e / e.sum())


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 8.0, 60.0])
def test_frequencies_are_the_softmax(spread: float) -> None:
    logits = np.random.default_rng(0).normal(0, spread, 50_000).astype(np.float32)
    found, meant = frequencies(logits), softmax(logits)
    shares = found / found.sum()
    loss_bits = float((meant * np.log2(np.maximum(meant, 1e-300) / shares)).sum())
    assert abs(loss_bits) < 1e-3
    assert found.min() >= 1 and found.dtype == np.int64


def test_frequencies_are_those_of_exact_arithmetic() -> None:
    """For logits whose differences are whole steps, powers of two, rounded down."""
    steps = np.array([0, 1, 4095, 4096, 40960, 4096 * 30, 4096 * 31, 10**6])
    logits = (-steps * (math.log(2) / 4096)).astype(np.float32)
    meant = [1 + math.floor(2.0**30 * 2.0 ** (-int(s) / 4096)) for s in steps]
    assert frequencies(logits).tolist() == meant


def test_impossible_tokens_have_a_frequency_too() -> None:
    found = frequencies(np.array([0.0, -np.inf, -3e38, 3e38], np.float32))
    assert found.tolist() == [1, 1, 1, (1 << 30) + 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(EngineError, match="no numbers"):
        frequencies(np.array([0.0, bad, 1.0], np.float32))


@given(st.binary(max_size=700))
@settings(max_examples=150, deadline=None)
def test_plain_bytes_come_back(data: bytes) -> None:
    way, stored = plainbytes.pack(data)
    assert len(stored) <= len(data)
    assert plainbytes.unpack(way, stored, len(data)) == data


def test_each_way_is_the_shortest_of_something() -> None:
    noise = np.random.default_rng(1).bytes(500)
    prose = b"the cat sat on the mat, and the rat sat on the cat. " * 2
    assert plainbytes.pack(noise)[0] == plainbytes.AS_IS
    assert plainbytes.pack(prose)[0] == plainbytes.COUNTS
    assert plainbytes.pack(noise * 200)[0] == plainbytes.LZMA


@pytest.mark.parametrize("way", [plainbytes.AS_IS, plainbytes.LZMA, plainbytes.COUNTS, 9])
def test_stored_bytes_of_another_size(way: int) -> None:
    with pytest.raises(ZipError):
        plainbytes.unpack(way, b"\x01\x02\x03", 700_000)
