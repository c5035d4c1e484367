"""Grammars: what a process may write next, as a mask over the vocabulary.

What: `PlainText` (anything but control tokens), and `GrammarCompiler`, which holds the vocabulary once and makes
    a `TokenGrammar`, a process's position in a grammar of its own.
Invariant: a token that the mask forbids is never accepted; forced tokens are part of the meaning, so plain
    decoding takes them too.
Interface: `PlainText(control_ids, vocab)`; `GrammarCompiler(tokenizer, vocab).compile(lark)`;
    `TokenGrammar.masks/instead/accept/finished`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import GrammarError
from llmos.kernel.engine.sequence import Grammar

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from llmos.drivers.weights import Tokenizer

KEPT = 64  # compiled grammars; processes with the same grants share one


class InnerGrammar(Grammar, Protocol):
    """A grammar that another may stand around."""

    def take(self, tokens: Sequence[int]) -> None:
        """Advance by tokens that the outer grammar has written."""


class PlainText:
    """Free text: no control token but those that end it. Without it a model could write the token that opens a
    syscall; nobody would answer, but its own later turns would read it."""

    finished = False

    def __init__(self, forbidden: Iterable[int], vocab: int) -> None:
        self._allowed_W = np.full(-(-vocab // 32), 0xFFFFFFFF, np.uint32)
        for token in forbidden:
            self._allowed_W[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFFFFFF)

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        out &= self._allowed_W

    def instead(self, token: int) -> list[int] | None:
        return None

    def accept(self, token: int) -> list[int]:
        return []

    def take(self, tokens: Sequence[int]) -> None:
        pass


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
    """Compiles grammars over one model's vocabulary of `vocab` ids (V, as wide as the logits). Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        import llguidance

        wrapper = llguidance.TokenizerWrapper(_Vocabulary(tokenizer, vocab))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocab, eos_token=sorted(tokenizer.eos_ids))
        self._words = -(-vocab // 32)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, lark: str) -> TokenGrammar:
        """A fresh position at the start of `lark` (llguidance's Lark dialect).

        Raises:
            GrammarError: the grammar does not compile.
        """
        with self._lock:
            if lark not in self._compiled:
                self._compiled[lark] = self._matcher(lark)
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(lark)
            return TokenGrammar(self._compiled[lark].deep_copy(), self._words)

    def _matcher(self, lark: str) -> LLMatcher:
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError("the grammar does not compile", why=matcher.get_error().partition("\n")[0])
        return matcher


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

    def take(self, tokens: Sequence[int]) -> None:
        """Advance by tokens that this grammar allows, whoever wrote them."""
        self._matcher.consume_tokens(list(tokens))
        self._check()

    @property
    def finished(self) -> bool:
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(
                "the grammar rejected a token", why=self._matcher.get_error().partition("\n")[0]
            )
