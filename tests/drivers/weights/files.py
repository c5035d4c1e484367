"""Small weights files, written by hand: sound ones for tests to read, and to damage."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmos.drivers.weights.blocks import BY_NAME
from llmos.drivers.weights.bpe import BYTE_SYMBOLS

CONTROL, USER, NORMAL, UNKNOWN, BYTE = 3, 4, 1, 2, 6
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def text(value: str) -> bytes:
    """A GGUF string."""
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(item: object) -> bytes:
    """A GGUF value with its type."""
    match item:
        case bool():
            return struct.pack("<I?", 7, item)
        case int():
            return struct.pack("<II", 4, item)
        case float():
            return struct.pack("<If", 6, item)
        case str():
            return struct.pack("<I", 8) + text(item)
        case np.ndarray():
            kind = {"float32": 6, "int32": 5, "uint8": 0}[item.dtype.name]
            return struct.pack("<IIQ", 9, kind, item.size) + item.tobytes()
        case list():
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
    raise TypeError(item)


def gguf(
    metadata: Mapping[str, object],
    tensors: Sequence[tuple[str, tuple[int, ...], str, bytes]] = (),
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A GGUF file; shapes are row-major."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(text(key) + value(item) for key, item in metadata.items())
    body = b""
    for name, shape, kind, data in tensors:
        body += b"\0" * (-len(body) % alignment)
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", BY_NAME[kind].code, len(body))
        body += data
    return head + b"\0" * (-len(head) % alignment) + body


def blocks(kind: str, shape: tuple[int, ...], seed: int = 0) -> bytes:
    """Random bytes of the right length."""
    t = BY_NAME[kind]
    count = int(np.prod(shape)) // t.values * t.bytes
    return np.random.default_rng(seed).integers(0, 256, count, np.uint8).tobytes()


def vocabulary() -> dict[str, object]:
    """The header keys of a byte-level vocabulary: all bytes, a few merges, five added tokens."""
    letters = [s.decode() for s in BYTE_SYMBOLS]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "< |", "| >", "i m"]
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    tokens = letters + [m.replace(" ", "") for m in merges] + added
    types = [NORMAL] * (len(tokens) - 5) + [CONTROL] * 3 + [USER] * 2
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": len(tokens) - 3,
        "tokenizer.ggml.bos_token_id": len(tokens) - 5,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def small_gguf() -> bytes:
    """A whole small model file: every kind of key, tensors of several types."""
    metadata = {
        "general.architecture": "llama",
        "general.alignment": 32,
        "llama.block_count": 1,
        "llama.rope.freq_base": 10000.0,
        "list": np.arange(5, dtype=np.float32),
        **vocabulary(),
    }
    shapes = {
        "F32": (4, 8),
        "F16": (3, 8),
        "Q8_0": (4, 64),
        "Q4_K": (2, 256),
        "Q6_K": (2, 256),
        "Q5_0": (4, 32),
    }
    tensors = [(f"blk.0.{k.lower()}", s, k, blocks(k, s, i)) for i, (k, s) in enumerate(shapes.items())]
    return gguf(metadata, tensors)


def safetensors(tensors: Mapping[str, npt.NDArray[np.generic]], **header: object) -> bytes:
    """A safetensors file; `header` replaces whole descriptions."""
    names = {"float32": "F32", "float16": "F16"}
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, array in tensors.items():
        start = len(body)
        body += array.tobytes()
        described[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, len(body)],
        }
    head = json.dumps({**described, **header}).encode()
    return struct.pack("<Q", len(head)) + head + body


def small_safetensors() -> bytes:
    """A safetensors file of three tensors."""
    draw = np.random.default_rng(0)
    return safetensors(
        {
            "a.weight": draw.standard_normal((4, 8)).astype(np.float32),
            "b.weight": draw.standard_normal((3,)).astype(np.float16),
            "c.weight": draw.standard_normal((2, 2, 2)).astype(np.float32),
        }
    )


def written(folder: Path, name: str, data: bytes) -> Path:
    """`data` as a file."""
    path = folder / name
    path.write_bytes(data)
    return path
