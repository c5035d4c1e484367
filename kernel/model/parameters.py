"""A decoder's parameters, read from a weights file.

What: finds every tensor that a description calls for, checks its shape, brings its rows into our order and gives each
    matrix the form that the device wants.
Invariant: every parameter of the description is present and has the shape it implies, or CorruptWeights says which is
    not. Matrices are converted one at a time, straight from the mapped file: there is never a second copy of all
    weights. Nothing here needs JAX: a boot reads and packs while it is imported.
Interface: `begin_packing(weights, mode, window)` for the CPU kernels; `Reader(weights, form)`, `Form`, `Mode`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llmos.abi.errors import CorruptWeights
from llmos.drivers.cpu.packing import PackedArray, pack_array
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.names import tensor_name
from llmos.kernel.model.rope import rope_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llmos.drivers.weights import Tensor, Weights

Mode = Literal["native", "bf16", "f32"]
Progress = Callable[[int, int], None]  # bytes done, bytes in all
Parameters = dict[str, Any]  # named as `Decoder` wants them
Form = Callable[["Tensor", tuple[int, int], Any], Any]
"""(tensor, (N out, K in), order of its rows or None) -> the matrix as the device wants it."""


def begin_packing(
    weights: Weights, mode: Mode, window: int, progress: Progress | None = None
) -> Future[Parameters]:
    """The parameters for the CPU kernels, matrices as `PackedArray`, on a thread that ends with them.

    Its result raises UnsupportedModel or CorruptWeights.
    """

    def pack(tensor: Tensor, shape: tuple[int, int], rows: Any) -> PackedArray:
        raw = tensor.data.reshape(shape[0], -1)
        format = None if mode == "native" else mode
        return pack_array(raw if rows is None else raw[rows], tensor.type, shape, format=format)

    def work() -> Parameters:
        return Reader(weights, pack, progress).parameters(window)

    worker = ThreadPoolExecutor(1, "packing")
    try:
        return worker.submit(work)
    finally:
        worker.shutdown(wait=False)


class Reader:
    """One pass over a weights file; `form` makes of a matrix what it is on the device."""

    def __init__(
        self,
        weights: Weights,
        form: Form,
        progress: Progress | None = None,
    ) -> None:
        self.config = ModelConfig.from_metadata(weights.source, weights.metadata, weights.tensors.keys())
        self.weights, self.form, self.progress = weights, form, progress
        self.done, self.total = 0, sum(t.data.nbytes for t in weights.tensors.values())

    def parameters(self, window: int) -> Parameters:
        """Everything `Decoder` wants, named as there, for `window` positions (0: all that the model has)."""
        c = self.config
        positions = min(window, c.context) if window else c.context
        embed = self.matrix("embed", None, (c.vocab, c.dim))
        tied = self._name("head", None) not in self.weights.tensors
        head = None if tied else self.matrix("head", None, (c.vocab, c.dim))
        layers = [self.layer(i) for i in range(c.layers)]
        factors = self._find("rope_factors", None)
        bases = list(dict.fromkeys((c.layer(i).rope_theta, c.layer(i).rope_scaling) for i in range(c.layers)))
        divisors = None if factors is None else factors.dequantise()
        ropes = [rope_tables(theta, scaling, divisors, c.head_dim, positions) for theta, scaling in bases]
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
            p["qkv_bias"] = np.concatenate(
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
        """A weight matrix (N out, K in) in its form, its rows reordered by `rows`."""
        tensor = self._get(ours, layer, shape)
        weight = self.form(tensor, shape, rows)
        self._tick(tensor)
        return weight

    def vector(
        self, ours: str, layer: int | None, size: int, offset: float = 0.0, rows: Any = None
    ) -> NDArray[np.float32]:
        """A norm weight or bias [size]."""
        tensor = self._get(ours, layer, (size,))
        values = tensor.dequantise().astype(np.float32) + np.float32(offset)
        self._tick(tensor)
        return values if rows is None else values[rows]

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
