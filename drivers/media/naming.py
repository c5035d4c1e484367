"""What a picture shows, as one of the thousand classes of ImageNet: EfficientNet-Lite0, in JAX.

What: the network of https://arxiv.org/abs/1905.11946 in its Lite variant (no squeeze-and-excite, ReLU6), its weights
    converted once from the published file to safetensors beside it.
Invariant: the published file is a pickle and is read by an unpickler that knows tensors only (`torchfile`). Batch norms
    are folded into the convolutions, so inference is convolutions, ReLU6 and one product.
Interface: `Namer().name(rgb, most) -> list[Named]`; `Namer.probabilities(rgb)`.

Shapes: X [B, Y, X, C]; convolutions [Y, X, C_in, C_out], as `lax.conv_general_dilated` takes them with NHWC, HWIO.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos.abi.errors import CorruptWeights
from llmos.drivers.media.errors import MediaError, model, part
from llmos.drivers.media.pictures import Pixels
from llmos.drivers.media.torchfile import read_torch

MODEL = "efficientnet-lite0"
SIDE = 224  # pixels a side that the network sees
_MIDDLE, _SPREAD = 127.0, 128.0  # of pixel values, as the weights were trained with
_EPSILON = 1e-3
_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""(blocks, stride of the first block); kernels and channels are in the weights."""
_CONVERTED = "model.safetensors"

Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Named:
    """A class and its probability, 0 to 1."""

    name: str
    share: float


class Namer:
    """Loads and compiles by the first picture; pictures take turns."""

    def __init__(self) -> None:
        self._turn = threading.Lock()

    def name(self, rgb: Pixels, most: int = 3, least: float = 0.1) -> list[Named]:
        """The likeliest classes of a picture, none below `least`.

        Raises:
            MediaError: the model is not on this machine.
        """
        shares = self.probabilities(rgb)
        best = np.argsort(-shares)[:most]
        return [
            Named(classes()[int(i)], round(float(shares[i]), 3)) for i in best if float(shares[i]) >= least
        ]

    def probabilities(self, rgb: Pixels) -> npt.NDArray[np.float32]:
        """f32 [1000], adding up to 1."""
        pixels = prepared(rgb)
        with self._turn:
            network, weights = self._network
            return np.asarray(network(weights, pixels[None]))[0]

    @cached_property
    def _network(self) -> tuple[Any, Any]:
        weights = load(model(MODEL).path)
        if "jax" not in sys.modules:  # an app's process leaves the accelerator to the kernel
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import jax

        here = jax.local_devices(backend="cpu")[0]
        return jax.jit(_forward), jax.device_put(dict(weights), here)


@cache
def classes() -> tuple[str, ...]:
    """The names of ImageNet's classes, in their order."""
    return tuple(json.loads(Path(__file__).with_name("imagenet_classes.json").read_text("utf-8")))


def prepared(rgb: Pixels) -> npt.NDArray[np.float32]:
    """f32 [224, 224, 3]: the whole picture squeezed a little, its middle cut out, normalised."""
    pillow = part("PIL.Image")
    image = pillow.fromarray(rgb)
    scale = SIDE / min(image.size)
    size = tuple(max(SIDE, round(side * scale)) for side in image.size)
    left, top = ((side - SIDE) // 2 for side in size)
    small = image.resize(size, pillow.Resampling.BICUBIC, reducing_gap=2.0)
    middle = np.asarray(small.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return (middle - np.float32(_MIDDLE)) / np.float32(_SPREAD)


# --- weights


def load(published: Path) -> Weights:
    """The folded weights, converted now if they were not yet.

    Raises:
        MediaError: the published file is damaged.
    """
    from safetensors.numpy import load_file, save_file

    converted = published.with_name(_CONVERTED)
    if converted.is_file() and converted.stat().st_mtime_ns >= published.stat().st_mtime_ns:
        try:
            return load_file(converted)
        except Exception:  # damaged (the library has no public errors): made again
            converted.unlink(missing_ok=True)
    try:
        weights = fold(read_torch(published))
    except (CorruptWeights, KeyError, ValueError) as error:
        raise MediaError(
            f"{MODEL} cannot be read", why=str(error)[:300], do=f"`llmos models verify {MODEL}`"
        ) from None
    fresh = converted.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(dict(weights), fresh)
        fresh.replace(converted)
    except OSError:  # a cache that cannot be written: converted anew each time
        fresh.unlink(missing_ok=True)
    return weights


def fold(state: Mapping[str, npt.NDArray[Any]]) -> Weights:
    """From the published state to convolutions with biases: name -> [Y, X, C_in, C_out] and name + ".bias"."""
    out: dict[str, npt.NDArray[np.float32]] = {}

    def take(name: str, conv: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + _EPSILON)
        kernel = state[f"{conv}.weight"] * scale[:, None, None, None]
        out[name] = np.ascontiguousarray(kernel.transpose(2, 3, 1, 0), np.float32)
        out[f"{name}.bias"] = np.asarray(
            state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale, np.float32
        )

    take("stem", "_conv_stem", "_bn0")
    for i in range(sum(blocks for blocks, _ in _STAGES)):
        block = f"_blocks.{i}"
        if f"{block}._expand_conv.weight" in state:
            take(f"{i}.expand", f"{block}._expand_conv", f"{block}._bn0")
        take(f"{i}.depth", f"{block}._depthwise_conv", f"{block}._bn1")
        take(f"{i}.project", f"{block}._project_conv", f"{block}._bn2")
    take("head", "_conv_head", "_bn1")
    out["classes"] = np.ascontiguousarray(state["_fc.weight"].T, np.float32)
    out["classes.bias"] = np.asarray(state["_fc.bias"], np.float32)
    return out


# --- the network


def _forward(weights: Any, x_BYXC: Any) -> Any:
    """f32 [B, 1000] probabilities."""
    import jax
    import jax.numpy as jnp

    def conv(x: Any, name: str, stride: int = 1, *, depthwise: bool = False) -> Any:
        return weights[f"{name}.bias"][None, None, None] + jax.lax.conv_general_dilated(
            x,
            weights[name],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] if depthwise else 1,
        )

    relu6 = jax.nn.relu6
    x, i = relu6(conv(x_BYXC, "stem", 2)), 0
    for blocks, first in _STAGES:
        for block in range(blocks):
            before, stride = x, first if block == 0 else 1
            if f"{i}.expand" in weights:
                x = relu6(conv(x, f"{i}.expand"))
            x = relu6(conv(x, f"{i}.depth", stride, depthwise=True))
            x = conv(x, f"{i}.project")
            if block:  # the first of a stage changes the shape
                x = x + before
            i += 1
    x = relu6(conv(x, "head")).mean(axis=(1, 2))
    return jax.nn.softmax(jnp.dot(x, weights["classes"]) + weights["classes.bias"][None])
