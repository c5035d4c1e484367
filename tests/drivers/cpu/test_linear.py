"""Products of packed weights: bound to the reference, and to the row contract bit by bit."""

from __future__ import annotations

import ctypes

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llmos.abi.errors import CorruptWeights, UnsupportedModel
from llmos.drivers import cpu
from llmos.drivers.cpu import library, reference
from llmos.drivers.cpu.packing import FORMATS
from tests.drivers.cpu.blocks import QUANTISED, TYPES, dense, random_tensor

pytestmark = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels are not built")

REFUSED = (ValueError, jax.errors.JaxRuntimeError)  # an argument that XLA calls invalid, eagerly or in a step

ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100)


def _rows(n: int) -> jax.Array:
    return jnp.asarray(n, jnp.int32)


def _x(rng: np.random.Generator, t: int, k: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal((t, k)), jnp.float32)


def _close(got: jax.Array, want: np.ndarray, tolerance: float = 3e-6) -> None:
    scale = float(np.max(np.abs(np.asarray(want))))
    assert np.max(np.abs(np.asarray(got) - np.asarray(want))) <= tolerance * max(scale, 1e-30)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("shape", [(37, 512), (8, 256), (1, 768)])
def test_packing_keeps_the_weights(rng: np.random.Generator, type: str, shape: tuple[int, int]) -> None:
    raw = random_tensor(rng, type, *shape)
    packed = cpu.pack(raw, type, shape)
    want = dense(raw, type)
    # Only the K-quants' products of two scales are rounded (to f16); everything else is exact.
    bound = 1e-3 if type.endswith("_K") else 0.0
    assert np.max(np.abs(reference.unpack(packed) - want)) <= bound * np.max(np.abs(want))
    assert packed.data.nbytes == library.library().llmos_packed_bytes(FORMATS.index(packed.format), *shape)


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("format", ["f32", "bf16"])
def test_any_type_dequantises_to_floats(rng: np.random.Generator, type: str, format: str) -> None:
    raw = random_tensor(rng, type, 13, 512)
    got, want = reference.unpack(cpu.pack(raw, type, (13, 512), format=format)), dense(raw, type)
    assert np.max(np.abs(got - want)) <= (2e-7 if format == "f32" else 2.0**-8) * np.max(np.abs(want))


def test_k_quants_with_tiny_scales_keep_their_precision(rng: np.random.Generator) -> None:
    raw = random_tensor(rng, "Q4_K", 8, 256)
    raw.reshape(8, 1, 144)[:, :, 0:4] = np.full((8, 1, 2), 2e-7, np.float16).view(np.uint8)  # subnormal f16
    got, want = reference.unpack(cpu.pack(raw, "Q4_K", (8, 256))), dense(raw, "Q4_K")
    assert np.max(np.abs(got - want)) <= 1e-3 * np.max(np.abs(want))


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize(("n", "k"), [(37, 512), (16, 768), (5, 256)])
def test_every_format_equals_the_reference(rng: np.random.Generator, type: str, n: int, k: int) -> None:
    w = cpu.pack(random_tensor(rng, type, n, k), type, (n, k))
    for t in (1, 4, 9):
        x = _x(rng, t, k)
        _close(cpu.linear(x, [w], _rows(t)), reference.linear(x, [w], _rows(t)))


@pytest.mark.parametrize("type", ["F32", "F16", "BF16"])
def test_float_weights_take_any_number_of_inputs(rng: np.random.Generator, type: str) -> None:
    w = cpu.pack(random_tensor(rng, type, 11, 45), type, (11, 45))
    x = _x(rng, 6, 45)
    norm = jnp.asarray(rng.uniform(0.5, 1.5, 45), jnp.float32)
    _close(cpu.linear(x, [w], _rows(6), norm=norm), reference.linear(x, [w], _rows(6), norm=norm))


@pytest.mark.parametrize("type", TYPES)
def test_row_contract(rng: np.random.Generator, type: str) -> None:
    """A row has the same bits alone, among any number of rows, at any place, on any number of threads."""
    n, k = 67, 512
    w = cpu.pack(random_tensor(rng, type, n, k), type, (n, k))
    norm = jnp.asarray(rng.uniform(0.5, 1.5, k), jnp.float32)
    x = _x(rng, 100, k)
    widest = np.asarray(cpu.linear(x, [w], _rows(100), norm=norm))
    for t in ROWS:
        start = (100 - t) // 2
        got = np.asarray(cpu.linear(x[start : start + t], [w], _rows(t), norm=norm))
        assert np.array_equal(got, widest[start : start + t]), f"{t} rows"
    padded = np.asarray(cpu.linear(x, [w], _rows(9), norm=norm))
    assert np.array_equal(padded[:9], widest[:9])


@pytest.mark.parametrize("type", TYPES)
def test_centred_activations(rng: np.random.Generator, type: str) -> None:
    """Behind a norm and for weights side by side: near the reference, and the row contract, with one-sided channels."""
    k = 512
    weights = [cpu.pack(random_tensor(rng, type, n, k), type, (n, k)) for n in (37, 16)]
    norm = jnp.asarray(rng.uniform(0.5, 1.5, k), jnp.float32)
    x = _x(rng, 100, k).at[:, ::100].add(20.0)
    widest = np.asarray(cpu.linear(x, weights, _rows(100), norm=norm))
    _close(jnp.asarray(widest[:16]), reference.linear(x[:16], weights, _rows(16), norm=norm), 1e-5)
    for t in ROWS:
        start = (100 - t) // 2
        got = np.asarray(cpu.linear(x[start : start + t], weights, _rows(t), norm=norm))
        assert np.array_equal(got, widest[start : start + t]), f"{t} rows"


def test_about_the_middle_one_sided_blocks_keep_more(rng: np.random.Generator) -> None:
    x = np.asarray(_x(rng, 50, 64).at[:, ::32].add(20.0))
    error = [np.mean((reference.quantise(x, middle) - x) ** 2) for middle in (False, True)]
    assert error[1] < 0.4 * error[0]
    constant = np.full((1, 32), 3.7, np.float32)
    assert np.array_equal(reference.quantise(constant, True), constant)


def test_threads_do_not_change_a_bit(rng: np.random.Generator) -> None:
    k = 2048
    w = [cpu.pack(random_tensor(rng, t, 515, k), t, (515, k)) for t in ("Q5_0", "Q6_K", "BF16")]
    x = _x(rng, 24, k)
    before = library.threads()
    results = []
    try:
        for n in (1, 2, 5):
            cpu.set_threads(n)
            assert library.threads() == n
            results.append(np.asarray(cpu.linear(x, w, _rows(24))))
    finally:
        cpu.set_threads(before)
    assert all(np.array_equal(r, results[0]) for r in results[1:])


def test_mixed_formats_side_by_side(rng: np.random.Generator) -> None:
    k = 256
    shapes = (("Q5_0", 33), ("Q5_0", 8), ("Q8_0", 7), ("F32", 12), ("Q6_K", 40))
    weights = [cpu.pack(random_tensor(rng, t, n, k), t, (n, k)) for t, n in shapes]
    x, bias = _x(rng, 6, k), jnp.asarray(rng.standard_normal(100), jnp.float32)
    got = cpu.linear(x, weights, _rows(6), bias=bias)
    _close(got, reference.linear(x, weights, _rows(6), bias=bias))
    alone = jnp.concatenate([cpu.linear(x, [w], _rows(6)) for w in weights], axis=1)
    assert np.array_equal(np.asarray(got), np.asarray(alone + bias[None]))


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize("types", [("Q5_0", "Q5_0"), ("Q4_K", "Q6_K"), ("BF16", "BF16")])
@pytest.mark.parametrize("f", [64, 45])
def test_gated_activation(rng: np.random.Generator, activation: str, types: tuple[str, str], f: int) -> None:
    k = 256
    weights = [cpu.pack(random_tensor(rng, t, f, k), t, (f, k)) for t in types]
    norm = jnp.asarray(rng.uniform(0.5, 1.5, k), jnp.float32)
    bias = jnp.asarray(rng.standard_normal(2 * f), jnp.float32)
    residual = _x(rng, 9, f)
    for t in (1, 9):
        kw = {"norm": norm, "bias": bias, "residual": residual[:t], "activation": activation}
        x = _x(rng, t, k)
        got, want = cpu.linear(x, weights, _rows(t), **kw), reference.linear(x, weights, _rows(t), **kw)  # type: ignore[arg-type]
        _close(got, want, 1e-5)


def test_residual_is_added(rng: np.random.Generator) -> None:
    w = cpu.pack(random_tensor(rng, "Q4_1", 96, 288), "Q4_1", (96, 288))
    x, residual = _x(rng, 5, 288), _x(rng, 5, 96)
    got = cpu.linear(x, [w], _rows(5), residual=residual)
    assert np.array_equal(np.asarray(got), np.asarray(residual + cpu.linear(x, [w], _rows(5))))


@pytest.mark.parametrize("type", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q8_0"])
def test_edge_values(rng: np.random.Generator, type: str) -> None:
    """Zeros, denormals, large values and the extreme codes give what the reference gives: nothing saturates."""
    n, k = 16, 256
    raw = random_tensor(rng, type, n, k)
    raw[:] = np.where(rng.random((n, 1)) < 0.5, 255, raw)  # all-ones codes in half of the rows
    width = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q6_K": 210, "Q8_0": 34}[type]
    blocks = raw.reshape(n, -1, width)
    at = 208 if type == "Q6_K" else 0
    blocks[:, :, at : at + 2] = np.full((n, blocks.shape[1], 1), 0.01, np.float16).view(np.uint8)
    if type in ("Q4_1", "Q5_1"):
        blocks[:, :, 2:4] = np.full((n, blocks.shape[1], 1), -0.1, np.float16).view(np.uint8)
    if type == "Q8_0":
        blocks[0, :, 2:] = 128  # -128, which GGUF's own quantiser never writes
    w = cpu.pack(raw, type, (n, k))
    for row in (
        np.zeros(k), np.full(k, 1e-40), np.full(k, 1e4), np.full(k, -1.0),
        np.where(np.arange(k) % 2, 1e4, -1e4), np.where(np.arange(k) < 32, 1e4, 1e-4),
    ):  # fmt: skip
        x = jnp.asarray(row, jnp.float32)[None]
        got = np.asarray(cpu.linear(x, [w], _rows(1)))
        assert np.all(np.isfinite(got))
        want = np.asarray(reference.quantise(x), np.float64) @ reference.unpack(w).astype(np.float64).T
        size = np.abs(np.asarray(x, np.float64)) @ np.abs(reference.unpack(w).astype(np.float64)).T
        assert np.all(np.abs(got - want) <= 1e-5 * size + 1e-30)


@pytest.mark.parametrize("type", ["Q5_0", "Q6_K", "F32"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_nan_poisons_its_own_row_only(rng: np.random.Generator, type: str, poison: float) -> None:
    w = cpu.pack(random_tensor(rng, type, 40, 256), type, (40, 256))
    x = np.array(_x(rng, 6, 256))
    clean = np.asarray(cpu.linear(jnp.asarray(x), [w], _rows(6)))
    x[2, 100] = poison
    got = np.asarray(cpu.linear(jnp.asarray(x), [w], _rows(6)))
    assert not np.any(np.isfinite(got[2]))
    others = [0, 1, 3, 4, 5]
    assert np.array_equal(got[others], clean[others])


@pytest.mark.parametrize("type", TYPES)
def test_embed_reads_the_rows(rng: np.random.Generator, type: str) -> None:
    w = cpu.pack(random_tensor(rng, type, 51, 512), type, (51, 512))
    tokens = jnp.asarray([0, 50, 7, 8, 7], jnp.int32)
    got = np.asarray(cpu.embed(tokens, w, _rows(5)))
    assert np.array_equal(got, reference.unpack(w)[np.asarray(tokens)])
    assert np.array_equal(np.asarray(cpu.embed(tokens, w, _rows(5), scale=3.0)), got * np.float32(3.0))


def test_rms_norm(rng: np.random.Generator) -> None:
    x, other = _x(rng, 33, 576), _x(rng, 33, 576)
    weight = jnp.asarray(rng.uniform(0.5, 1.5, 576), jnp.float32)
    got = cpu.rms_norm(x, weight, _rows(33), residual=other, eps=1e-5)
    _close(got, reference.rms_norm(x, weight, _rows(33), residual=other, eps=1e-5))
    one = np.asarray(cpu.rms_norm(x[7:8], weight, _rows(1), residual=other[7:8], eps=1e-5))
    assert np.array_equal(one[0], np.asarray(got)[7])


def test_wrong_arguments_are_errors(rng: np.random.Generator) -> None:
    raw = random_tensor(rng, "Q4_0", 16, 64)
    w = cpu.pack(raw, "Q4_0", (16, 64))
    x = _x(rng, 2, 64)
    with pytest.raises(CorruptWeights, match="whole blocks"):
        cpu.pack(raw[:, :-1], "Q4_0", (16, 64))
    with pytest.raises(CorruptWeights):
        cpu.pack(raw, "Q4_0", (16, 63))
    with pytest.raises(UnsupportedModel):
        cpu.pack(raw, "IQ2_XS", (16, 64))
    with pytest.raises(ValueError, match="cannot be packed"):
        cpu.pack(raw, "Q4_0", (16, 64), format="q6")
    for bad in (3, -1):
        with pytest.raises(REFUSED, match="rows"):
            jax.block_until_ready(cpu.linear(x, [w], _rows(bad)))
    with pytest.raises(REFUSED, match="inputs"):
        jax.block_until_ready(cpu.linear(_x(rng, 2, 32), [w], _rows(2)))
    forged = cpu.Packed(w.data[:-1], w.format, w.shape)
    with pytest.raises(REFUSED, match="wrong size"):
        jax.block_until_ready(cpu.linear(x, [forged], _rows(2)))
    with pytest.raises(REFUSED, match="vocabulary"):
        jax.block_until_ready(cpu.embed(jnp.asarray([16], jnp.int32), w, _rows(1)))


def test_quantising_floats_to_eight_bits(rng: np.random.Generator) -> None:
    raw = random_tensor(rng, "F32", 24, 96)
    got, want = reference.unpack(cpu.pack(raw, "F32", (24, 96), format="q8")), dense(raw, "F32")
    assert np.max(np.abs(got - want)) <= np.max(np.abs(want)) / 200


def test_every_quantised_type_has_a_format() -> None:
    from llmos.drivers.cpu.packing import NATIVE

    assert all(NATIVE[t].startswith("q") for t in QUANTISED)
    assert isinstance(library.library(), ctypes.CDLL)
    assert cpu.isa() in ("portable", "avx2", "avx512vnni")
