"""The GGUF file format, read by mapping the file.

What: a header of key-values and tensor descriptions, then aligned tensor bytes (versions 2 and 3,
    little-endian).
Invariant: nothing in the file is believed before it is checked: every length, count, offset and type is
    bounded by the file's real size, tensors do not overlap, names are unique. A damaged file is
    `CorruptWeights`, a sound one that is not run here is `UnsupportedModel`; no other exception comes out.
    Nothing is copied but the header's small values: long string arrays stay in the map and decode on access.
Interface: `read(path)` -> GGUFFile(metadata, tensors, header_bytes, size).
Do not: truncate or rewrite a file while it is mapped.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from llmos.abi.errors import CorruptWeights, LLMOSError, ModelNotFound, UnsupportedModel, WeightsError
from llmos.abi.limits import MAX_DIMENSION, MAX_HEADER_BYTES, MAX_TENSORS
from llmos.drivers.weights.blocks import OTHER_NAMES, TYPES, BlockType, Bytes
from llmos.drivers.weights.tensor import Tensor

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_SCALARS = {
    code: struct.Struct("<" + letter)
    for code, letter in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}  # fmt: skip
_DTYPES = {code: np.dtype(scalar.format) for code, scalar in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
_MAX_KEYS, _MAX_AXES, _MAX_ALIGNMENT = 1 << 16, 4, 1 << 16


class Strings(Sequence[str]):
    """A string array of the header: offsets in memory, text in the map, decoded on access."""

    __slots__ = ("_ends", "_map", "_starts")

    def __init__(self, mapped: mmap.mmap, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> None:
        self._map, self._starts, self._ends = mapped, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Strings(self._map, self._starts[index], self._ends[index])
        return self.raw(index).decode("utf-8", "replace")

    def raw(self, index: int) -> bytes:
        """The bytes of one string, undecoded."""
        return self._map[self._starts[index] : self._ends[index]]

    def all_raw(self) -> list[bytes]:
        """Every string's bytes: one copy of the region, then slices (fast for 10^5 strings)."""
        if not len(self._starts):
            return []
        base, stop = int(self._starts.min()), int(self._ends.max())
        region = self._map[base:stop]
        starts, ends = (self._starts - base).tolist(), (self._ends - base).tolist()
        return [region[s:e] for s, e in zip(starts, ends, strict=True)]

    def __iter__(self) -> Iterator[str]:
        return (raw.decode("utf-8", "replace") for raw in self.all_raw())


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """An open file. `tensors` view the map, which lives as long as they do."""

    metadata: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    header: Bytes  # everything before the tensor data
    size: int


def read(path: Path) -> GGUFFile:
    """Open and check a GGUF file.

    Raises:
        ModelNotFound: no such file.
        CorruptWeights: the bytes are not a sound GGUF file.
        UnsupportedModel: a version, byte order, tensor type or split file that is not run here.
    """
    try:
        with path.open("rb") as f:
            size = f.seek(0, 2)
            if size < 24:
                raise _corrupt(path, f"it has {size} bytes, fewer than a header")
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as e:
        raise ModelNotFound(f"cannot open {path}", why=e.strerror or str(e), do="check the path") from e
    try:
        return _Reader(path, mapped, size).read()
    except LLMOSError:
        raise
    except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as e:
        raise _corrupt(path, f"a field reaches past the end of the file ({e})") from e


def _corrupt(path: Path, why: str) -> CorruptWeights:
    return CorruptWeights(
        f"{path.name} is not a sound GGUF file", why=why, do="fetch it again, or `llmos models verify`"
    )


class _Reader:
    """A cursor over the header."""

    def __init__(self, path: Path, mapped: mmap.mmap, size: int) -> None:
        self.path, self.map, self.size = path, mapped, size
        self.limit = min(size, MAX_HEADER_BYTES)
        self.at = 0

    def fail(self, why: str) -> WeightsError:
        return _corrupt(self.path, why)

    def unsupported(self, why: str, do: str = "use another file of the model") -> WeightsError:
        return UnsupportedModel(f"{self.path.name} is not supported", why=why, do=do)

    def read(self) -> GGUFFile:
        tensor_count, key_count = self.preamble()
        metadata = self.keys(key_count)
        if metadata.get("split.count", 0) not in (0, 1):
            raise self.unsupported(
                "it is one part of a split file", "join the parts: `llama-gguf-split --merge`"
            )
        alignment = metadata.get("general.alignment", 32)
        power_of_two = (
            isinstance(alignment, int) and 0 < alignment <= _MAX_ALIGNMENT and not alignment & (alignment - 1)
        )
        if not isinstance(alignment, int) or not power_of_two:
            raise self.fail(
                f"its alignment is {alignment!r}, which is no power of two up to {_MAX_ALIGNMENT}"
            )
        infos = [self.tensor_info() for _ in range(tensor_count)]
        start = -(-self.at // alignment) * alignment
        whole = np.frombuffer(self.map, np.uint8)
        tensors = self.tensors(infos, start, alignment, whole)
        return GGUFFile(metadata, tensors, whole[: self.at], self.size)

    def preamble(self) -> tuple[int, int]:
        if self.map[:4] != b"GGUF":
            raise self.fail("it does not begin with 'GGUF'")
        self.at = 4
        version = self.u32()
        if version & 0xFFFF == 0:
            raise self.unsupported("it is big-endian; only little-endian files are read")
        if version not in (2, 3):
            raise self.unsupported(f"it has format version {version}; versions 2 and 3 are read")
        tensor_count, key_count = self.u64(), self.u64()
        if tensor_count > MAX_TENSORS or key_count > _MAX_KEYS:
            raise self.fail(f"it claims {tensor_count} tensors and {key_count} keys")
        return tensor_count, key_count

    # --- values

    def take(self, size: int) -> int:
        """Move past `size` bytes; where they start."""
        at = self.at
        if size > self.limit - at:
            raise self.fail(f"a field at byte {at} claims {size} bytes, more than the header can hold")
        self.at = at + size
        return at

    def u32(self) -> int:
        return int(_U32.unpack_from(self.map, self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self.map, self.take(8))[0])

    def name(self) -> str:
        length = self.u64()
        at = self.take(length)
        if not length:
            raise self.fail(f"the name at byte {at} is empty")
        try:
            return self.map[at : at + length].decode("utf-8")
        except UnicodeDecodeError as e:
            raise self.fail(f"the name at byte {at} is not UTF-8") from e

    def keys(self, count: int) -> dict[str, object]:
        found: dict[str, object] = {}
        for _ in range(count):
            key = self.name()
            if key in found:
                raise self.fail(f"key {key!r} occurs twice")
            found[key] = self.value(self.u32())
        return found

    def value(self, kind: int) -> object:
        if kind in _SCALARS:
            scalar = _SCALARS[kind]
            result: object = scalar.unpack_from(self.map, self.take(scalar.size))[0]
            return result
        if kind == _STRING:
            length = self.u64()
            at = self.take(length)
            return self.map[at : at + length].decode("utf-8", "replace")
        if kind == _ARRAY:
            return self.array()
        raise self.fail(f"a value at byte {self.at} has the unknown type {kind}")

    def array(self) -> object:
        kind, count = self.u32(), self.u64()
        if kind in _DTYPES:
            dtype = _DTYPES[kind]
            at = self.take(count * dtype.itemsize)
            return np.frombuffer(self.map, dtype, count, at)
        if kind == _STRING:
            return self.strings(count)
        if kind == _ARRAY:
            raise self.unsupported("it nests an array in an array")
        raise self.fail(f"an array at byte {self.at} has the unknown element type {kind}")

    def strings(self, count: int) -> Strings:
        """Find where each string lies.

        A quick walk looks at the two low bytes of each length; a vectorised check of all eight then decides
        whether its result stands. (151,000 strings: 20 ms, where reading each length in full takes 130.)
        """
        if count > (self.limit - self.at) // 8:
            raise self.fail(f"an array at byte {self.at} claims {count} strings")
        base = self.at
        marks: list[int] = []
        mark = marks.append
        at = 0
        # A copy: indexing bytes is twice as fast as indexing the map. Long strings end the quick walk.
        window = self.map[base : min(self.limit, base + count * 40 + 4096)]
        try:
            for _ in range(count):
                mark(at)
                at += 8 + window[at] + (window[at + 1] << 8)
            starts = np.array([*marks, at], np.int64) + base
            lengths = self.lengths(starts[:-1])
            if at > self.limit - base or not np.array_equal(lengths, np.diff(starts) - 8):
                raise IndexError
            starts = starts[:-1]
            self.at = base + at
        except IndexError:
            starts, lengths = self.strings_slowly(base, count)
        return Strings(self.map, starts + 8, starts + 8 + lengths)

    def lengths(self, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The 8-byte length at each place, saturated so that it cannot wrap."""
        if len(starts) and int(starts[-1]) + 8 > self.limit:
            raise IndexError
        # Every unaligned 8-byte word of the header, overlapping; nothing is read but the places asked for.
        words = np.ndarray(self.limit - 7, "<u8", self.map, strides=(1,))
        raw = words[starts]
        return np.minimum(raw, np.uint64(1 << 62)).astype(np.int64)

    def strings_slowly(self, base: int, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        self.at = base
        starts, lengths = np.empty(count, np.int64), np.empty(count, np.int64)
        for i in range(count):
            starts[i] = self.at
            lengths[i] = length = self.u64()
            self.take(length)
        return starts, lengths

    # --- tensors

    def tensor_info(self) -> tuple[str, tuple[int, ...], BlockType, int, int]:
        name = self.name()
        axes = self.u32()
        if not 1 <= axes <= _MAX_AXES:
            raise self.fail(f"tensor {name!r} has {axes} axes")
        shape = tuple(self.u64() for _ in range(axes))
        code, offset = self.u32(), self.u64()
        if any(not 1 <= n <= MAX_DIMENSION for n in shape):
            raise self.fail(f"tensor {name!r} has the shape {list(shape)}")
        if code not in TYPES:
            if code not in OTHER_NAMES:
                raise self.fail(f"tensor {name!r} has the unknown type {code}")
            known = ", ".join(t.name for t in TYPES.values())
            raise self.unsupported(f"tensor {name!r} is {OTHER_NAMES[code]}; what runs here is {known}")
        kind = TYPES[code]
        if shape[0] % kind.values:
            raise self.fail(
                f"tensor {name!r} is {kind.name} with rows of {shape[0]}, no multiple of {kind.values}"
            )
        count = 1
        for n in shape:
            count *= n
        return name, shape[::-1], kind, offset, count // kind.values * kind.bytes

    def tensors(
        self,
        infos: list[tuple[str, tuple[int, ...], BlockType, int, int]],
        start: int,
        alignment: int,
        whole: Bytes,
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, shape, kind, offset, size in infos:
            if offset % alignment:
                raise self.fail(f"tensor {name!r} is not aligned to {alignment} bytes")
            if offset > self.size or start + offset + size > self.size:
                raise self.fail(
                    f"tensor {name!r} ends {start + offset + size - self.size} bytes past the end"
                )
            if name in found:
                raise self.fail(f"tensor {name!r} occurs twice")
            found[name] = Tensor(name, shape, kind.name, whole[start + offset : start + offset + size])
        end, before = 0, ""
        for name, _, _, offset, size in sorted(infos, key=lambda info: info[3]):
            if offset < end:
                raise self.fail(f"tensors {before!r} and {name!r} overlap")
            end, before = offset + size, name
        return found
