"""Drafting: guess what comes next from what was already read, and let one step check several tokens.

What: prompt lookup (answers quote documents): the last few tokens are looked up in the sequence itself and
    what followed them there is proposed. Source: Saxena 2023, "Prompt Lookup Decoding"; verification as in
    Leviathan et al. 2023 (arXiv 2211.17192), but by equality with the token drawn from the position's own
    random bits, so the output is that of plain decoding, greedy or sampled.
Invariant: a draft never changes a token, only how many steps it takes. Misses back off exponentially, so a
    text that does not repeat itself costs next to nothing.
Interface: `Drafter(length)`, `propose`, `learn`.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3  # tokens that must match before what followed them is proposed
LONGEST_REST = 64  # steps without drafting after a run of misses


class Drafter:
    """Proposals for one sequence, at most `longest` tokens each; 0 turns drafting off."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._length = min(longest, 4)
        self._rest = self._misses = 0
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram -> index just after its latest occurrence
        self._indexed = 0

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Up to `limit` tokens that may follow `tokens`."""
        limit = min(limit, self._length)
        if self._longest == 0 or limit <= 0 or len(tokens) <= NGRAM:
            return []
        if self._rest:
            self._rest -= 1
            return []
        # The last n-gram itself is left out: it would find only itself.
        for end in range(max(self._indexed, NGRAM), len(tokens)):
            self._seen[tuple(tokens[end - NGRAM : end])] = end
        self._indexed = len(tokens)
        at = self._seen.get(tuple(tokens[-NGRAM:]))
        return [] if at is None else list(tokens[at : at + limit])

    def learn(self, proposed: int, accepted: int) -> None:
        """Adjust to a draft's fate: grow while all is accepted, shrink on misses, rest after repeated ones."""
        if accepted == proposed:
            self._length = min(self._length * 2, self._longest)
        elif accepted * 2 < proposed:
            self._length = max(self._length // 2, 1)
        if accepted:
            self._misses = 0
        else:
            self._misses += 1
            self._rest = min(1 << self._misses, LONGEST_REST)
