"""The safetensors format, single or in shards, read by mapping the files.

What: an 8-byte length, a JSON header of names, types, shapes and offsets, then the tensors' bytes.
Invariant: as in `gguf`: nothing is believed unchecked, nothing is copied, and what comes out of a bad file is
    `CorruptWeights`.
Interface: `shards(folder)` -> files; `read(folder, files)` -> Folder(config, tensors, headers).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from llmos.abi.errors import CorruptWeights, ModelNotFound
from llmos.abi.limits import MAX_DIMENSION, MAX_HEADER_BYTES, MAX_TENSORS
from llmos.drivers.weights.blocks import Bytes
from llmos.drivers.weights.tensor import Tensor

# Bytes of a value. Only the first three are run; the others occur beside weights (position ids, masks).
_WIDTHS = {
    "F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "C64": 8,
}  # fmt: skip
_MAX_AXES = 8
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Folder:
    """An open model folder."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    headers: tuple[Bytes, ...]


def shards(folder: Path) -> tuple[Path, ...]:
    """The weights files of a folder: those that its index names, or its one safetensors file.

    Raises:
        ModelNotFound: there are none, or one that the index names is missing.
        CorruptWeights: the index is damaged.
    """
    if (folder / _INDEX).is_file():
        names = set(_index(folder).values())
        paths = tuple(folder / name for name in sorted(names))
        missing = [p.name for p in paths if not p.is_file()]
        if missing:
            raise ModelNotFound(
                f"{folder} lacks {', '.join(missing[:3])}",
                why=f"{_INDEX} names {len(missing)} file(s) that are not there",
                do="fetch the missing files",
            )
        return paths
    found = sorted(folder.glob("*.safetensors"))
    if (folder / "model.safetensors") in found:
        return (folder / "model.safetensors",)
    if len(found) != 1:
        raise ModelNotFound(
            f"{folder} holds {len(found)} safetensors files and no {_INDEX}",
            do="name a folder with model.safetensors or with the index beside its shards",
        )
    return (found[0],)


def read(folder: Path, files: tuple[Path, ...]) -> Folder:
    """Open a model folder: `config.json` and every tensor of `files`.

    Raises:
        ModelNotFound: a file cannot be opened.
        CorruptWeights: a damaged header, a tensor that occurs twice, or is missing though the index has it.
    """
    config = read_json(folder / "config.json")
    tensors: dict[str, Tensor] = {}
    headers = []
    home: dict[str, str] = {}
    for path in files:
        found, header = read_file(path)
        for name in found.keys() & tensors.keys():
            raise _corrupt(path, f"tensor {name!r} is in {home[name]} too")
        tensors |= found
        home |= dict.fromkeys(found, path.name)
        headers.append(header)
    if (folder / _INDEX).is_file():
        for name, file in _index(folder).items():
            if home.get(name) != file:
                raise _corrupt(folder / file, f"it lacks tensor {name!r}, which {_INDEX} promises")
    return Folder(config, tensors, tuple(headers))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder."""
    try:
        if path.stat().st_size > MAX_HEADER_BYTES:
            raise _corrupt(path, "it is larger than any such file")
        value = json.loads(path.read_bytes())
    except OSError as e:
        raise ModelNotFound(
            f"cannot read {path}", why=e.strerror or str(e), do="fetch the whole folder"
        ) from e
    except (ValueError, RecursionError) as e:
        raise _corrupt(path, f"it is not JSON: {e}") from e
    if not isinstance(value, dict):
        raise _corrupt(path, "it is no JSON object")
    return value


def read_file(path: Path, ignore: frozenset[str] = frozenset()) -> tuple[dict[str, Tensor], Bytes]:
    """The tensors of one safetensors file but those named in `ignore`, and its header's bytes."""
    try:
        with path.open("rb") as f:
            size = f.seek(0, 2)
            if size < 10:
                raise _corrupt(path, f"it has {size} bytes, fewer than a header")
            whole = np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except OSError as e:
        raise ModelNotFound(f"cannot open {path}", why=e.strerror or str(e), do="check the path") from e
    length = int.from_bytes(whole[:8].tobytes(), "little")
    if length > min(size - 8, MAX_HEADER_BYTES):
        raise _corrupt(path, f"its header claims {length} bytes")
    start = 8 + length
    try:
        header = json.loads(whole[8:start].tobytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise _corrupt(path, f"its header is not sound JSON: {e}") from e
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise _corrupt(path, "its header is no object of tensors")
    for name in ignore | {"__metadata__"}:
        header.pop(name, None)
    tensors = {name: _tensor(path, name, info, whole[start:]) for name, info in header.items()}
    end, before = 0, ""
    for name, info in sorted(header.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
        first, last = info["data_offsets"]
        if first < end:
            raise _corrupt(path, f"tensors {before!r} and {name!r} overlap")
        end, before = last, name
    return tensors, whole[:start]


def _tensor(path: Path, name: str, info: object, data: Bytes) -> Tensor:
    if not isinstance(info, dict):
        raise _corrupt(path, f"the description of {name!r} is no object")
    kind: object = info.get("dtype")
    shape: object = info.get("shape")
    offsets: object = info.get("data_offsets")
    if not _integers(shape) or len(shape) > _MAX_AXES or any(not 1 <= n <= MAX_DIMENSION for n in shape):
        raise _corrupt(path, f"tensor {name!r} has the shape {str(shape)[:80]}")
    if not _integers(offsets) or len(offsets) != 2:
        raise _corrupt(path, f"tensor {name!r} has the offsets {str(offsets)[:80]}")
    if not isinstance(kind, str) or kind not in _WIDTHS:
        raise _corrupt(path, f"tensor {name!r} has the unknown type {str(kind)[:40]!r}")
    size = _WIDTHS[kind]
    for n in shape:
        size *= n
    first, last = offsets
    if not 0 <= first <= last <= data.size or last - first != size:
        raise _corrupt(
            path, f"tensor {name!r} needs {size} bytes and lies at {first} to {last} of {data.size}"
        )
    return Tensor(name, tuple(shape), kind, data[first:last])


def _integers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int for n in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _index(folder: Path) -> dict[str, str]:
    path = folder / _INDEX
    names = read_json(path).get("weight_map")
    plain = isinstance(names, dict) and all(
        isinstance(n, str) and n == Path(n).name and n for n in names.values()
    )
    if not isinstance(names, dict) or not plain or not names:
        raise _corrupt(path, "its weight_map is missing, or names files outside of the folder")
    return names


def _corrupt(path: Path, why: str) -> CorruptWeights:
    return CorruptWeights(f"{path.name} is not sound", why=why, do="fetch it again")
