"""Paged attention with rotary embedding: bound to the reference, and to the row contract bit by bit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.cpu import library, reference

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")

REFUSED = (ValueError, jax.errors.JaxRuntimeError)  # an argument that XLA calls invalid, eagerly or in a step


@dataclasses.dataclass(frozen=True)
class Case:
    heads: int = 14
    kv_heads: int = 2
    head_dim: int = 64
    rope_dim: int = 64
    half: bool = True
    window: int = 0
    softcap: float = 0.0
    interleaved: bool = False
    norms: bool = False
    page: int = 16

    def options(self, rng: np.random.Generator) -> dict[str, object]:
        made: dict[str, object] = {
            "heads": self.heads, "kv_heads": self.kv_heads, "scale": self.head_dim**-0.5,
            "window": self.window, "softcap": self.softcap, "interleaved": self.interleaved,
        }  # fmt: skip
        if self.norms:
            made["q_norm"] = jnp.asarray(rng.uniform(0.5, 1.5, self.head_dim), jnp.float32)
            made["k_norm"] = jnp.asarray(rng.uniform(0.5, 1.5, self.head_dim), jnp.float32)
        return made


CASES = [
    Case(),
    Case(half=False),
    Case(heads=9, kv_heads=3, interleaved=True),
    Case(heads=4, kv_heads=1, head_dim=256, rope_dim=256, window=37, norms=True),
    Case(heads=16, kv_heads=8, head_dim=128, rope_dim=128, norms=True),
    Case(heads=8, kv_heads=4, head_dim=40, rope_dim=16, softcap=30.0, window=5, half=False),
    Case(heads=2, kv_heads=2, head_dim=16, rope_dim=16, page=48),
    Case(heads=6, kv_heads=2, head_dim=24, rope_dim=24, page=5),
]
SLOTS, WIDTH = 3, 1280  # processes, positions that each has pages for: several segments of the sum


def _problem(
    case: Case, rng: np.random.Generator
) -> tuple[list[jax.Array], list[jax.Array], dict[str, object]]:
    """Rows of three processes: one in prefill across a segment's end, one decoding far out, one in a chunk."""
    per = -(-WIDTH // case.page)
    pages = SLOTS * per + 1
    table = rng.permutation(pages)[: SLOTS * per].reshape(SLOTS, per).astype(np.int32)
    pool = rng.standard_normal((pages, case.page, case.kv_heads, 2, case.head_dim)).astype(np.float32)
    if case.half:
        pool = (pool.view(np.uint32) >> 16).astype(np.uint16)
    angles = np.arange(WIDTH)[:, None] * 0.5 ** np.arange(case.rope_dim // 2)
    positions = np.concatenate([np.arange(490, 531), [1250], np.arange(60, 71)])
    slots = np.repeat([0, 1, 2], [41, 1, 11])
    qkv = rng.standard_normal((len(slots), (case.heads + 2 * case.kv_heads) * case.head_dim))
    arrays = [
        jnp.asarray(qkv, jnp.float32), jnp.asarray(pool), jnp.asarray(positions, jnp.int32),
        jnp.asarray(slots, jnp.int32), jnp.asarray(table),
    ]  # fmt: skip
    rope = [jnp.asarray(np.cos(angles), jnp.float32), jnp.asarray(np.sin(angles), jnp.float32)]
    return arrays, rope, case.options(rng)


def _rows(n: int) -> jax.Array:
    return jnp.asarray(n, jnp.int32)


def _floats(pool: jax.Array) -> np.ndarray:
    raw = np.asarray(pool)
    return (raw.astype(np.uint32) << 16).view(np.float32) if raw.dtype == np.uint16 else raw


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case: Case) -> None:
    (qkv, pool, positions, slots, table), rope, options = _problem(case, np.random.default_rng(3))
    t = _rows(qkv.shape[0])
    out, after = cpu.attention(qkv, pool, positions, slots, table, t, *rope, **options)  # type: ignore[arg-type]
    want, want_after = reference.attention(qkv, pool, positions, slots, table, t, *rope, **options)  # type: ignore[arg-type]
    assert np.max(np.abs(np.asarray(out) - np.asarray(want))) < 2e-5
    assert np.max(np.abs(_floats(after) - _floats(want_after))) <= (2.0**-6 if case.norms else 1e-6)
    assert np.mean(_floats(after) != _floats(want_after)) < 0.01


@pytest.mark.parametrize("case", CASES, ids=str)
def test_row_contract(case: Case) -> None:
    """The same bits token by token, in chunks of any size, in another order of processes, on any threads."""
    (qkv, pool, positions, slots, table), rope, options = _problem(case, np.random.default_rng(4))
    t = qkv.shape[0]
    whole, after = cpu.attention(qkv, pool, positions, slots, table, _rows(t), *rope, **options)  # type: ignore[arg-type]
    before = library.threads()
    try:
        for size, threads in ((1, 1), (7, 2), (20, 3)):
            cpu.set_threads(threads)
            out, chunked = [], pool
            for i in range(0, t, size):
                part = slice(i, i + size)
                n = len(range(t)[part])
                o, chunked = cpu.attention(
                    qkv[part],
                    chunked,
                    positions[part],
                    slots[part],
                    table,
                    _rows(n),
                    *rope,
                    **options,  # type: ignore[arg-type]
                )
                out.append(np.asarray(o))
            assert np.array_equal(np.concatenate(out), np.asarray(whole)), f"chunks of {size}"
            assert np.array_equal(np.asarray(chunked), np.asarray(after))
    finally:
        cpu.set_threads(before)
    order = np.argsort(-np.asarray(slots), kind="stable")
    o, swapped = cpu.attention(
        qkv[order],
        pool,
        positions[order],
        slots[order],
        table,
        _rows(t),
        *rope,
        **options,  # type: ignore[arg-type]
    )
    assert np.array_equal(np.asarray(o), np.asarray(whole)[order])
    assert np.array_equal(np.asarray(swapped), np.asarray(after))


def test_page_places_do_not_matter() -> None:
    """The same window on other physical pages gives the same bits."""
    (qkv, pool, positions, slots, table), rope, options = _problem(Case(), np.random.default_rng(5))
    t = _rows(qkv.shape[0])
    out, _ = cpu.attention(qkv, pool, positions, slots, table, t, *rope, **options)  # type: ignore[arg-type]
    move = np.random.default_rng(6).permutation(pool.shape[0])
    moved = jnp.zeros_like(pool).at[move].set(pool)
    again, _ = cpu.attention(
        qkv,
        moved,
        positions,
        slots,
        jnp.asarray(move[np.asarray(table)], jnp.int32),
        t,
        *rope,
        **options,  # type: ignore[arg-type]
    )
    assert np.array_equal(np.asarray(out), np.asarray(again))


def test_unwritten_positions_are_never_read() -> None:
    """NaN in freed pages, and in the slots past each process's last token, reaches nobody."""
    (qkv, pool, positions, slots, table), rope, options = _problem(Case(half=False), np.random.default_rng(8))
    t = _rows(qkv.shape[0])
    out, _ = cpu.attention(qkv, pool, positions, slots, table, t, *rope, **options)  # type: ignore[arg-type]
    poisoned = np.full_like(np.asarray(pool), np.nan)
    for slot, last in ((0, 530), (1, 1250), (2, 70)):
        at = np.arange(last + 1)
        pages, places = np.asarray(table)[slot][at // 16], at % 16
        poisoned[pages, places] = np.asarray(pool)[pages, places]
    again, _ = cpu.attention(qkv, jnp.asarray(poisoned), positions, slots, table, t, *rope, **options)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(out), np.asarray(again))


def test_padding_rows_touch_nothing() -> None:
    (qkv, pool, positions, slots, table), rope, options = _problem(Case(), np.random.default_rng(9))
    bad = positions.at[5:].set(10**6)
    out, after = cpu.attention(qkv, pool, bad, slots.at[5:].set(-3), table, _rows(5), *rope, **options)  # type: ignore[arg-type]
    few, few_after = cpu.attention(
        qkv[:5],
        pool,
        positions[:5],
        slots[:5],
        table,
        _rows(5),
        *rope,
        **options,  # type: ignore[arg-type]
    )
    assert np.array_equal(np.asarray(out)[:5], np.asarray(few))
    assert np.array_equal(np.asarray(after), np.asarray(few_after))


def test_a_donated_pool_is_updated_in_place() -> None:
    (qkv, pool, positions, slots, table), rope, options = _problem(Case(), np.random.default_rng(10))

    def step(pool: jax.Array) -> tuple[jax.Array, jax.Array]:
        return cpu.attention(qkv, pool, positions, slots, table, _rows(qkv.shape[0]), *rope, **options)  # type: ignore[arg-type]

    donating = jax.jit(step, donate_argnums=0)
    pool = jax.block_until_ready(pool + jnp.zeros((), pool.dtype))
    where = pool.unsafe_buffer_pointer()
    _, after = donating(pool)
    assert after.unsafe_buffer_pointer() == where


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": 1280}, "past the rope table"),
        ({"positions": -1}, "past the rope table"),
        ({"slots": 3}, "not a row of the page table"),
        ({"table": -1}, "not in the pool"),
        ({"table": 10**6}, "not in the pool"),
    ],
)
def test_indices_out_of_range_are_errors(change: dict[str, int], message: str) -> None:
    (qkv, pool, positions, slots, table), rope, options = _problem(Case(), np.random.default_rng(11))
    arrays = {"positions": positions, "slots": slots, "table": table.reshape(-1)}
    for name, value in change.items():
        arrays[name] = arrays[name].at[0].set(value)
    with pytest.raises(REFUSED, match=message):
        jax.block_until_ready(
            cpu.attention(
                qkv, pool, arrays["positions"], arrays["slots"], arrays["table"].reshape(table.shape),
                _rows(qkv.shape[0]), *rope, **options,  # type: ignore[arg-type]
            )
        )  # fmt: skip
