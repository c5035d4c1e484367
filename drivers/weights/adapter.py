"""Adapters: low-rank changes of a model's matrices (LoRA, Hu et al. 2021, arXiv 2106.09685), as files of PEFT.

What: `Adapter`, for each layer the matrices that are changed: y = x Wᵀ becomes y = x Wᵀ + scale (x Aᵀ) Bᵀ. Read and
    written as PEFT lays them out: a folder with `adapter_config.json` and `adapter_model.safetensors`.
Invariant: what is read is what PEFT would compute, or an error: a setting that changes the result and is not known here
    is refused, never passed over. All numbers are finite. A folder is written whole or not at all.
Interface: `LowRank(a_RK, b_NR)`; `Adapter(rank, alpha, base, layers)`: `scale`, `version`, `check(shapes, layers,
    weights)`; `read_adapter(path)`, `write_adapter(adapter, path)`; `MATRICES`, our short names of what can be changed.

Rows of B for q and k are in Hugging Face's order (rotary pairs half-split), which is the decoder's: a model whose file
has them in another order is reordered when it is read, its adapters never are.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from llmos.abi.errors import AdapterMismatch, CorruptWeights, DiskFull, ModelNotFound, UnsupportedModel
from llmos.abi.limits import MAX_RANK
from llmos.drivers.whole import sync, write_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"

_PEFT = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_OURS = {theirs: ours for ours, theirs in _PEFT.items()}
_NAME = re.compile(
    r"base_model\.model\.((?:model\.|language_model\.)*layers\.(\d{1,4})\.(\w+\.\w+))\.lora_([AB])(?:\.default)?\.weight"
)
# In the header of the tensors' file: the fingerprint of what they were trained on; the configuration once more, so that
# a file that was written here needs no other beside it.
_WEIGHTS, _INSIDE = "llmos.weights", "llmos.config"
# Settings of PEFT that say how an adapter came to be, or where it belongs, and leave its result alone.
_HARMLESS = frozenset((
    "auto_mapping", "base_model_name_or_path", "corda_config", "eva_config", "exclude_modules", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "revision", "runtime_config",
    "target_modules", "task_type", "use_rslora", "rank_pattern", "alpha_pattern",
))  # fmt: skip
_CHANGE_BASE = ("pissa", "olora", "corda", "loftq")  # beginnings that change the base weights too


@dataclass(frozen=True, slots=True, eq=False)
class LowRank:
    """A change of one matrix: A f32 [R, K in], B f32 [N out, R].

    Raises:
        AdapterMismatch: A and B are of different ranks.
        CorruptWeights: they are no matrices of finite numbers.
    """

    a_RK: Floats
    b_NR: Floats

    def __post_init__(self) -> None:
        for name in ("a_RK", "b_NR"):
            matrix = np.ascontiguousarray(getattr(self, name), np.float32)
            if matrix.ndim != 2 or 0 in matrix.shape or not np.isfinite(matrix).all():
                raise CorruptWeights(
                    f"an adapter's matrix of shape {matrix.shape}", why="it is no matrix of finite numbers",
                    do="train the adapter again, or fetch it again",
                )  # fmt: skip
            object.__setattr__(self, name, matrix)
        if self.a_RK.shape[0] != self.b_NR.shape[1]:
            raise AdapterMismatch(
                f"A of rank {self.a_RK.shape[0]} and B of rank {self.b_NR.shape[1]}",
                why="the two halves of a change must be of one rank",
            )

    @property
    def rank(self) -> int:
        return int(self.a_RK.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """(N out, K in) of the matrix that it changes."""
        return int(self.b_NR.shape[0]), int(self.a_RK.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """See the module.

    Args:
        rank: of every change.
        alpha: the strength: `scale` is alpha / rank, or alpha / sqrt(rank) with `rslora`.
        base: the name or path of the model it was trained on, for people.
        layers: for each layer, from the first on, its changes by short name (`MATRICES`); the base may have more.
        weights: fingerprint of the weights it was trained on (`kernel.model.lora.fingerprint`); "" where nobody said.

    Raises:
        AdapterMismatch: a change is of another rank.
        CorruptWeights: it changes nothing, or something that is not a matrix of the decoder.
    """

    rank: int
    alpha: float
    base: str
    layers: tuple[Mapping[str, LowRank], ...]
    rslora: bool = False
    weights: str = ""
    version: str = field(init=False, default="")
    """sha256 over all that makes its result: equal version means bit-equal results on equal weights."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_RANK:
            raise AdapterMismatch(f"an adapter of rank {self.rank}", why=f"ranks go from 1 to {MAX_RANK}")
        if not np.isfinite(self.alpha):
            raise CorruptWeights(f"an adapter of strength {self.alpha}", why="it is no finite number")
        if not any(self.layers):
            raise CorruptWeights("an adapter that changes nothing", why="it has no matrices")
        digest = hashlib.sha256(f"lora {self.rank} {float(self.alpha)!r} {self.rslora}".encode())
        for i, layer in enumerate(self.layers):
            for name, change in sorted(layer.items()):
                if name not in MATRICES:
                    raise CorruptWeights(f"an adapter of {name!r}", why=f"there are {', '.join(MATRICES)}")
                if change.rank != self.rank:
                    raise AdapterMismatch(
                        f"the adapter's {name} of layer {i} is of rank {change.rank}",
                        why=f"the adapter says that it is of rank {self.rank}",
                        do="use the configuration that belongs to these matrices",
                    )
                digest.update(f"\0{i} {name} {change.shape}\0".encode())
                digest.update(change.a_RK.data)
                digest.update(change.b_NR.data)
        frozen = tuple(MappingProxyType(dict(layer)) for layer in self.layers)
        object.__setattr__(self, "layers", frozen)
        object.__setattr__(self, "version", digest.hexdigest())

    @property
    def scale(self) -> float:
        """The factor on what A and B make of an input."""
        return float(self.alpha / (self.rank**0.5 if self.rslora else self.rank))

    @property
    def matrices(self) -> tuple[str, ...]:
        """The short names of what it changes, in any layer."""
        return tuple(name for name in MATRICES if any(name in layer for layer in self.layers))

    @property
    def nbytes(self) -> int:
        """Of its matrices in f32."""
        return sum(c.a_RK.nbytes + c.b_NR.nbytes for layer in self.layers for c in layer.values())

    def check(self, shapes: Mapping[str, tuple[int, int]], layers: int, weights: str = "") -> None:
        """See that it fits a model.

        Args:
            shapes: (N out, K in) of each matrix, by short name.
            layers: of the model.
            weights: fingerprint of the model's weights.

        Raises:
            AdapterMismatch: it was made for other weights.
        """
        why = ""
        if len(self.layers) > layers:
            why = f"it changes layer {len(self.layers) - 1}, and the model has {layers} layers"
        for i, layer in enumerate(self.layers):
            for name, change in layer.items():
                if not why and change.shape != shapes[name]:
                    (n, k), (own_n, own_k) = shapes[name], change.shape
                    why = f"its {name} of layer {i} changes a matrix of {own_n} x {own_k}; the model's is {n} x {k}"
        if not why and weights and self.weights and weights != self.weights:
            why = "it was trained on other weights of the same shape"
        if why:
            raise AdapterMismatch(
                "the adapter is for another model" + (f" ({self.base})" if self.base else ""), why=why,
                do="run the model that it was trained on, or train one for this",
            )  # fmt: skip


# -- reading ---------------------------------------------------------------------------------------------------------


def read_adapter(path: str | Path) -> Adapter:
    """The adapter of a folder that PEFT or `write_adapter` wrote, or of its safetensors file, which of PEFT's needs its
    configuration beside it.

    Raises:
        ModelNotFound: there is none.
        CorruptWeights: a file is damaged, or lacks a half of a change.
        AdapterMismatch: matrices of another rank than the configuration says.
        UnsupportedModel: an adapter that is more than LoRA on the matrices of attention and feed-forward.
    """
    from llmos.drivers.weights import safetensors

    path = Path(path).expanduser()
    folder, file = (path, path / TENSORS) if path.is_dir() else (path.parent, path)
    if not file.is_file():
        other = folder / "adapter_model.bin"
        raise ModelNotFound(
            f"there is no adapter at {path}",
            why=f"{other} is a pickle, which could run code"
            if other.is_file()
            else f"there is no file {file}",
            do="save it as safetensors" if other.is_file() else f"name a folder with {CONFIG} and {TENSORS}",
        )
    tensors, header = safetensors.read_file(file)
    about = json.loads(header[8:].tobytes()).get("__metadata__")
    about = about if isinstance(about, dict) else {}
    weights, inside = about.get(_WEIGHTS, ""), about.get(_INSIDE)
    if not path.is_dir() and not (folder / CONFIG).is_file() and isinstance(inside, str):
        try:
            config = dict(json.loads(inside))
        except (ValueError, TypeError) as e:
            raise _damaged(file, f"its own configuration is not sound: {e}") from None
    else:
        config = safetensors.read_json(folder / CONFIG)
    return _adapter(config, {name: t.dequantise() for name, t in tensors.items()}, str(weights), file)


def _adapter(config: Mapping[str, Any], tensors: Mapping[str, Floats], weights: str, file: Path) -> Adapter:
    _refuse(config)
    rank, alpha, rslora = config.get("r"), config.get("lora_alpha"), bool(config.get("use_rslora"))
    if type(rank) is not int or not isinstance(alpha, int | float) or isinstance(alpha, bool):
        raise _damaged(file, f"{CONFIG} says rank {rank!r} and alpha {alpha!r}")
    halves: dict[tuple[int, str], dict[str, Floats]] = {}
    modules: dict[tuple[int, str], str] = {}
    for name, values in tensors.items():
        found = _NAME.fullmatch(name)
        if found is None or found[3] not in _OURS:
            raise UnsupportedModel(
                f"the adapter changes {name!r}",
                why=f"only low-rank changes of {', '.join(_PEFT.values())} are run here",
                do="train one with these as its target modules",
            )
        where = int(found[2]), _OURS[found[3]]
        if found[4] in halves.setdefault(where, {}):
            raise _damaged(file, f"{name!r} is there twice")
        halves[where][found[4]], modules[where] = values, found[1]
    for where, half in halves.items():
        if half.keys() != {"A", "B"}:
            raise _damaged(file, f"{modules[where]} lacks its lora_{'B' if 'A' in half else 'A'}")
    settings = {where: _settings(config, module, rank, float(alpha)) for where, module in modules.items()}
    layers: list[dict[str, LowRank]] = [{} for _ in range(1 + max((i for i, _ in halves), default=-1))]
    whole = max([rank, *(r for r, _ in settings.values())]) if settings else rank
    plain = all(each == (rank, float(alpha)) for each in settings.values())
    scale = _scale(float(alpha), rank, rslora)
    for (i, name), half in halves.items():
        own_rank, own_alpha = settings[i, name]
        change = LowRank(half["A"], half["B"])
        if change.rank != own_rank:
            raise AdapterMismatch(
                f"{modules[i, name]} is of rank {change.rank}", why=f"{CONFIG} says {own_rank}",
                do=f"put the {CONFIG} that belongs to it beside {file.name}",
            )  # fmt: skip
        layers[i][name] = (
            change if plain else _widened(change, whole, _scale(own_alpha, own_rank, rslora) / scale)
        )
    base = config.get("base_model_name_or_path")
    if not plain:  # of one rank from here on; `alpha` such that the scale stays
        rank, alpha = whole, scale * (whole**0.5 if rslora else whole)
    return Adapter(rank, float(alpha), base if isinstance(base, str) else "", tuple(layers), rslora, weights)


def _refuse(config: Mapping[str, Any]) -> None:
    """UnsupportedModel for every setting that would change the result."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModel(f"an adapter of the kind {kind!r}", why="only LORA is run here")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_BASE):
        raise UnsupportedModel(
            f"an adapter that began as {start!r}", why="such a start changes the base weights too",
            do="have PEFT convert it: save_pretrained(path_initial_model_for_weight_conversion=…)",
        )  # fmt: skip
    for key, value in config.items():
        if key in _HARMLESS or (key == "bias" and value == "none") or not value:
            continue
        known = {
            "use_dora": "it is DoRA",
            "bias": "it trains biases",
            "modules_to_save": "it trains whole modules",
        }
        raise UnsupportedModel(
            f"the adapter's {key} is {str(value)[:60]}",
            why=known.get(key, "that changes what it computes in a way that is not known here"),
            do="train a plain LoRA",
        )


def _settings(config: Mapping[str, Any], module: str, rank: int, alpha: float) -> tuple[int, float]:
    """Rank and alpha of one module, which patterns may set apart; as PEFT matches them."""

    def of(key: str, value: Any) -> Any:
        patterns = config.get(key) or {}
        if not isinstance(patterns, dict):
            raise CorruptWeights(f"{CONFIG}: {key} is no object")
        for pattern, own in patterns.items():
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return own
            except re.error as e:
                raise CorruptWeights(f"{CONFIG}: the {key} {pattern!r} is no pattern", why=str(e)) from None
        return value

    own_rank, own_alpha = of("rank_pattern", rank), of("alpha_pattern", alpha)
    if type(own_rank) is not int or own_rank < 1 or not isinstance(own_alpha, int | float):
        raise CorruptWeights(f"{CONFIG} says rank {own_rank!r} and alpha {own_alpha!r} of {module}")
    return own_rank, float(own_alpha)


def _scale(alpha: float, rank: int, rslora: bool) -> float:
    return alpha / (max(rank, 1) ** 0.5 if rslora else max(rank, 1))


def _widened(change: LowRank, rank: int, factor: float) -> LowRank:
    """The same change times `factor`, with zeros up to `rank`."""
    more = rank - change.rank
    b_NR = change.b_NR * np.float32(factor)
    return LowRank(np.pad(change.a_RK, ((0, more), (0, 0))), np.pad(b_NR, ((0, 0), (0, more))))


def _damaged(file: Path, why: str) -> CorruptWeights:
    return CorruptWeights(f"the adapter {file} is damaged", why=why, do="fetch it again, or train it again")


# -- writing ---------------------------------------------------------------------------------------------------------


def write_adapter(adapter: Adapter, path: str | Path) -> Path:
    """Write an adapter as a folder that `peft.PeftModel.from_pretrained` reads; in place of the adapter that is there.

    Raises:
        DiskFull: there is no room; what was there is whole.
        CorruptWeights: `path` is something else than a folder of an adapter.
    """
    path = Path(path).expanduser().absolute()
    old = path.exists()
    if old and not (path.is_dir() and ((path / TENSORS).is_file() or not any(path.iterdir()))):
        raise CorruptWeights(
            f"{path} is no adapter", why="what stands there would be lost", do="name another folder"
        )
    fresh = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        write_whole(fresh / TENSORS, _tensors(adapter))
        write_whole(fresh / CONFIG, json.dumps(_config(adapter), indent=2).encode())
        if old:
            _exchange(fresh, path)
        else:
            fresh.rename(path)
        sync(path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room for the adapter {path}", why="the disk is full; what was there is whole",
                do="free some space",
            ) from None  # fmt: skip
        raise CorruptWeights(
            f"the adapter {path} cannot be written", why=error.strerror or str(error),
            do="name a folder that you may write to",
        ) from None  # fmt: skip
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path


def _tensors(adapter: Adapter) -> bytes:
    from safetensors.numpy import save

    tensors = {}
    for i, layer in enumerate(adapter.layers):
        for name, change in layer.items():
            module = f"base_model.model.model.layers.{i}.{_PEFT[name]}"
            tensors[f"{module}.lora_A.weight"] = change.a_RK
            tensors[f"{module}.lora_B.weight"] = change.b_NR
    about = {"format": "pt", _INSIDE: json.dumps(_config(adapter))}
    if adapter.weights:
        about[_WEIGHTS] = adapter.weights
    return bytes(save(tensors, about))


def _config(adapter: Adapter) -> dict[str, Any]:
    alpha = int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": adapter.base or None,
        "r": adapter.rank, "lora_alpha": alpha, "use_rslora": adapter.rslora, "lora_dropout": 0.0, "bias": "none",
        "target_modules": sorted(_PEFT[name].rpartition(".")[2] for name in adapter.matrices),
        "layers_to_transform": _some(adapter), "layers_pattern": None, "fan_in_fan_out": False, "use_dora": False,
        "modules_to_save": None, "init_lora_weights": True, "inference_mode": True, "revision": None,
    }  # fmt: skip


def _some(adapter: Adapter) -> list[int] | None:
    """The layers that are changed, where it is not all from the first on."""
    changed = [i for i, layer in enumerate(adapter.layers) if layer]
    return None if len(changed) == len(adapter.layers) else changed


def _exchange(fresh: Path, path: Path) -> None:
    """Two folders change places in one step, so that there is an adapter at every moment."""
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is None or swap(here, os.fsencode(fresh), here, os.fsencode(path), both):
        aside = fresh.with_name(fresh.name + ".old")  # a file system that cannot
        path.rename(aside)
        fresh.rename(path)
        aside.rename(fresh)
