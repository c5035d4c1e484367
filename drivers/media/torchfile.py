"""Tensors out of a file that `torch.save` wrote, without torch and without running what it says.

What: the format from before torch 1.6 (five pickles and raw storages in a row), as old published weights have it.
Invariant: a pickle can name any function. Here it may name four things, all of which only describe tensors; any other
    name ends the reading. Every storage is bounded by the file's own size.
Interface: `read_torch(path) -> dict[name, array]`; CorruptWeights says what is wrong.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from llmos.abi.errors import CorruptWeights

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_KINDS = {"FloatStorage": "<f4", "LongStorage": "<i8", "IntStorage": "<i4", "HalfStorage": "<f2"}
_UNSOUND = (
    pickle.UnpicklingError, ValueError, LookupError, TypeError, EOFError, AttributeError, OverflowError, MemoryError
)  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Storage:
    """Numbers that lie further on in the file: their key, type and count."""

    key: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Names(pickle.Unpickler):
    """An unpickler that knows four names and no others."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _KINDS:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no tensor needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, count, *_ = pid
        if kind != "storage" or storage not in _KINDS:
            raise pickle.UnpicklingError("it refers to something that is no storage")
        return _Storage(str(key), _KINDS[storage], int(count))


def read_torch(path: Path) -> dict[str, Array]:
    """Name -> array of a saved state.

    Raises:
        CorruptWeights: damaged, of another format, or a pickle that names anything but tensors.
    """
    try:
        file = io.BytesIO(path.read_bytes())
        if _load(file) != _MAGIC or _load(file) != _PROTOCOL:
            raise ValueError("it does not begin like a file of torch")
        _load(file)  # about the machine that wrote it
        tensors, keys = _load(file), _load(file)
        if not isinstance(tensors, dict) or not all(isinstance(t, _Tensor) for t in tensors.values()):
            raise ValueError("it holds more than tensors")
        kinds = {t.storage.key: t.storage for t in tensors.values()}
        storages = {str(key): _numbers(file, kinds[str(key)]) for key in keys}
        return {str(name): _array(t, storages[t.storage.key]) for name, t in tensors.items()}
    except _UNSOUND as e:
        raise CorruptWeights(f"{path.name} is not sound", why=str(e)[:300], do="fetch it again") from e


def _load(file: BinaryIO) -> Any:
    return _Names(file).load()


def _numbers(file: BinaryIO, storage: _Storage) -> Array:
    count = int.from_bytes(file.read(8), "little")
    kind = np.dtype(storage.kind)
    data = file.read(count * kind.itemsize) if count == storage.count else b""
    if len(data) != count * kind.itemsize:
        raise ValueError(f"storage {storage.key} lacks numbers")
    return np.frombuffer(data, kind)


def _array(tensor: _Tensor, numbers: Array) -> Array:
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min(tensor.strides, default=0) < 0 or last >= numbers.size:
        raise ValueError("a tensor lies outside of its storage")
    strides = [step * numbers.itemsize for step in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.array(view)
