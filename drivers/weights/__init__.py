"""Models as files: the catalogue, fetching, GGUF and safetensors, tokenizers, chat templates.

What: everything between a model's name and its opened weights.
Invariant: importing this package imports nothing heavy; whatever comes from outside is checked before it is
    believed.
Interface: the names below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmos.drivers.weights.catalogue import Entry
    from llmos.drivers.weights.resolve import find
    from llmos.drivers.weights.template import ChatTemplate, Piece
    from llmos.drivers.weights.tensor import Tensor
    from llmos.drivers.weights.tokenizer import Stream, Tokenizer
    from llmos.drivers.weights.weights import Weights, WeightsFiles, open_weights

_HOME = {
    "Entry": "catalogue", "find": "resolve", "ChatTemplate": "template",
    "Piece": "template", "Tensor": "tensor", "Stream": "tokenizer", "Tokenizer": "tokenizer",
    "Weights": "weights", "WeightsFiles": "weights", "open_weights": "weights",
}  # fmt: skip

__all__ = [
    "ChatTemplate", "Entry", "Piece", "Stream", "Tensor", "Tokenizer", "Weights", "WeightsFiles",
    "find", "open_weights",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
