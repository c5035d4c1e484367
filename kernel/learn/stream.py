"""Documents as two streams of tokens, one to learn from and one held out, in windows.

What: reads documents, trains a vocabulary on them, and cuts both streams into windows that overlap by a token, so that
    each token is foretold once; those to learn from are in a fixed random order.
Invariant: the same documents give the same streams. They are kept beside the vocabulary, by the content of the files
    that they are of: whoever goes on does not read the documents again.
Interface: `stream(paths, out, vocab, window, seed) -> Stream`; `windows(tokens, at, length)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import BadExamples
from llmos.kernel.learn.packing import I32, Example
from llmos.kernel.learn.pretrain import END, divide, texts, vocabulary

KEPT = "streams.npz"


@dataclass(frozen=True, slots=True)
class Stream:
    """To learn from, with the order of its windows, and held out."""

    learnt_from: I32
    order: NDArray[np.int64]
    held_out: I32
    bytes_a_token: float  # of the held-out text
    vocab: int

    @property
    def digest(self) -> str:
        """Of all tokens."""
        return hashlib.sha256(self.learnt_from.tobytes() + self.held_out.tobytes()).hexdigest()


def stream(paths: Sequence[Path], out: Path, vocab: int, window: int, seed: int) -> Stream:
    """The documents under `paths`, with a vocabulary of about `vocab` tokens, both kept in `out`.

    Raises:
        BadExamples: too few documents, or one that cannot be read.
    """
    source = _source(paths, vocab)
    found = _kept(out / KEPT, source)
    if found is None:
        found = _read(paths, out, vocab)
        part = out / f"{KEPT}.part"
        with part.open("wb") as file:
            np.savez(file, source=np.array(source), **found)
        part.replace(out / KEPT)
    order = np.random.default_rng(seed).permutation((len(found["learnt_from"]) - 1) // (window - 1))
    sizes = float(found["bytes_a_token"]), int(found["vocab"])
    return Stream(found["learnt_from"], order, found["held_out"], *sizes)


def windows(tokens: I32, at: Sequence[int] | NDArray[np.int64], length: int) -> list[Example]:
    """Windows that overlap by a token: each token is foretold once."""
    weights = np.ones(length, np.float32)
    weights[0] = 0
    return [Example(tokens[i * (length - 1) :][:length], weights) for i in at]


def _source(paths: Sequence[Path], vocab: int) -> str:
    """Of all files' names and contents."""
    digest = hashlib.sha256(str(vocab).encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode(errors="replace"))
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _kept(path: Path, source: str) -> dict[str, Any] | None:
    """The streams that lie there, where they are of this source."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            found = dict(kept)
    except (OSError, ValueError, EOFError, BadZipFile):
        return None
    return found if str(found.pop("source", "")) == source else None


def _read(paths: Sequence[Path], out: Path, vocab: int) -> dict[str, Any]:
    learnt_from, held_out = divide(texts(paths))
    if not learnt_from or not held_out:
        raise BadExamples(
            f"{len(learnt_from) + len(held_out)} documents are too few",
            why="some are held out", do="name more",
        )  # fmt: skip
    tokenizer = vocabulary(learnt_from, vocab, out)
    end = tokenizer.token_to_id(END)

    def tokens(documents: Sequence[str]) -> I32:
        parts = [np.array([*e.ids, end], np.int32) for e in tokenizer.encode_batch(list(documents))]
        return np.concatenate([np.array([end], np.int32), *parts])

    held = tokens(held_out)
    size = sum(len(t.encode()) for t in held_out)
    return {
        "learnt_from": tokens(learnt_from), "held_out": held, "bytes_a_token": np.array(size / len(held)),
        "vocab": np.array(tokenizer.get_vocab_size()),
    }  # fmt: skip
