"""The tokenizer that a GGUF header describes.

What: the two vocabularies of GGUF files: `gpt2` (byte-level BPE with ranked merges) and `llama`
    (SentencePiece BPE with scores and byte fallback).
Invariant: added tokens (control, user-defined, unknown) are not in the dictionaries that content is looked
    up in, so no merge can reach one.
Interface: `from_gguf(metadata)` -> Tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from llmos.abi.errors import CorruptWeights, UnsupportedModel
from llmos.drivers.weights.bpe import BYTE_SYMBOLS, merge, symbol_bytes
from llmos.drivers.weights.gguf import Strings
from llmos.drivers.weights.pretokenise import WHOLE_WORDS, splitter
from llmos.drivers.weights.tokenizer import Added, Tokenizer

# What ends an answer, beside the ids that a header names.
END_TEXTS = frozenset(
    {
        "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<end_of_turn>",
        "<|end|>", "</s>", "<eos>", "<EOT>", "<|end_of_turn|>",
    }
)  # fmt: skip
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_REMEMBERED = 1 << 16  # words; then the memory of words starts anew
_LONGEST_REMEMBERED = 64  # characters
_SPACE = "\u2581"


class _ByteLevel:
    """GPT-2's kind: words by expressions, bytes as printable letters, merges by rank."""

    def __init__(
        self, tokens: Strings, merges: Strings, pre: str, hidden: Set[int], unused: Set[int]
    ) -> None:
        self.size = len(tokens)
        self._unused = unused
        self._tokens = tokens
        self._split = splitter(pre)
        self._whole_words = pre in WHOLE_WORDS
        self._ids = dict(zip(tokens.all_raw(), range(self.size), strict=True))
        for token in hidden | unused:
            if self._ids.get(raw := tokens.raw(token)) == token:
                del self._ids[raw]
        self._ranks = dict(zip(merges.all_raw(), range(len(merges)), strict=True))
        self._words: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, *, start: bool) -> list[int]:
        known = self._words
        ids: list[int] = []
        for word in self._split(text):
            found = known.get(word)
            ids.extend(self._word(word) if found is None else found)
        return ids

    def _word(self, word: str) -> tuple[int, ...]:
        # A byte that the vocabulary lacks is passed over before anything is merged, as the library does.
        symbols = [symbol for b in word.encode() if (symbol := BYTE_SYMBOLS[b]) in self._ids]
        whole = self._ids.get(b"".join(symbols)) if self._whole_words else None
        ids = (whole,) if whole is not None else tuple(self._merged(symbols))
        if len(word) <= _LONGEST_REMEMBERED:
            if len(self._words) >= _REMEMBERED:
                self._words = {}
            self._words[word] = ids
        return ids

    def _merged(self, symbols: list[bytes]) -> Iterator[int]:
        ranks, ids = self._ranks, self._ids
        for part in merge(symbols, lambda left, right: ranks.get(left + b" " + right)):
            token = ids.get(part)
            if token is not None:
                yield token
            else:  # a merge that leads to no token of content: its letters one by one
                yield from (ids[s] for letter in part.decode() if (s := letter.encode()) in ids)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token in self._unused else symbol_bytes(self._tokens.raw(token))


class _SentencePiece:
    """SentencePiece BPE: characters, the best-scored neighbours joined first, unknown characters as bytes."""

    def __init__(
        self,
        tokens: Strings,
        scores: Sequence[float],
        types: Sequence[int],
        hidden: Set[int],
        unused: Set[int],
    ) -> None:
        self.size = len(tokens)
        self._tokens, self._unused = tokens, unused
        raw = tokens.all_raw()
        self._ids = {r: i for i, r in enumerate(raw) if types[i] in (_NORMAL, _USER) and i not in hidden}
        self._scores = scores
        named = {i: byte_of(raw[i]) for i in range(self.size) if types[i] == _BYTE}
        self._byte_of = {i: byte for i, byte in named.items() if byte is not None}
        self._bytes = {byte: i for i, byte in self._byte_of.items()}
        self._unknown = next((i for i in range(self.size) if types[i] == _UNKNOWN), None)
        # Where no token crosses from a letter to a space, words can be merged, and remembered, one at a time.
        space = _SPACE.encode()
        crossing = re.compile(b"(?<!" + space + b")(?<!^)" + space)
        self._by_word = not any(crossing.search(r) for r in self._ids)
        self._words: dict[str, tuple[int, ...]] = {}

    def encode(self, text: str, *, start: bool) -> list[int]:
        if not text:
            return []
        text = ((" " if start else "") + text).replace(" ", _SPACE)
        words = re.findall(f"{_SPACE}+[^{_SPACE}]*|[^{_SPACE}]+", text) if self._by_word else [text]
        ids: list[int] = []
        for word in words:
            found = self._words.get(word)
            if found is None:
                found = tuple(self._word(word))
                if len(word) <= _LONGEST_REMEMBERED:
                    if len(self._words) >= _REMEMBERED:
                        self._words = {}
                    self._words[word] = found
            ids.extend(found)
        return ids

    def _word(self, word: str) -> Iterator[int]:
        ids, scores = self._ids, self._scores

        def rank(left: bytes, right: bytes) -> float | None:
            token = ids.get(left + right)
            return None if token is None else -scores[token]

        for part in merge([c.encode() for c in word], rank):
            token = ids.get(part)
            if token is not None:
                yield token
            else:
                for byte in part:
                    found = self._bytes.get(byte, self._unknown)
                    if found is not None:
                        yield found

    def token_bytes(self, token: int) -> bytes:
        byte = self._byte_of.get(token)
        if byte is not None:
            return bytes((byte,))
        if token in self._unused:
            return b""
        return self._tokens.raw(token).replace(_SPACE.encode(), b" ")


def byte_of(token: bytes) -> int | None:
    """The byte that a token like `<0x0A>` stands for."""
    found = re.fullmatch(rb"<0x([0-9A-Fa-f]{2})>", token)
    return int(found[1], 16) if found else None


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer of a GGUF header.

    Raises:
        UnsupportedModel: a vocabulary that is neither `gpt2` nor `llama`, or an unknown way to cut words.
        CorruptWeights: the header's lists are missing or contradict one another.
    """

    def get(key: str) -> Any:
        return metadata.get("tokenizer.ggml." + key)

    kind, tokens, types = get("model"), get("tokens"), get("token_type")
    if kind not in ("gpt2", "llama"):
        raise UnsupportedModel(
            f"the vocabulary kind {kind!r} is not supported",
            why="gpt2 and llama are",
            do="choose another model",
        )
    if not isinstance(tokens, Strings) or not len(tokens):
        raise _bad("it lists no tokens")
    size = len(tokens)
    types = np.full(size, _NORMAL, np.int64) if types is None else np.asarray(types)
    if types.shape != (size,) or types.dtype.kind not in "iu":
        raise _bad(f"it lists {size} tokens but {types.size} token types")
    added = {}
    for token in np.flatnonzero(np.isin(types, (_UNKNOWN, _CONTROL, _USER))).tolist():
        text = tokens[token]
        # User-defined runs of blanks (Gemma) are text that a document may contain, and can command nothing.
        if types[token] == _CONTROL or text.strip():
            added[token] = Added(text, control=bool(types[token] != _USER))
    hidden, unused = frozenset(added), frozenset(np.flatnonzero(types == _UNUSED).tolist())
    vocabulary: _ByteLevel | _SentencePiece
    if kind == "gpt2":
        merges = get("merges")
        if not isinstance(merges, Strings):
            raise _bad("it lists no merges")
        vocabulary = _ByteLevel(tokens, merges, str(get("pre") or "default"), hidden, unused)
    else:
        scores = np.asarray(get("scores") if get("scores") is not None else ())
        if scores.shape != (size,) or scores.dtype.kind != "f":
            raise _bad(f"it lists {size} tokens but {scores.size} scores")
        vocabulary = _SentencePiece(tokens, scores.tolist(), types.tolist(), hidden, unused)
    ends = {i for i, token in added.items() if token.text in END_TEXTS}
    ends |= {
        i
        for key in ("eos_token_id", "eot_token_id", "eom_token_id")
        if (i := _id(get(key), size)) is not None
    }
    bos = _id(get("bos_token_id"), size)
    add_bos = get("add_bos_token")
    prefix = get("add_space_prefix")
    return Tokenizer(
        vocabulary,
        added,
        frozenset(ends),
        bos_id=bos,
        add_bos=bos is not None and bool(kind == "llama" if add_bos is None else add_bos),
        space_prefix=kind == "llama" and (prefix is None or bool(prefix)),
    )


def _id(value: object, size: int) -> int | None:
    return value if isinstance(value, int) and 0 <= value < size else None


def _bad(why: str) -> CorruptWeights:
    return CorruptWeights("the file's tokenizer is damaged", why=why, do="fetch the file again")
