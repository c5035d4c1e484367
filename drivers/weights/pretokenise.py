"""How a byte-pair vocabulary cuts text into words before merging, by the name that GGUF files give it.

What: the splitting expressions of the model families that run here, applied one after another.
Invariant: the pieces of a text, joined, are the text.
Interface: `splitter(pre)` -> a function from text to words, `expressions(pre)`; an unknown name is
    `UnsupportedModel`.
"""

from __future__ import annotations

from collections.abc import Callable

from llmos.abi.errors import UnsupportedModel

Splitter = Callable[[str], list[str]]

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+"
    r"|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (r"\p{N}", _GPT2),
    "qwen2": (_QWEN2,),
    "llama-bpe": (_LLAMA3,),
    "tekken": (_TEKKEN,),
    # What llama.cpp uses for files written before the name was recorded.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"),
}
_ALIASES = {
    "starcoder": "smollm", "refact": "smollm", "command-r": "smollm", "olmo": "gpt-2", "mpt": "gpt-2",
    "deepseek-r1-qwen": "qwen2", "megrez": "qwen2", "llama3": "llama-bpe", "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe", "smaug-bpe": "llama-bpe", "dbrx": "llama-bpe",
}  # fmt: skip
# Vocabularies in which a whole word that is a token needs no merging.
WHOLE_WORDS = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3", "tekken"})


def expressions(pre: str) -> tuple[str, ...]:
    """The expressions of the vocabulary kind `pre`, as the library writes them.

    Raises:
        UnsupportedModel: a kind whose expressions are not known here; guessing would give wrong tokens.
    """
    found = _EXPRESSIONS.get(_ALIASES.get(pre, pre))
    if found is None:
        known = ", ".join(sorted({*_EXPRESSIONS, *_ALIASES}))
        raise UnsupportedModel(
            f"the tokenizer kind {pre!r} is not supported",
            why=f"known kinds: {known}",
            do="choose another model",
        )
    return found


def splitter(pre: str) -> Splitter:
    """The splitting function of the vocabulary kind `pre`. UnsupportedModel as `expressions`."""
    found = expressions(pre)
    from tokenizers import Regex, pre_tokenizers  # 30 ms: paid by whoever tokenises

    splits = [pre_tokenizers.Split(Regex(e), "isolated") for e in found]
    chain = splits[0] if len(splits) == 1 else pre_tokenizers.Sequence(splits)

    def split(text: str) -> list[str]:
        return [word for word, _ in chain.pre_tokenize_str(text)]

    return split
