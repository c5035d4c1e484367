"""An opened model: metadata, tensors, tokenizer, template, identity, whatever format it lies in.

What: one view over a GGUF file and a folder of Hugging Face safetensors.
Invariant: opening reads headers only; tensors are views of mapped files; tokenizer and template are built on
    first use and kept.
Interface: `open_weights(files)` -> Weights.

`identity` names the weights for stores that outlive the process (KV pages, swap). It is a hash over the
file's size, its whole header (of a folder, its configuration too) and 256 bytes from the middle of every
tensor: some milliseconds, the same wherever the file lies and whenever it was written, different for any
retrained, merged or requantised model. It is no proof against someone who forges a file to have it: that is
what the sha256 of `llmos models verify` is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llmos.drivers.weights.blocks import Bytes
from llmos.drivers.weights.tensor import Tensor

if TYPE_CHECKING:
    from llmos.drivers.weights.template import ChatTemplate
    from llmos.drivers.weights.tokenizer import Tokenizer

_SAMPLE = 256


@dataclass(frozen=True, slots=True)
class WeightsFiles:
    """Where a model lies. `weights` is one .gguf file, or the safetensors shards of `folder`."""

    name: str
    format: Literal["gguf", "hf"]
    folder: Path
    weights: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The weights file (of a sharded model the first)."""
        return self.weights[0]

    @property
    def size(self) -> int:
        """Bytes of all weights files."""
        return sum(p.stat().st_size for p in self.weights)


@dataclass(slots=True)
class Weights:
    """See the module."""

    files: WeightsFiles
    source: Literal["gguf", "hf"]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    headers: tuple[Bytes, ...]
    _tokenizer: Tokenizer | None = field(init=False, default=None)
    _template: ChatTemplate | None = field(init=False, default=None)
    _identity: str = field(init=False, default="")

    @property
    def identity(self) -> str:
        """A stable name of these weights: 32 hexadecimal digits."""
        if not self._identity:
            self._identity = _identity(self.files.size, self.headers, self.tensors.values())
        return self._identity

    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer (built on first use)."""
        if self._tokenizer is None:
            if self.source == "gguf":
                from llmos.drivers.weights.gguf_tokenizer import from_gguf

                self._tokenizer = from_gguf(self.metadata)
            else:
                from llmos.drivers.weights.json_tokenizer import from_folder

                self._tokenizer = from_folder(self.files.folder)
        return self._tokenizer

    def template(self) -> ChatTemplate:
        """The model's chat template (compiled on first use).

        Raises:
            TemplateError: the model has none (a base model), or it cannot be compiled.
        """
        if self._template is None:
            from llmos.drivers.weights.template import from_weights

            self._template = from_weights(self)
        return self._template


def open_weights(files: WeightsFiles) -> Weights:
    """Open a model's files and check their headers.

    Raises:
        CorruptWeights: a file is damaged.
        UnsupportedModel: a sound file of a kind that is not run here.
    """
    if files.format == "gguf":
        from llmos.drivers.weights import gguf

        file = gguf.read(files.path)
        return Weights(files, "gguf", file.metadata, file.tensors, (file.header,))
    from llmos.drivers.weights import safetensors

    folder = safetensors.read(files.folder, files.weights)
    config = np.frombuffer(json.dumps(folder.config, sort_keys=True).encode(), np.uint8)
    return Weights(files, "hf", folder.config, folder.tensors, (config, *folder.headers))


def _identity(size: int, headers: Iterable[Bytes], tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    for header in headers:
        digest.update(header.data)
    for tensor in tensors:
        middle = max(0, tensor.data.size // 2 - _SAMPLE // 2)
        digest.update(tensor.data[middle : middle + _SAMPLE].data)
    return digest.hexdigest()
