"""The sampler in plain JAX means what the kernels' reference means."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.drivers.cpu import reference
from llmos.kernel.engine.xla_sampler import sample

PARAMETERS = [
    {},
    dict(temperature=0.0, penalty=1.7),
    dict(top_k=1),
    dict(top_k=12, temperature=1.5),
    dict(top_p=0.6),
    dict(top_p=0.9, top_k=40, min_p=0.02),
    dict(min_p=0.3, temperature=2.0),
    dict(min_p=1.0),
    dict(penalty=1.4, top_p=0.95, temperature=0.7),
]
VOCAB = 300
compiled = jax.jit(sample, static_argnames="top")


def columns(parameters: dict[str, float], rows: int) -> dict[str, np.ndarray]:
    row = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, penalty=1.0) | parameters
    return {k: np.full(rows, v, np.int32 if k == "top_k" else np.float32) for k, v in row.items()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_draws_what_the_reference_draws(parameters: dict[str, float], masked: bool) -> None:
    rng, rows = np.random.default_rng(4), 64
    logits = rng.normal(0, 3, (rows, VOCAB)).astype(np.float32).round(1)  # rounded: there are equals
    u = rng.random(rows, np.float32)
    recent = np.full((rows, 16), -1, np.int32)
    recent[:, :5] = rng.integers(0, VOCAB, (rows, 5))
    allowed = rng.random((rows, VOCAB)) < 0.3
    padded = np.pad(allowed, ((0, 0), (0, -VOCAB % 32)))
    mask = np.packbits(padded, axis=1, bitorder="little").view(np.uint32) if masked else None
    tokens, logprobs, ids, tops = compiled(
        logits, np.int32(rows), u, recent=recent, mask=mask, top=4, **columns(parameters, rows)
    )
    expected = [
        reference.sample_row(
            logits[i], u[i], recent=recent[i].tolist(), allowed=allowed[i] if masked else None,
            **({"temperature": 1.0} | parameters),  # type: ignore[arg-type]
        )
        for i in range(rows)
    ]  # fmt: skip
    np.testing.assert_array_equal(tokens, expected)
    norm = np.log(np.exp(logits.astype(np.float64)).sum(1))
    np.testing.assert_allclose(logprobs, logits[np.arange(rows), expected] - norm, atol=1e-5)
    np.testing.assert_allclose(tops, -np.sort(-logits, axis=1)[:, :4] - norm[:, None], atol=1e-5)
    np.testing.assert_array_equal(np.take_along_axis(logits, np.asarray(ids), 1)[:, 0], logits.max(1))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_possible_is_minus_one(temperature: float) -> None:
    logits = np.zeros((3, VOCAB), np.float32)
    logits[0, 7] = np.nan
    logits[1] = -np.inf
    tokens, *_ = compiled(
        jnp.asarray(logits), np.int32(3), np.full(3, 0.999, np.float32), recent=np.full((3, 4), -1, np.int32),
        top=0, **columns({"temperature": temperature}, 3),
    )  # fmt: skip
    assert tokens[0] == tokens[1] == -1 and tokens[2] >= 0
