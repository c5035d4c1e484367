"""What adapters add to products: bound to the reference, to the row contract bit by bit, and nothing where none is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.cpu import library, reference
from tests.drivers.cpu.blocks import dense, random_tensor
from tests.drivers.cpu.test_linear import REFUSED, _close, _rows, _x

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")


def factors(
    rng: np.random.Generator, ranks: list[list[int]], rank: int, k: int, widths: list[int], half: bool
) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Ranks [S, M], a, and b of each matrix; what lies past a slot's rank is noise that nobody may read."""

    def stored(values: Any) -> jax.Array:
        return jnp.asarray(reference.to_bf16(values) if half else values)

    count, matrices = len(ranks), len(widths)
    a = rng.standard_normal((count, matrices, rank, k)).astype(np.float32)
    b = [rng.standard_normal((count, rank, n)).astype(np.float32) for n in widths]
    return jnp.asarray(ranks, jnp.int32), stored(a), [stored(x) for x in b]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


SLOTS = [0, 1, 1, 2, 0, 0, 3, 3, 3, 3, 3, 3, 1, 2, 2]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("k", "widths", "rank"), [(64, [48, 16, 16], 8), (37, [5], 3), (256, [520, 1031], 16), (8, [8], 1)]
)
def test_it_equals_the_reference(
    rng: np.random.Generator, half: bool, k: int, widths: list[int], rank: int
) -> None:
    ranks = [
        [0] * len(widths),
        [rank] * len(widths),
        [1] * len(widths),
        [min(2, rank), *[0] * len(widths)][: len(widths)],
    ]
    table, a, b = factors(rng, ranks, rank, k, widths, half)
    x, norm, slots = _x(rng, len(SLOTS), k), _x(rng, 1, k)[0], jnp.asarray(SLOTS, jnp.int32)
    for weight in (None, norm):
        got = cpu.low_rank(x, _rows(len(SLOTS)), slots, table, a, b, norm=weight, eps=1e-5)
        want = reference.low_rank(x, _rows(len(SLOTS)), slots, table, a, b, norm=weight, eps=1e-5)
        _close(got, want, 2e-6)


def test_a_row_without_an_adapter_keeps_every_bit(rng: np.random.Generator) -> None:
    """Also that of the sign of a zero, in every kind of product."""
    k, n = 256, 40
    weights = [cpu.pack(random_tensor(rng, "Q8_0", n, k), "Q8_0", (n, k)) for _ in range(2)]
    slots = jnp.asarray([0, 1, 0, 2, 2], jnp.int32)
    table, a, b = factors(rng, [[0, 0], [4, 4], [0, 2]], 4, k, [n, n], True)
    x = _x(rng, 5, k).at[2].set(0.0)
    x = x.at[2, 0].set(-1e-38)
    delta = cpu.low_rank(x, _rows(5), slots, table, a, b)
    for more in ({}, {"activation": "silu"}, {"norm": jnp.ones(k), "bias": jnp.zeros(2 * n)}):
        plain = np.asarray(cpu.linear(x, weights, _rows(5), **more)).view(np.uint32)
        with_some = np.asarray(cpu.linear(x, weights, _rows(5), delta=delta, **more)).view(np.uint32)
        np.testing.assert_array_equal(plain[[0, 2]], with_some[[0, 2]])
        assert (plain[1] != with_some[1]).any() and (plain[3] != with_some[3]).any()
    half = np.asarray(cpu.linear(x, weights, _rows(5), delta=delta)).view(np.uint32)
    plain = np.asarray(cpu.linear(x, weights, _rows(5))).view(np.uint32)
    np.testing.assert_array_equal(plain[3, :n], half[3, :n])  # its adapter leaves the first matrix alone


@pytest.mark.parametrize("half", [False, True])
def test_row_contract(rng: np.random.Generator, half: bool) -> None:
    """A row has the same bits alone, among others, in another slot, in a wider bank, on any number of threads."""
    k, widths, rank = 100, [130, 600], 8
    table, a, b = factors(rng, [[0, 0], [8, 8], [3, 5], [8, 0]], rank, k, widths, half)
    x, slots, norm = _x(rng, len(SLOTS), k), jnp.asarray(SLOTS, jnp.int32), _x(rng, 1, k)[0]

    def run(rows: list[int], table: Any = table, a: Any = a, b: Any = b, slots: Any = slots) -> np.ndarray:
        at = jnp.asarray(rows, jnp.int32)
        return np.asarray(cpu.low_rank(x[at], _rows(len(rows)), slots[at], table, a, b, norm=norm)).view(
            np.uint32
        )

    everyone = list(range(len(SLOTS)))
    whole = run(everyone)
    for rows in ([3], [3, 0], [0, 3, 1], [6, 7, 8], [9, 1, 9, 2], everyone[::-1], everyone[2:]):
        np.testing.assert_array_equal(run(rows), whole[rows])
    turned = jnp.asarray([0, 3, 1, 2], jnp.int32)  # slot s stands where turned[s] stood
    moved = jnp.asarray([0, 2, 3, 1], jnp.int32)[slots]
    np.testing.assert_array_equal(
        run(everyone, table[turned], a[turned], [x[turned] for x in b], moved), whole
    )
    wide_a = jnp.pad(a, ((0, 2), (0, 0), (0, 24), (0, 0)), constant_values=9)
    wide_b = [jnp.pad(x, ((0, 2), (0, 24), (0, 0)), constant_values=9) for x in b]
    np.testing.assert_array_equal(run(everyone, jnp.pad(table, ((0, 2), (0, 0))), wide_a, wide_b), whole)
    before = library.threads()
    try:
        for threads in (1, 2, 3):
            cpu.set_threads(threads)
            np.testing.assert_array_equal(run(everyone), whole)
    finally:
        cpu.set_threads(before)


def test_the_delta_is_added_before_everything_else(rng: np.random.Generator) -> None:
    k, n = 64, 24
    raw = [random_tensor(rng, "F32", n, k) for _ in range(2)]
    weights = [cpu.pack(one, "F32", (n, k)) for one in raw]
    x, delta, bias = _x(rng, 6, k), _x(rng, 6, 2 * n), _x(rng, 1, 2 * n)[0]
    plain = np.concatenate([np.asarray(x) @ dense(one, "F32").T for one in raw], axis=-1)
    got = cpu.linear(x, weights, _rows(6), bias=bias, delta=delta)
    _close(got, plain + np.asarray(delta) + np.asarray(bias))
    gate, up = np.split(plain + np.asarray(delta) + np.asarray(bias), 2, axis=-1)
    got = cpu.linear(x, weights, _rows(6), bias=bias, delta=delta, activation="silu")
    _close(got, gate / (1 + np.exp(-gate)) * up, 1e-5)


def test_nan_poisons_its_own_row_only(rng: np.random.Generator) -> None:
    table, a, b = factors(rng, [[0], [4]], 4, 32, [16], False)
    x = _x(rng, 4, 32).at[1, 5].set(np.nan)
    y = np.asarray(cpu.low_rank(x, _rows(4), jnp.asarray([1, 1, 1, 0], jnp.int32), table, a, b))
    assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2, 3]]).all()


def test_wrong_arguments_are_errors(rng: np.random.Generator) -> None:
    table, a, b = factors(rng, [[0, 0], [4, 4]], 4, 32, [16, 8], False)
    x, slots = _x(rng, 3, 32), jnp.asarray([0, 1, 1], jnp.int32)
    for slot in (-1, 2):
        with pytest.raises(REFUSED, match="is not there"):
            jax.block_until_ready(cpu.low_rank(x, _rows(3), slots.at[1].set(slot), table, a, b))
    with pytest.raises(REFUSED, match="larger than its matrices"):
        jax.block_until_ready(cpu.low_rank(x, _rows(3), slots, table.at[1, 0].set(5), a, b))
    with pytest.raises(REFUSED, match="shapes disagree"):
        jax.block_until_ready(cpu.low_rank(_x(rng, 3, 31), _rows(3), slots, table, a, b))
    with pytest.raises(REFUSED, match="matrices"):
        jax.block_until_ready(cpu.low_rank(x, _rows(3), slots, table, a, b[:1]))
    with pytest.raises(REFUSED, match="within the batch"):
        jax.block_until_ready(cpu.low_rank(x, _rows(4), slots, table, a, b))
    weights = [cpu.pack(random_tensor(rng, "F32", n, 32), "F32", (n, 32)) for n in (16, 8)]
    with pytest.raises(REFUSED, match="delta"):
        jax.block_until_ready(cpu.linear(x, weights, _rows(3), delta=_x(rng, 3, 23)))
