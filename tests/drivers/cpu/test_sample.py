"""The sampler against a plain sort in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.drivers import cpu
from llmos.drivers.cpu import reference

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")


def _draw(
    logits: np.ndarray, *, u: object = 0.5, temperature: object = 1.0, top_k: object = 0, top_p: object = 1.0,
    min_p: object = 0.0, penalty: object = 1.0, recent: np.ndarray | None = None, mask: np.ndarray | None = None,
    forced: np.ndarray | None = None, top: int = 0, rows: int | None = None,
) -> tuple[np.ndarray, ...]:  # fmt: skip
    b = logits.shape[0]

    def each(value: object, type: object) -> jax.Array:
        return jnp.asarray(np.broadcast_to(np.asarray(value), (b,)), type)

    got = cpu.sample(
        jnp.asarray(logits, jnp.float32), jnp.asarray(b if rows is None else rows, jnp.int32), each(u, jnp.float32),
        temperature=each(temperature, jnp.float32), top_k=each(top_k, jnp.int32), top_p=each(top_p, jnp.float32),
        min_p=each(min_p, jnp.float32), penalty=each(penalty, jnp.float32),
        recent=jnp.full((b, 1), -1, jnp.int32) if recent is None else jnp.asarray(recent, jnp.int32),
        mask=None if mask is None else jnp.asarray(mask),
        forced=None if forced is None else jnp.asarray(forced, jnp.int32),
        top=top,
    )  # fmt: skip
    return tuple(np.asarray(a) for a in got)


def _bits(allowed: np.ndarray) -> np.ndarray:
    """bool [B, V] -> uint32 [B, ceil(V / 32)]."""
    padded = np.zeros((allowed.shape[0], -(-allowed.shape[1] // 32) * 32), bool)
    padded[:, : allowed.shape[1]] = allowed
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint32)


@pytest.mark.parametrize("vocabulary", [1, 7, 8, 33, 1000, 5003])
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 30.0])
def test_equals_a_plain_sort(vocabulary: int, spread: float) -> None:
    rng = np.random.default_rng([vocabulary, int(spread * 10)])
    for trial in range(12):
        b = 4
        logits = (rng.standard_normal((b, vocabulary)) * spread).astype(np.float32)
        if trial % 3 == 0:
            logits = np.round(logits)  # many ties
        values = {
            "temperature": rng.choice([0, 0.3, 1, 2.5], b).astype(np.float32),
            "top_k": rng.choice([0, 1, 5, 40, 100000], b),
            "top_p": rng.choice([1, 0.95, 0.5, 0.01], b).astype(np.float32),
            "min_p": rng.choice([0, 0.05, 0.5, 1], b).astype(np.float32),
            "penalty": rng.choice([1, 1.3], b).astype(np.float32),
        }
        u = rng.random(b).astype(np.float32)
        recent = rng.integers(-1, vocabulary, (b, 6))
        allowed = rng.random((b, vocabulary)) < rng.choice([0.02, 0.5, 1.0])
        mask = _bits(allowed) if trial % 2 else None
        tokens, logprobs, ids, tops = _draw(logits, u=u, recent=recent, mask=mask, top=5, **values)
        log_softmax = np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))
        for i in range(b):
            want = reference.sample_row(
                logits[i], float(u[i]), temperature=float(values["temperature"][i]), top_k=int(values["top_k"][i]),
                top_p=float(values["top_p"][i]), min_p=float(values["min_p"][i]), penalty=float(values["penalty"][i]),
                recent=recent[i].tolist(), allowed=allowed[i] if trial % 2 else None,
            )  # fmt: skip
            assert tokens[i] == want, {k: v[i] for k, v in values.items()}
            if want >= 0:
                assert abs(logprobs[i] - log_softmax[i, want]) < 1e-4
            best = np.lexsort((np.arange(vocabulary), -logits[i]))[:5]
            assert ids[i][: len(best)].tolist() == best.tolist()
            assert np.allclose(tops[i][: len(best)], log_softmax[i][best], atol=1e-4)


def test_greedy_takes_the_lowest_id_of_equals() -> None:
    logits = np.zeros((1, 100), np.float32)
    logits[0, [17, 40, 99]] = 3.0
    assert _draw(logits, temperature=0.0)[0].tolist() == [17]


def test_draws_follow_the_distribution() -> None:
    probabilities = np.array([0.5, 0.25, 0.125, 0.125])
    u = (np.arange(1024) + 0.5) / 1024
    tokens = _draw(np.tile(np.log(probabilities), (1024, 1)), u=u)[0]
    assert np.array_equal(np.bincount(tokens, minlength=4), 1024 * probabilities)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((33, 1003)).astype(np.float32) * 3
    u = rng.random(33)
    together = _draw(logits, u=u, top_p=0.9, top=3)
    for i in (0, 5, 32):
        alone = _draw(logits[i : i + 1], u=u[i], top_p=0.9, top=3)
        assert all(np.array_equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))


def test_forced_tokens_are_taken_with_their_log_probability() -> None:
    logits = np.random.default_rng(3).standard_normal((2, 50)).astype(np.float32)
    tokens, logprobs, *_ = _draw(logits, temperature=0.0, forced=np.array([7, -1]))
    assert tokens[0] == 7
    assert tokens[1] == np.argmax(logits[1])
    assert np.isclose(logprobs[0], np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))[0, 7], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_allowed_or_nan_gives_no_token(temperature: float) -> None:
    logits = np.zeros((3, 40), np.float32)
    logits[1, 3] = np.nan
    logits[2, 3] = np.inf
    mask = _bits(np.stack([np.zeros(40, bool), np.ones(40, bool), np.ones(40, bool)]))
    tokens, logprobs, *_ = _draw(logits, temperature=temperature, mask=mask)
    assert tokens.tolist() == [-1, -1, -1]
    assert np.all(np.isnan(logprobs))


def test_minus_infinity_is_an_impossible_token() -> None:
    logits = np.full((1, 20), -np.inf, np.float32)
    logits[0, 13] = -5.0
    for temperature in (0.0, 1.0):
        tokens, logprobs, *_ = _draw(logits, temperature=temperature)
        assert tokens.tolist() == [13]
        assert logprobs.tolist() == [0.0]


def test_more_alternatives_than_tokens() -> None:
    _, _, ids, tops = _draw(np.zeros((1, 3), np.float32), top=5)
    assert ids.tolist() == [[0, 1, 2, -1, -1]]
    assert np.isnan(tops[0, 3:]).all()
