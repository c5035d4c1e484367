"""A language model in two files: `parameters.safetensors`, and this program. It needs Python, numpy, and nothing else.

    python answer.py "What is an operating system?"

A text is cut into tokens. Each becomes a vector, to which each layer adds what earlier tokens have to say (attention)
and what it knows itself (feed-forward); out comes a score for every token that could follow. The highest is said, and
told to the decoder in turn. At names: T tokens, S tokens so far, D vector, N query and K key heads, G = N / K, H head.
"""

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

f32 = np.float32
Array = np.ndarray[Any, np.dtype[np.float32]]
Model = tuple[dict[str, Any], dict[str, Array]]  # what its file says about it, and its tensors


class Tokenizer:
    """Byte-pair encoding: a word is letters, one a byte, and neighbours are joined, the lowest rank first."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.texts, self.form, self.whole_words = (about[k] for k in ("tokens", "form", "whole_words"))
        self.splits, hidden = [re.compile(f"({p})") for p in about["splits"]], set(about["hidden"])
        self.ids = {text: i for i, text in enumerate(self.texts) if i not in hidden}
        self.ranks = {tuple(pair): rank for rank, pair in enumerate(about["merges"])}
        self.letters = about["letters"]  # of byte 0, 1, ... 255
        self.bytes = {letter: byte for byte, letter in enumerate(self.letters)}

    def encode(self, text: str) -> list[int]:
        words = [unicodedata.normalize(self.form, text) if self.form else text]
        for pattern in self.splits:
            words = [part for word in words for part in pattern.split(word) if part]
        return [token for word in words for token in self.word(word)]

    def word(self, word: str) -> Iterator[int]:
        parts = [letter for byte in word.encode() if (letter := self.letters[byte]) in self.ids]
        if self.whole_words and "".join(parts) in self.ids:
            parts = ["".join(parts)]
        while (ranks := [self.ranks.get(p, np.inf) for p in pairwise(parts)]) and min(ranks) < np.inf:
            at = ranks.index(min(ranks))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        for part in parts:
            yield from (self.ids[p] for p in ([part] if part in self.ids else part) if p in self.ids)

    def decode(self, token: int) -> bytes:
        return bytes(self.bytes[letter] for letter in self.texts[token] if letter in self.bytes)


class Decoder:
    """The network, and the keys and values of all that it was told."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, Array]) -> None:
        self.c, self.w, self.told = config, tensors, 0
        self.memory = [np.zeros((2, 0, config["kv_heads"], config["head_dim"]), f32)] * config["layers"]

    def tell(self, tokens: list[int]) -> Array:
        """The next tokens; a score [V] for each token that could follow the last."""
        w, at_T = self.w, np.arange(self.told, self.told + len(tokens))
        self.told += len(tokens)
        x_TD = w["embed"][tokens]
        for i in range(self.c["layers"]):
            x_TD = x_TD + self.attention(i, self.norm(x_TD, f"{i}.attn_norm"), at_T)
            x_TD = x_TD + self.feed_forward(i, self.norm(x_TD, f"{i}.mlp_norm"))
        return self.norm(x_TD[-1], "final_norm") @ w.get("head", w["embed"]).T

    def attention(self, i: int, x_TD: Array, at_T: Any) -> Array:
        c, w, T = self.c, self.w, len(at_T)
        N, K, H = (c[name] for name in ("heads", "kv_heads", "head_dim"))
        qkv = x_TD @ w[f"{i}.qkv"].T + w.get(f"{i}.qkv_bias", f32(0))
        q, k, v = (part.reshape(T, -1, H) for part in np.split(qkv, [N * H, (N + K) * H], axis=-1))
        cos, sin = (w[f"rope.{c['ropes'][i]}.{name}"][at_T, None] for name in ("cos", "sin"))
        q, k = (self.norm(x, f"{i}.{name}_norm") for x, name in ((q, "q"), (k, "k")))
        q, k = (rotated(x, cos, sin) for x in (q, k))
        keys_SKH, values_SKH = self.memory[i] = np.concatenate([self.memory[i], np.stack([k, v])], axis=1)
        q_TKGH = q.reshape(T, K, N // K, H) * f32(H**-0.5)
        score_KGTS = np.einsum("tkgh,skh->kgts", q_TKGH, keys_SKH, optimize=True)
        back_TS = at_T[:, None] - np.arange(self.told)  # how far back each token lies; those ahead are unseen
        score_KGTS[:, :, (back_TS < 0) | (back_TS >= (c["windows"][i] or self.told))] = -np.inf
        share_KGTS = np.exp(score_KGTS - score_KGTS.max(-1, keepdims=True))
        share_KGTS /= share_KGTS.sum(-1, keepdims=True)
        heard_TKGH = np.einsum("kgts,skh->tkgh", share_KGTS, values_SKH, optimize=True)
        return heard_TKGH.reshape(T, -1) @ w[f"{i}.o"].T

    def feed_forward(self, i: int, x_TD: Array) -> Array:
        gate, up = x_TD @ self.w[f"{i}.gate"].T, x_TD @ self.w[f"{i}.up"].T
        return (gate / 2 * (1 + np.tanh(gate / 2)) * up) @ self.w[f"{i}.down"].T  # SiLU(gate) * up

    def norm(self, x: Array, name: str) -> Array:
        """x over its size, times the weight; x as it is where the model has no such norm."""
        if name not in self.w:
            return x
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + f32(self.c["norm_eps"])) * self.w[name]


def rotated(x_TNH: Array, cos: Array, sin: Array) -> Array:
    """Pairs of numbers turned by angles that grow with the position."""
    a, b = np.split(x_TNH, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def load(path: Path) -> Model:
    """A safetensors file; its tensors are read when they are used."""
    raw = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    header = json.loads(raw[8:start].tobytes())
    about, tensors = json.loads(header.pop("__metadata__")["model"]), {}
    for name, info in header.items():
        first, last = (start + at for at in info["data_offsets"])
        values = raw[first:last].view({"F32": f32, "F16": np.float16}[info["dtype"]])
        tensors[name] = values.reshape(info["shape"]).astype(f32, copy=False)
    return about, tensors


def answer(model: Model, text: str, most: int, raw: bool) -> Iterator[int]:
    """The tokens of the answer, or with `raw` of the text's continuation, the likeliest each time."""
    about, decoder, tokens = model[0], Decoder(model[0]["config"], model[1]), Tokenizer(model[0]).encode(text)
    begin = about["begin"] if about["begins"] or not tokens else []
    scores_V = decoder.tell(begin + tokens if raw else about["before"] + tokens + about["after"])
    for _ in range(min(most, about["positions"] - decoder.told)):
        if not raw:
            scores_V[about["never"]] = -np.inf  # what opens a call or a turn is not an answer's to say
        if (token := int(scores_V.argmax())) in about["ends"]:
            return
        yield token
        scores_V = decoder.tell([token])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask the language model that lies beside this program.")
    parser.add_argument("text", help="the question")
    parser.add_argument("--raw", action="store_true", help="continue the text instead of answering it")
    parser.add_argument("--tokens", type=int, default=256, metavar="N", help="say at most N")
    args = parser.parse_args()
    model = load(Path(__file__).with_name("parameters.safetensors"))
    tokenizer = Tokenizer(model[0])
    for token in answer(model, args.text, args.tokens, args.raw or not model[0]["after"]):
        sys.stdout.buffer.write(tokenizer.decode(token))
        sys.stdout.flush()
