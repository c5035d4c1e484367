"""Grammars: what a process may write next, as a mask over the vocabulary.

What: `PlainText` (anything but control tokens), and `GrammarCompiler`, which holds the vocabulary once and makes
    a `TokenGrammar`, a process's position in `Rules` of its own.
Invariant: a token that the mask forbids is never accepted; forced tokens are part of the meaning, so plain
    decoding takes them too.
Interface: `PlainText(control_ids, vocab)`; `Rules`; `GrammarCompiler(tokenizer, vocab).compile(rules)`;
    `TokenGrammar.masks/instead/accept/finished`.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from llmos.abi.errors import GrammarError
from llmos.kernel.engine.sequence import Grammar
from llmos.kernel.engine.unsaid import Pattern, Unsaid, Words

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from llmos.drivers.weights import Tokenizer

KEPT = 64  # compiled grammars; processes with the same grants share one


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be written: a grammar, in llguidance's Lark dialect, and what its free text must not hold."""

    lark: str
    unsaid: tuple[Pattern, ...] = ()
    until: int | None = None  # the token behind which no free text comes


class InnerGrammar(Grammar, Protocol):
    """A grammar that another may stand around."""

    def take(self, tokens: Sequence[int]) -> None:
        """Advance by tokens that the outer grammar has written."""


class OuterGrammar:
    """Stands around another, and knows what has been written (`_bytes`)."""

    def __init__(self, inner: InnerGrammar, tokenizer: Tokenizer) -> None:
        self._inner, self._tokenizer = inner, tokenizer
        self._bytes = b""
        self.finished = False

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        self._inner.masks(draft, out)

    def accept(self, token: int) -> list[int]:
        """Advance by `token`; returns what must follow it."""
        forced = self._inner.accept(token)
        self._bytes += b"".join(map(self._tokenizer.visible_bytes, (token, *forced)))
        self.finished = self.finished or self._inner.finished
        return forced


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

        vocabulary = _Vocabulary(tokenizer, vocab)
        wrapper = llguidance.TokenizerWrapper(vocabulary)
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocab, eos_token=sorted(tokenizer.eos_ids))
        self._words = Words(vocabulary.tokens, vocabulary.special_token_ids)
        self._width = -(-vocab // 32)
        self._compiled: OrderedDict[Rules, TokenGrammar] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, rules: Rules) -> TokenGrammar:
        """A fresh position at the start of `rules`.

        Raises:
            GrammarError: the grammar does not compile.
        """
        with self._lock:
            if rules not in self._compiled:
                unsaid = Unsaid(rules.unsaid, self._words)
                matcher = self._matcher(rules.lark)
                self._compiled[rules] = TokenGrammar(matcher, unsaid, rules.until, self._width)
                if len(self._compiled) > KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(rules)
            return self._compiled[rules].copy()

    def _matcher(self, lark: str) -> LLMatcher:
        import llguidance

        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise GrammarError("the grammar does not compile", why=matcher.get_error().partition("\n")[0])
        return matcher


class TokenGrammar:
    """A position in `Rules`."""

    def __init__(self, matcher: LLMatcher, unsaid: Unsaid, until: int | None, width: int) -> None:
        self._matcher, self._unsaid, self._until, self._width = matcher, unsaid, until, width
        self._said: int | None = unsaid.start  # the state of free text; None behind it
        self._first_W: NDArray[np.uint32] | None = (
            None  # the mask at the start: the dearest, and always the same
        )
        first_1W = np.zeros((1, width), np.uint32)
        self.masks([], first_1W)
        self._first_W = first_1W[0]

    def copy(self) -> TokenGrammar:
        """Another one at the same place."""
        other = copy.copy(self)
        other._matcher = self._matcher.deep_copy()
        return other

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        """Write the allowed tokens into `out` [1 + len(draft), ceil(V/32)], bit i of word j for token 32 j + i:
        first for now, then after each token of `draft`, up to the first that is not allowed."""
        if out.shape != (1 + len(draft), self._width) or not out.flags.c_contiguous:
            raise GrammarError(f"masks of shape {out.shape} were offered for a draft of {len(draft)}")
        consumed, said, known_W = 0, self._said, self._first_W
        for i, row_W in enumerate(out):
            if known_W is not None:
                row_W[:] = known_W
                known_W = None
            else:
                self._matcher.unsafe_compute_mask_ptr(row_W.ctypes.data, row_W.nbytes)
                if said is not None:
                    self._unsaid.withhold(said, row_W)
            if i == len(draft) or not row_W[draft[i] // 32] >> (draft[i] % 32) & 1:
                break
            self._matcher.consume_token(draft[i])
            consumed += 1
            if self._matcher.is_stopped():
                break
            said = self._behind(said, draft[i])
        self._check()
        if consumed:
            self._matcher.rollback(consumed)
            self._check()

    def instead(self, token: int) -> list[int] | None:
        """None: what the mask allows stands."""
        return None

    def accept(self, token: int) -> list[int]:
        """Advance by `token` and over everything it forces; returns the forced tokens."""
        self.take([token])
        if self._matcher.is_stopped():
            return []
        forced = list(self._matcher.compute_ff_tokens())
        if forced:
            self.take(forced)
        return forced

    def take(self, tokens: Sequence[int]) -> None:
        """Advance by tokens that this grammar allows, whoever wrote them."""
        self._matcher.consume_tokens(list(tokens))
        self._check()
        self._first_W = None
        for token in tokens:
            self._said = self._behind(self._said, token)

    @property
    def finished(self) -> bool:
        return self._matcher.is_stopped()

    def _behind(self, said: int | None, token: int) -> int | None:
        """The state of free text behind `token`."""
        if said is None or token == self._until:
            return None
        state = self._unsaid.after(said, token)
        if state is None:
            raise GrammarError("the grammar rejected a token", why="with it the text looks like a call")
        return state

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(
                "the grammar rejected a token", why=self._matcher.get_error().partition("\n")[0]
            )
