"""A byte-level tokenizer written out, for programs that have nothing but Python's own expressions.

What: tokens, merges and word-cutting expressions of a model, out of a GGUF header or a `tokenizer.json`.
Invariant: what reads this as `answer.py` does gives the model's own tokens, or the vocabulary is refused: nothing is
    left out in silence. Characters that have a category are those of this Python's Unicode.
Interface: `vocabulary(weights)`, JSON; `plain(pattern)`, an expression as Python's `re` takes it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import CorruptWeights, UnsupportedModel
from llmos.drivers.weights.bpe import BYTE_SYMBOLS
from llmos.drivers.weights.gguf import Strings
from llmos.drivers.weights.pretokenise import WHOLE_WORDS, expressions
from llmos.drivers.weights.safetensors import read_json

if TYPE_CHECKING:
    from llmos.drivers.weights import Weights


def vocabulary(weights: Weights) -> dict[str, Any]:
    """The tokenizer, as the program wants it.

    Raises:
        UnsupportedModel: it is no byte-level one, or does with text what the program cannot.
    """
    read = _from_gguf if weights.source == "gguf" else _from_json
    tokenizer = weights.tokenizer()
    tokens, merges, patterns, whole_words, form = read(weights)
    return {
        "tokens": tokens,
        "merges": merges,
        "splits": [plain(pattern) for pattern in patterns],
        "whole_words": whole_words,
        "form": form,
        "letters": [symbol.decode() for symbol in BYTE_SYMBOLS],
        "hidden": sorted(tokenizer.control_ids),
    }


_Read = tuple[
    list[str], list[list[str]], list[str], bool, str
]  # tokens, merges, expressions, whole words, form


def _from_gguf(weights: Weights) -> _Read:
    def get(key: str) -> Any:
        return weights.metadata.get("tokenizer.ggml." + key)

    if get("model") != "gpt2":
        raise _unsupported(f"its kind is {get('model')!r}")
    tokens, merges, pre = get("tokens"), get("merges"), str(get("pre") or "default")
    if not isinstance(tokens, Strings) or not isinstance(merges, Strings):
        raise CorruptWeights("the file's tokenizer is damaged", do="fetch the file again")
    pairs = [merge.split(" ", 1) for merge in merges]
    return list(tokens), pairs, list(expressions(pre)), pre in WHOLE_WORDS, ""


def _from_json(weights: Weights) -> _Read:
    source = read_json(weights.files.folder / "tokenizer.json")
    try:
        model = source["model"]
        pre = source["pre_tokenizer"] or {}
        steps = pre["pretokenizers"] if pre.get("type") == "Sequence" else [pre]
        if model["type"] != "BPE" or source.get("normalizer") not in (None, {"type": "NFC"}):
            raise _unsupported("it changes text, or does not join pairs of bytes")
        patterns = [p for step in steps for p in _patterns(step)]
        if "ByteLevel" not in {step.get("type") for step in steps}:
            raise _unsupported("its letters are no bytes")
        pairs = [m.split(" ", 1) if isinstance(m, str) else list(m) for m in model["merges"]]
        tokens = [""] * weights.tokenizer().vocab_size
        for text, i in model["vocab"].items():
            tokens[i] = text
        for added in source.get("added_tokens") or ():
            tokens[added["id"]] = added["content"]
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise _unsupported(f"its description has another form ({type(error).__name__}: {error})") from error
    return (
        tokens,
        pairs,
        patterns,
        bool(model.get("ignore_merges")),
        "NFC" if source.get("normalizer") else "",
    )


def _patterns(step: Mapping[str, Any]) -> list[str]:
    """The expressions that a step of a `tokenizer.json` cuts words by."""
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return [*expressions("gpt-2")] if step.get("use_regex", True) else []
    if kind == "Digits":
        return [r"\p{N}" if step.get("individual_digits") else r"\p{N}+"]
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = step["pattern"]
        return [pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"])]
    raise _unsupported(f"it cuts words by {kind}")


def plain(pattern: str) -> str:
    """An expression for Python's `re`, which knows no `\\p{L}`: classes of characters written out, groups that only
    group."""
    out, inside, at = "", False, 0
    while at < len(pattern):
        named = re.compile(r"\\p\{(\w{1,2})\}|\\([sS])").match(pattern, at)
        if named is not None:
            if named[2] == "S" and inside:
                raise _unsupported("an expression has \\S within brackets")
            ranges = _ranges(named[1] or "space")
            out += ranges if inside else f"[^{ranges}]" if named[2] == "S" else f"[{ranges}]"
            at = named.end()
            continue
        if pattern[at] == "\\":
            out, at = out + pattern[at : at + 2], at + 2
            continue
        if not inside and pattern[at] == "(" and pattern[at + 1 : at + 2] != "?":
            out += "(?:"
        else:
            out += pattern[at]
        inside = pattern[at] == "[" or (inside and pattern[at] != "]")
        at += 1
    try:
        re.compile(out)
    except re.error as error:
        raise _unsupported(f"Python cannot read its expression ({error})") from error
    return out


_SPACES = (
    *range(0x09, 0x0E),
    0x20,
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
)


@cache
def _ranges(kind: str) -> str:
    """The characters of a Unicode category, or those that are blank, as they stand in brackets."""
    if kind == "space":
        found: Iterable[int] = _SPACES
    else:
        found = (
            code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith(kind)
        )
    runs: list[list[int]] = []
    for code in found:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(_escaped(a) if a == b else f"{_escaped(a)}-{_escaped(b)}" for a, b in runs)


def _escaped(code: int) -> str:
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _unsupported(why: str) -> UnsupportedModel:
    return UnsupportedModel(
        "this model's vocabulary does not fit into a short program", why=why,
        do="choose a model with a byte-level vocabulary: SmolLM2, Qwen, Llama 3",
    )  # fmt: skip
