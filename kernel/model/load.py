"""From a weights file to a decoder in memory.

What: `load_model` chooses the operations of this machine, puts the parameters there and builds the decoder.
Invariant: packed weights are taken as they are, without a copy. Equal `Model.identity` means bit-equal KV.
Interface: `load_model(weights, mode=…, backend=…, window=…) -> Model`; `Mode`, `Backend`, `Model`.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from llmos.drivers import cpu
from llmos.drivers.cpu.packing import PackedArray
from llmos.kernel.model import xla_ops
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.parameters import Form, Mode, Parameters, Progress, Reader, begin_packing

if TYPE_CHECKING:
    from llmos.drivers.weights import Tensor, Weights
    from llmos.kernel.model.decoder import Ops

NUMERICS = 3  # of the CPU kernels: raised with every change of rounding, so that no KV of another's is shared
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
    progress: Progress | None = None,
    packing: Future[Parameters] | None = None,
) -> Model:
    """Load a decoder.

    Args:
        weights: an opened GGUF file or Hugging Face folder.
        mode: "native" keeps the file's own blocks (activations quantised per block of 32; plain XLA holds
            bf16); "bf16" and "f32" widen everything to that type.
        backend: None chooses by the machine.
        window: positions to make rotary tables for; 0 means the model's whole context.
        progress: called with (bytes done, bytes in all).
        packing: what `begin_packing` made of the same weights, mode and window, where it was begun early.

    Raises:
        UnsupportedModel, CorruptWeights.
    """
    backend = backend or default_backend()
    if backend == "cpu":
        packing = packing or begin_packing(weights, mode, window, progress)
    from flax import nnx

    from llmos.kernel.model.decoder import Decoder  # half a second of imports, while C++ packs

    if backend == "cpu" and packing is not None:
        parameters = packing.result()
    else:
        parameters = Reader(weights, _dense(mode), progress).parameters(window)
    config = ModelConfig.from_metadata(weights.source, weights.metadata, weights.tensors.keys())
    parameters = jax.tree.map(_on_device, parameters)
    graph, state = nnx.split(Decoder(config, parameters, operations(backend)))
    kernels = f"{cpu.isa()}-{NUMERICS}" if backend == "cpu" else f"{backend}-{jax.default_backend()}"
    return Model(config, graph, state, f"{weights.identity}/{mode}/{kernels}", backend, mode)


def _dense(mode: Mode) -> Form:
    """The form of XLA's matrices: each is put on its device before the next is read."""
    type = jnp.float32 if mode == "f32" else jnp.bfloat16

    def dense(tensor: Tensor, shape: tuple[int, int], rows: Any) -> xla_ops.Dense:
        values = tensor.dequantise()
        return xla_ops.Dense(jnp.asarray(values if rows is None else values[rows], type))

    return dense


def _on_device(leaf: Any) -> Any:
    if isinstance(leaf, PackedArray):
        return cpu.Packed.of(leaf)
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf
