"""One model over several devices: tensor and data parallel by names of axes.

What: the decoder's parameters, the pool and a step's tokens have logical axes (`AXES`: heads, ffn, vocab, token);
    `RULES` says which axis of the mesh takes each. JAX's partitioner does the rest: the forward function is the
    same as on one device. As in Megatron (Shoeybi et al. 2019, arXiv 1909.08053) the matrices into a block are
    split by rows and those out of it by columns, so a layer costs two sums over the mesh.
Invariant: an axis that does not divide is kept whole on every device, never an error; `Layout.whole` names it.
    Results equal those of one device up to the order of sums.
Interface: `make_mesh(tensor, data)`, `Layout.of(model, mesh, tokens)`, `layout.place(model.state)`.

The pool's heads are split like the heads; its pages are repeated over "data", so any device can serve any
process: "data" buys computing, not memory. Not tested on hardware yet: tests use 8 simulated CPU devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from llmos.abi.errors import EngineError
from llmos.kernel.model.load import Model

RULES = {"heads": "tensor", "ffn": "tensor", "vocab": "tensor", "token": "data"}

# Logical axes of each of the decoder's parameters; those that are not here are small and repeated.
AXES: dict[str, tuple[str | None, ...]] = {
    "embedding": ("vocab", None),
    "head": ("vocab", None),
    "qkv": ("heads", None),
    "out": (None, "heads"),
    "gate_up": ("ffn", None),
    "down": (None, "ffn"),
}
POOL = (None, None, "heads", None, None)  # [pages, S, K, 2, H]
TOKENS = (None, "token")  # [3, T]: ids, positions, slots


def make_mesh(tensor: int = 1, data: int = 1) -> Mesh:
    """The first `tensor * data` devices as a mesh.

    Raises:
        EngineError: there are fewer devices.
    """
    devices = jax.devices()
    if tensor < 1 or data < 1 or tensor * data > len(devices):
        raise EngineError(
            f"a mesh of {tensor} x {data} devices cannot be made",
            why=f"this machine has {len(devices)}",
            do="ask for a smaller mesh",
        )
    grid = np.asarray(devices[: tensor * data]).reshape(data, tensor)
    return Mesh(grid, ("data", "tensor"), axis_types=(AxisType.Auto, AxisType.Auto))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a model's arrays lie. `whole` are the logical axes that the mesh does not divide."""

    mesh: Any  # Mesh, or an AbstractMesh where there is no device
    whole: frozenset[str]

    @classmethod
    def of(cls, model: Model, mesh: Any, tokens: int) -> Layout:
        """The layout of `model` on `mesh`, for steps of multiples of `tokens` tokens.

        Raises:
            EngineError: the model's weights are packed for our CPU kernels.
        """
        if model.backend == "cpu":
            raise EngineError(
                "a model on the CPU kernels cannot be split",
                why="its packed blocks are for one device",
                do='load it with backend="xla"',
            )
        c, size = model.config, mesh.shape["tensor"]
        splits = {
            "heads": _heads_split(model, size),
            "ffn": c.ffn % size == 0,
            "vocab": c.vocab % size == 0,
            "token": tokens % mesh.shape["data"] == 0,
        }
        return cls(mesh, frozenset(axis for axis, split in splits.items() if not split))

    @property
    def identity(self) -> str:
        """What the mesh adds to the identity of the numerics: sums over devices round differently."""
        return "".join(f"/{axis}{size}" for axis, size in self.mesh.shape.items() if size > 1)

    def sharding(self, axes: tuple[str | None, ...] = ()) -> NamedSharding:
        """Of an array with these logical axes; without any it is repeated on every device."""
        names = [RULES[a] if a is not None and a not in self.whole else None for a in axes]
        return NamedSharding(self.mesh, PartitionSpec(*names))

    def of_state(self, state: Any) -> Any:
        """The sharding of each array of a decoder's state, in the state's own form."""

        def one(path: tuple[Any, ...], array: Array) -> NamedSharding:
            names = {key.key for key in path if isinstance(key, jax.tree_util.DictKey)}
            return next((self.sharding(AXES[name]) for name in AXES if name in names), self.sharding())

        return jax.tree_util.tree_map_with_path(one, state)

    def place(self, state: Any) -> Any:
        """The state with every array on its devices."""
        return jax.device_put(state, self.of_state(state))


def _heads_split(model: Model, size: int) -> bool:
    if model.backend == "tpu":
        from llmos.kernel.model.tpu_ops import splits

        return splits(model.config.kv_heads, size)
    return model.config.kv_heads % size == 0
