"""The network of all-MiniLM-L6-v2: a BERT encoder of six layers, in JAX.

What: embedded word pieces of many texts -> what the last layer makes of each. Its matrix products run in 8-bit
    blocks on the CPU kernels ("q8") or as plain XLA in f32 ("f32"); everything else is f32 in both.
Invariant: the two numerics agree to a cosine of 0.998 at least, 0.9997 on average, and are never mixed in one
    index, so `Encoder.identity` names them.
Interface: `MiniLM(weights, numerics)`; `network(rows_ND, lengths, T) -> f32 [N, D]`; `numerics()`, what is best
    here; `check(weights, name)`. jax is imported by `MiniLM` only.

A call holds N // T texts of T rows each. What works token by token is compiled once for each N, only attention
also for each T, so that many lengths cost little compiling. On the kernels rows past the last text cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmos.abi.errors import UnsupportedModel

Floats = npt.NDArray[np.float32]
Numerics = Literal["q8", "f32"]

DIMENSION = 384
HEADS = 12
EPSILON = 1e-12  # of layer normalisation
WORDS = "embeddings.word_embeddings.weight"
PLACES = "embeddings.position_embeddings.weight"
KINDS = "embeddings.token_type_embeddings.weight"
_LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm2": "output.LayerNorm",
}


def numerics() -> Numerics:
    """What is fastest here: 8 bits where JAX computes on a CPU that the kernels were tuned for, else f32."""
    import jax

    from llmos.drivers import cpu

    kernels = jax.default_backend() == "cpu" and cpu.available() and cpu.isa() != "portable"
    return "q8" if kernels else "f32"


def check(weights: Mapping[str, Floats], name: str) -> None:
    """Every tensor that the network reads is there, in the shape that it needs; UnsupportedModel if not."""
    table: dict[str, tuple[int | None, ...]] = {
        WORDS: (None, DIMENSION),
        PLACES: (None, DIMENSION),
        KINDS: (None, DIMENSION),
        "embeddings.LayerNorm.weight": (DIMENSION,),
        "embeddings.LayerNorm.bias": (DIMENSION,),
    }
    wide = {"up": (4 * DIMENSION, DIMENSION), "down": (DIMENSION, 4 * DIMENSION)}
    for layer in range(_layers(weights)):
        for part, path in _LAYER.items():
            square = wide.get(part, (DIMENSION, DIMENSION))
            table[f"encoder.layer.{layer}.{path}.weight"] = (DIMENSION,) if "norm" in part else square
            table[f"encoder.layer.{layer}.{path}.bias"] = square[:1]
    for tensor, shape in table.items():
        have = weights[tensor].shape if tensor in weights else None
        fits = have is not None and len(have) == len(shape)
        if not fits or any(want not in (None, got) for want, got in zip(shape, have or (), strict=True)):
            raise UnsupportedModel(
                f"{name} is not all-MiniLM-L6-v2",
                why=f"tensor {tensor} is {'missing' if have is None else f'{have}, not {shape}'}",
                do="use the catalogue's all-minilm-l6-v2",
            )


def _layers(weights: Mapping[str, Floats]) -> int:
    numbers = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
    return max((int(n) + 1 for n in numbers if n.isdecimal()), default=1)


class MiniLM:
    """The layers, their parameters on the device; call it."""

    def __init__(self, weights: Mapping[str, Floats], numerics: Numerics) -> None:
        import jax
        import jax.numpy as jnp

        linear: Callable[..., Any] = _kernel_linear if numerics == "q8" else _plain_linear

        def matrix(weight: Floats) -> Any:
            if numerics == "f32":
                return jnp.asarray(weight.T)
            from llmos.drivers.cpu import pack

            return pack(np.ascontiguousarray(weight).view(np.uint8), "F32", weight.shape, format="q8")

        def leaves(path: str, parts: Sequence[str]) -> list[Floats]:
            return [
                np.concatenate([weights[f"{path}{p}.{leaf}"] for p in parts]) for leaf in ("weight", "bias")
            ]

        def layer(path: str) -> dict[str, tuple[Any, Any]]:
            joined = {"qkv": ("query", "key", "value")} | {
                p: (p,) for p in ("out", "norm1", "up", "down", "norm2")
            }
            made = {}
            for name, parts in joined.items():
                weight, bias = leaves(path, [_LAYER[p] for p in parts])
                made[name] = (jnp.asarray(weight) if "norm" in name else matrix(weight), jnp.asarray(bias))
            return made

        self._stack = [layer(f"encoder.layer.{n}.") for n in range(_layers(weights))]
        self._norm = tuple(jnp.asarray(leaf) for leaf in leaves("embeddings.", ["LayerNorm"]))
        self._enter = jax.jit(_normalise)
        self._project = jax.jit(lambda x_ND, p, rows: linear(x_ND, *p, rows))
        self._attend = jax.jit(_attend, static_argnames="T")
        self._rest = jax.jit(partial(_rest, linear))

    def __call__(self, rows_ND: Floats, lengths: Sequence[int], T: int) -> Floats:
        """Run the layers.

        Args:
            rows_ND: word plus place plus kind embeddings, text k at rows [k * T, k * T + lengths[k]).
            lengths: of each text; there may be fewer than N // T. What is returned for other rows is undefined.
            T: rows that each text has, at most N.
        """
        rows = np.int32(len(lengths) * T)
        lengths_B = np.ones(len(rows_ND) // T, np.int32)
        lengths_B[: len(lengths)] = lengths
        x_ND = self._enter(rows_ND, self._norm)
        for layer in self._stack:
            mixed_ND = self._attend(self._project(x_ND, layer["qkv"], rows), lengths_B, T=T)
            x_ND = self._rest(x_ND, mixed_ND, layer, rows)
        return np.asarray(x_ND)


def _plain_linear(x_ND: Any, weight: Any, bias: Any, rows: Any, residual: Any = None) -> Any:
    y = x_ND @ weight + bias[None]
    return y if residual is None else y + residual


def _kernel_linear(x_ND: Any, weight: Any, bias: Any, rows: Any, residual: Any = None) -> Any:
    from llmos.drivers.cpu import linear

    return linear(x_ND, [weight], rows, bias=bias, residual=residual)


def _normalise(x_ND: Any, p: tuple[Any, Any]) -> Any:
    import jax

    centred = x_ND - x_ND.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * p[0][None] + p[1][None]


def _attend(qkv: Any, lengths_B: Any, T: int) -> Any:
    """Every token of a text looks at all of it. Keys are laid out [H, T] first: XLA:CPU is twice as fast so."""
    import jax.numpy as jnp

    N, D, H = len(qkv), DIMENSION, DIMENSION // HEADS
    B = N // T
    hide_B11T = jnp.where(jnp.arange(T)[None, :] < lengths_B[:, None], 0.0, -1e30)[:, None, None, :]
    parts = qkv[: B * T].reshape(B, T, 3, HEADS, H)
    q_BKTH = (parts[:, :, 0] * H**-0.5).transpose(0, 2, 1, 3)
    k_BKHT = parts[:, :, 1].transpose(0, 2, 3, 1)
    v_BKTH = parts[:, :, 2].transpose(0, 2, 1, 3)
    scores = q_BKTH @ k_BKHT + hide_B11T
    likely = jnp.exp(scores - scores.max(-1, keepdims=True))
    mixed = (likely @ v_BKTH) / likely.sum(-1, keepdims=True)
    return jnp.pad(mixed.transpose(0, 2, 1, 3).reshape(B * T, D), ((0, N - B * T), (0, 0)))


def _rest(linear: Callable[..., Any], x_ND: Any, mixed_ND: Any, p: Any, rows: Any) -> Any:
    """What follows attention in a layer: its output, and the feed-forward net."""
    import jax

    x_ND = _normalise(linear(mixed_ND, *p["out"], rows, x_ND), p["norm1"])
    up_NF = jax.nn.gelu(linear(x_ND, *p["up"], rows), approximate=False)
    return _normalise(linear(up_NF, *p["down"], rows, x_ND), p["norm2"])
