"""A model as two files: its parameters, and one short program that runs them.

What: writes `parameters.safetensors` (every matrix as plain numbers, the rotary tables, the vocabulary and the chat's
    frame in the header) and `answer.py`, a copy of the module of that name beside this one, which needs numpy alone.
Invariant: in f32 the program says the tokens that the kernel says in f32: it is told the same tokens, forbids the same
    ones, and takes the likeliest. Each file appears whole or not at all; there is never more than one matrix in memory.
Interface: `export(weights, folder, kind=…, positions=…) -> [Path, Path]`.
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import CorruptWeights, DiskFull, TemplateError, UnsupportedModel, WeightsError
from llmos.abi.progress import Progress, silent
from llmos.drivers.whole import write_whole
from llmos.kernel.learn.vocabulary import vocabulary
from llmos.kernel.model.parameters import Parameters, Reader

if TYPE_CHECKING:
    from llmos.drivers.weights import Tensor, Tokenizer, Weights
    from llmos.kernel.model.config import ModelConfig

Kind = Literal["f32", "f16"]
PARAMETERS, PROGRAM = "parameters.safetensors", "answer.py"
POSITIONS = 4096  # tokens that a question and its answer may have together
_TYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "f32": ("F32", np.dtype("<f4")),
    "f16": ("F16", np.dtype("<f2")),
}  # of matrices; all else is f32
_MARK = "?"  # a user's message, to find the place of


@dataclass(frozen=True, slots=True)
class _Array:
    """An array that is made when it is written."""

    shape: tuple[int, ...]
    make: Callable[[], NDArray[np.float32]]

    @classmethod
    def of(cls, value: Any) -> _Array:
        """Of an array that is there, or of one of these."""
        return value if isinstance(value, cls) else cls(value.shape, lambda: value)

    @classmethod
    def stacked(cls, values: Iterable[Any]) -> _Array:
        """The rows of several matrices, one below the other."""
        parts = [cls.of(v) for v in values]
        shape = (sum(p.shape[0] for p in parts), *parts[0].shape[1:])
        return cls(shape, lambda: np.concatenate([p.make() for p in parts]))


def export(
    weights: Weights,
    folder: Path,
    *,
    kind: Kind = "f32",
    positions: int = POSITIONS,
    progress: Progress = silent,
) -> list[Path]:
    """Write the two files into `folder`, which is made if it is not there; where they lie.

    Args:
        kind: of the numbers. f16 halves the file, and now and then a token is another.
        positions: tokens of a question and its answer together; at most what the model was made for.

    Raises:
        UnsupportedModel: the vocabulary is no byte-level one.
        WeightsError: the weights are damaged, or the files cannot be written.
        DiskFull: nothing half-written was left.
    """

    def matrix(tensor: Tensor, shape: tuple[int, int], rows: Any) -> _Array:
        def make() -> NDArray[np.float32]:
            values = tensor.dequantise()
            tensor.forget()
            return values if rows is None else values[rows]

        return _Array(shape, make)

    reader = Reader(weights, matrix)
    positions = min(positions, reader.config.context)
    parameters = reader.parameters(positions)
    about = {
        **vocabulary(weights),
        **_frame(weights),
        "positions": positions,
        "config": _described(reader.config, parameters),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / PARAMETERS, _arrays(parameters), about, kind, progress)
        write_whole(folder / PROGRAM, Path(__file__).with_name("answer.py").read_bytes())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room for the model in {folder}", do="free some space") from None
        raise WeightsError(
            f"{folder} cannot be written to", why=error.strerror or str(error), do="name another folder"
        ) from None
    return [folder / PARAMETERS, folder / PROGRAM]


# -- parameters --------------------------------------------------------------------------------------------------


def _described(config: ModelConfig, parameters: Parameters) -> dict[str, Any]:
    """What the program asks of a configuration."""
    plain = (config.activation == "silu", config.embed_scale == 1, config.scale == config.head_dim**-0.5)
    if not all(plain) or config.post_norms or config.attention_softcap or config.logit_softcap:
        raise UnsupportedModel(
            f"{config.family} does not fit into a short program",
            why="it scales, norms or caps what others do not",
            do="choose a model of the family llama, mistral, qwen2 or qwen3",
        )
    names = ("layers", "heads", "kv_heads", "head_dim", "norm_eps")
    return {name: getattr(config, name) for name in names} | {
        "windows": [config.layer(i).window for i in range(config.layers)],
        "ropes": parameters["rope_of_layer"],
    }


def _arrays(parameters: Parameters) -> dict[str, _Array]:
    """The arrays by the names that the program has for them."""
    named: dict[str, Any] = {"embed": parameters["embed"], "final_norm": parameters["final_norm"]}
    if parameters["head"] is not None:
        named["head"] = parameters["head"]
    for i, (cos, sin) in enumerate(parameters["ropes"]):
        named |= {f"rope.{i}.cos": cos, f"rope.{i}.sin": sin}
    for i, layer in enumerate(parameters["layers"]):
        rest = {name: value for name, value in layer.items() if name not in ("q", "k", "v")}
        rest["qkv"] = _Array.stacked(layer[name] for name in ("q", "k", "v"))
        named |= {f"{i}.{name}": value for name, value in rest.items()}
    return {name: _Array.of(value) for name, value in named.items()}


def _write(
    path: Path, arrays: Mapping[str, _Array], about: dict[str, Any], kind: Kind, progress: Progress
) -> None:
    """A safetensors file, an array at a time."""
    types = {n: _TYPES["f16" if kind == "f16" and _is_matrix(n, a) else "f32"] for n, a in arrays.items()}
    header: dict[str, Any] = {"__metadata__": {"model": json.dumps(about)}}
    at = 0
    for name, array in arrays.items():
        size = math.prod(array.shape) * types[name][1].itemsize
        header[name] = {"dtype": types[name][0], "shape": list(array.shape), "data_offsets": [at, at + size]}
        at += size
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)

    def write(file: Any) -> None:
        file.write(len(told).to_bytes(8, "little") + told)
        for name, array in arrays.items():
            values = array.make()
            if values.shape != array.shape:
                raise CorruptWeights(f"{name} has the shape {values.shape}, not {array.shape}")
            file.write(np.ascontiguousarray(values, types[name][1]).data)
            progress("writing parameters", header[name]["data_offsets"][1], at, "bytes")

    write_whole(path, write)


def _is_matrix(name: str, array: _Array) -> bool:
    return len(array.shape) == 2 and not name.startswith("rope.")


# -- words -------------------------------------------------------------------------------------------------------


def _frame(weights: Weights) -> dict[str, Any]:
    """What stands before and behind a question, and what an answer may not say."""
    tokenizer = weights.tokenizer()
    before, after = _chat(weights, tokenizer)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    if tokenizer.add_bos and begin and after and before[:1] != begin:
        before = begin + before
    return {
        "before": before,
        "after": after,
        "begin": begin,
        "begins": tokenizer.add_bos,
        "ends": sorted(tokenizer.eos_ids),
        "never": sorted(tokenizer.control_ids - tokenizer.eos_ids),
    }


def _chat(weights: Weights, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The chat template around a user's message; nothing where the model has none, or it does not keep it whole."""
    try:
        pieces = weights.template().render([{"role": "user", "content": _MARK}])
    except TemplateError:
        return [], []
    ids = tokenizer.encode_pieces(pieces)
    places = [i for i, piece in enumerate(pieces) if piece.message == 0]
    if len(places) != 1 or pieces[at := places[0]].text != _MARK:
        return [], []
    return [*chain(*ids[:at])], [*chain(*ids[at + 1 :])]
