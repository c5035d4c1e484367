"""From a weights file to a decoder in memory.

What: `load_model` reads the description, packs every matrix for the device and the numeric mode, and builds
    the decoder.
Invariant: every parameter of the description is present and has the shape it implies, or CorruptWeights says
    which is not. Matrices are converted one at a time, straight from the mapped file: there is never a second
    copy of all weights.
Interface: `load_model(weights, mode=…, backend=…, window=…) -> Model`; `Mode`, `Backend`, `Model`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llmos.abi.errors import CorruptWeights
from llmos.drivers import cpu
from llmos.kernel.model import xla_ops
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.names import tensor_name
from llmos.kernel.model.rope import rope_tables

if TYPE_CHECKING:
    from llmos.drivers.weights import Tensor, Weights
    from llmos.kernel.model.decoder import Ops

Mode = Literal["native", "bf16", "f32"]
NUMERICS = 2  # of the CPU kernels: raised with every change of rounding, so that no KV of another's is shared
Backend = Literal["cpu", "gpu", "tpu", "xla"]  # each has its module of operations, `<backend>_ops`


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder ready to run: its static half `graph`, its arrays, and the identity of its numerics."""

    config: ModelConfig
    graph: Any  # nnx.GraphDef[Decoder]
    state: Any  # nnx.State: arrays only
    identity: str  # of weights, mode and kernels: equal identity means bit-equal KV
    backend: Backend
    mode: Mode

    @property
    def pool_type(self) -> Any:
        """The type of the pool's numbers. On CPU bf16 is stored as its bits: XLA:CPU copies a donated bf16 pool."""
        if self.mode == "f32":
            return jnp.float32
        return jnp.bfloat16 if self.backend in ("gpu", "tpu") else jnp.uint16

    @property
    def slot_shape(self) -> tuple[int, int, int]:
        """What one token takes in a layer's pool: [K, 2, H], padded where the device wants it so."""
        if self.backend == "tpu":
            from llmos.kernel.model.tpu_ops import slot_shape

            return slot_shape(self.config.kv_heads, self.config.head_dim)
        return self.config.kv_heads, 2, self.config.head_dim


def default_backend() -> Backend:
    """What fits the device that JAX found: an accelerator's operations, our CPU kernels where they are built,
    else plain XLA."""
    device = jax.default_backend()
    if device == "cpu":
        return "cpu" if cpu.available() else "xla"
    return "gpu" if device == "gpu" else "tpu" if device == "tpu" else "xla"


def operations(backend: Backend) -> Ops:
    """The module of operations of a backend."""
    return import_module(f"llmos.kernel.model.{backend}_ops")


def load_model(
    weights: Weights,
    *,
    mode: Mode = "native",
    backend: Backend | None = None,
    window: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Model:
    """Load a decoder.

    Args:
        weights: an opened GGUF file or Hugging Face folder.
        mode: "native" keeps the file's own blocks (activations quantised per block of 32; plain XLA holds
            bf16); "bf16" and "f32" widen everything to that type.
        backend: None chooses by the machine.
        window: positions to make rotary tables for; 0 means the model's whole context.
        progress: called with (bytes done, bytes in all).

    Raises:
        UnsupportedModel, CorruptWeights.
    """
    backend = backend or default_backend()
    config = ModelConfig.from_metadata(weights.source, weights.metadata, weights.tensors.keys())
    loader = _Loader(weights, config, mode, backend, progress)
    with ThreadPoolExecutor(1) as packer:
        packed = packer.submit(loader.parameters, min(window, config.context) if window else config.context)
        # Packing is C++ that holds no lock: half a second of imports runs meanwhile.
        from flax import nnx

        from llmos.kernel.model.decoder import Decoder

        parameters = packed.result()
    graph, state = nnx.split(Decoder(config, parameters, operations(backend)))
    kernels = f"{cpu.isa()}-{NUMERICS}" if backend == "cpu" else f"{backend}-{jax.default_backend()}"
    return Model(config, graph, state, f"{weights.identity}/{mode}/{kernels}", backend, mode)


class _Loader:
    """One pass over a weights file."""

    def __init__(
        self,
        weights: Weights,
        config: ModelConfig,
        mode: Mode,
        backend: Backend,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.weights, self.config, self.mode, self.backend = weights, config, mode, backend
        self.progress = progress
        self.done, self.total = 0, sum(t.data.nbytes for t in weights.tensors.values())

    def parameters(self, positions: int) -> dict[str, Any]:
        """Everything `Decoder` wants, named as there."""
        c = self.config
        embed = self.matrix("embed", None, (c.vocab, c.dim))
        tied = self._name("head", None) not in self.weights.tensors
        head = None if tied else self.matrix("head", None, (c.vocab, c.dim))
        layers = [self.layer(i) for i in range(c.layers)]
        factors = self._find("rope_factors", None)
        bases = list(dict.fromkeys((c.layer(i).rope_theta, c.layer(i).rope_scaling) for i in range(c.layers)))
        ropes = [
            tuple(
                jnp.asarray(table)
                for table in rope_tables(
                    theta, scaling, None if factors is None else factors.dequantise(), c.head_dim, positions
                )
            )
            for theta, scaling in bases
        ]
        return {
            "embed": embed,
            "head": head,
            "final_norm": self.vector("final_norm", None, c.dim, c.norm_offset),
            "layers": layers,
            "ropes": ropes,
            "rope_of_layer": [
                bases.index((c.layer(i).rope_theta, c.layer(i).rope_scaling)) for i in range(c.layers)
            ],
        }

    def layer(self, i: int) -> dict[str, Any]:
        """The parameters of layer `i`."""
        c = self.config
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        p: dict[str, Any] = {
            "attn_norm": self.vector("attn_norm", i, c.dim, c.norm_offset),
            "q": self.matrix("q", i, (q, c.dim), self._rotary_rows(c.heads)),
            "k": self.matrix("k", i, (kv, c.dim), self._rotary_rows(c.kv_heads)),
            "v": self.matrix("v", i, (kv, c.dim)),
            "o": self.matrix("o", i, (c.dim, q)),
            "mlp_norm": self.vector("mlp_norm", i, c.dim, c.norm_offset),
            "gate": self.matrix("gate", i, (c.ffn, c.dim)),
            "up": self.matrix("up", i, (c.ffn, c.dim)),
            "down": self.matrix("down", i, (c.dim, c.ffn)),
        }
        if self._find("q_bias", i) is not None:
            p["qkv_bias"] = jnp.concatenate(
                [
                    self.vector("q_bias", i, q, rows=self._rotary_rows(c.heads)),
                    self.vector("k_bias", i, kv, rows=self._rotary_rows(c.kv_heads)),
                    self.vector("v_bias", i, kv),
                ]
            )
        if c.qk_norm:
            p["q_norm"] = self.vector("q_norm", i, c.head_dim, c.norm_offset)
            p["k_norm"] = self.vector("k_norm", i, c.head_dim, c.norm_offset)
        if c.post_norms:
            p["post_attn_norm"] = self.vector("post_attn_norm", i, c.dim, c.norm_offset)
            p["post_mlp_norm"] = self.vector("post_mlp_norm", i, c.dim, c.norm_offset)
        return p

    def matrix(self, ours: str, layer: int | None, shape: tuple[int, int], rows: Any = None) -> Any:
        """A weight matrix (N out, K in) in the device's own form, its rows reordered by `rows`."""
        tensor = self._get(ours, layer, shape)
        raw = tensor.data.reshape(shape[0], -1)
        raw = raw if rows is None else raw[rows]
        weight: Any
        if self.backend == "cpu":
            weight = cpu.pack(raw, tensor.type, shape, format=None if self.mode == "native" else self.mode)
        else:
            dense = tensor.dequantise()
            dense = dense if rows is None else dense[rows]
            weight = xla_ops.Dense(jnp.asarray(dense, jnp.float32 if self.mode == "f32" else jnp.bfloat16))
        self._tick(tensor)
        return weight

    def vector(
        self, ours: str, layer: int | None, size: int, offset: float = 0.0, rows: Any = None
    ) -> jax.Array:
        """A norm weight or bias as f32 [size]."""
        tensor = self._get(ours, layer, (size,))
        values = tensor.dequantise().astype(np.float32) + np.float32(offset)
        self._tick(tensor)
        return jnp.asarray(values if rows is None else values[rows])

    def _rotary_rows(self, heads: int) -> Any:
        """The row order that turns adjacent rotary pairs into half-split ones, or None."""
        if not self.config.interleaved_rope:
            return None
        h = self.config.head_dim
        return np.arange(heads * h).reshape(heads, h // 2, 2).swapaxes(1, 2).reshape(-1)

    def _name(self, ours: str, layer: int | None) -> str:
        return tensor_name(self.weights.source, self.config.family, ours, layer)

    def _find(self, ours: str, layer: int | None) -> Tensor | None:
        return self.weights.tensors.get(self._name(ours, layer))

    def _get(self, ours: str, layer: int | None, shape: tuple[int, ...]) -> Tensor:
        tensor = self._find(ours, layer)
        if tensor is None:
            raise CorruptWeights(
                f"tensor {self._name(ours, layer)!r} is missing",
                why="the file's own description calls for it",
                do="fetch the model again: `llmos models rm` and `pull`",
            )
        if tuple(tensor.shape) != shape:
            raise CorruptWeights(f"tensor {tensor.name!r} has shape {tuple(tensor.shape)}, not {shape}")
        return tensor

    def _tick(self, tensor: Tensor) -> None:
        tensor.forget()
        self.done += tensor.data.nbytes
        if self.progress is not None:
            self.progress(self.done, self.total)
