"""Grammars: what a process may write next, as a mask over the vocabulary.

What: `GrammarCompiler` holds the vocabulary once; `TokenGrammar` is one process's position in one grammar.
Invariant: a token that the mask forbids is never accepted; forced tokens are part of the meaning, so plain
    decoding takes them too.
Interface: `GrammarCompiler(tokenizer, vocab)`, `.compile(lark)`, `TokenGrammar.masks/accept/finished/fork`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from llmos.drivers.weights import Tokenizer


class _Vocabulary:
    """The tokenizer as llguidance wants it."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        self.eos_token_id = min(tokenizer.eos_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        # Rows of the output head beyond the tokenizer's ids are padding: no grammar can name them.
        self.tokens += [b""] * (vocab - len(self.tokens))
        self.special_token_ids = sorted(tokenizer.control_ids)
        self._encode = tokenizer.encode

    def __call__(self, text: str | bytes) -> list[int]:
        return self._encode(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)


class GrammarCompiler:
    """Compiles grammars over one model's vocabulary of `vocab` ids (V, as wide as the logits)."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        import llguidance

        wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocab))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocab, eos_token=sorted(tokenizer.eos_ids))
        self.words = -(-vocab // 32)

    def compile(self, lark: str) -> TokenGrammar:
        """A fresh position at the start of `lark` (llguidance's Lark dialect).

        Raises:
            GrammarError: the grammar does not compile.
        """
        import llguidance

        matcher = llguidance.LLMatcher(
            self._tokenizer, llguidance.LLMatcher.grammar_from_lark(lark), log_level=0
        )
        if matcher.is_error():
            raise GrammarError("the grammar does not compile", why=matcher.get_error())
        return TokenGrammar(matcher, self.words)


class TokenGrammar:
    """A position in a grammar."""

    def __init__(self, matcher: LLMatcher, words: int) -> None:
        self._matcher, self._words = matcher, words

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        """Write the allowed tokens into `out` [1 + len(draft), ceil(V/32)], bit i of word j for token 32 j + i:
        first for now, then after each token of `draft`, up to the first that is not allowed."""
        if out.shape != (1 + len(draft), self._words) or not out.flags.c_contiguous:
            raise GrammarError(f"masks of shape {out.shape} were offered for a draft of {len(draft)}")
        consumed = 0
        for i, row_W in enumerate(out):
            self._matcher.unsafe_compute_mask_ptr(row_W.ctypes.data, row_W.nbytes)
            if i == len(draft) or not row_W[draft[i] // 32] >> (draft[i] % 32) & 1:
                break
            self._matcher.consume_token(draft[i])
            consumed += 1
            if self._matcher.is_stopped():
                break
        self._check()
        if consumed:
            self._matcher.rollback(consumed)
            self._check()

    def instead(self, token: int) -> list[int] | None:
        """None: what the mask allows stands."""
        return None

    def accept(self, token: int) -> list[int]:
        """Advance by `token` and over everything it forces; returns the forced tokens."""
        self._matcher.consume_token(token)
        self._check()
        if self._matcher.is_stopped():
            return []
        forced = self._matcher.compute_ff_tokens()
        if forced:
            self._matcher.consume_tokens(forced)
            self._check()
        return list(forced)

    @property
    def finished(self) -> bool:
        return self._matcher.is_stopped()

    def fork(self) -> TokenGrammar:
        """An independent copy at the same position."""
        return TokenGrammar(self._matcher.deep_copy(), self._words)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError("the grammar rejected a token", why=self._matcher.get_error())
