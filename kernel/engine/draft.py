"""Drafting: guess what comes next from what was already read, and let one step check several tokens.

What: prompt lookup (answers quote documents): the last few tokens are looked up in the sequence itself, the longest
    match first, and what followed them where they stood for the first time is proposed. Source: Saxena 2023,
    "Prompt Lookup Decoding"; verification as in Leviathan et al. 2023 (arXiv 2211.17192), but by equality with
    the token drawn from the position's own random bits, so the output is that of plain decoding, greedy or sampled.
Invariant: a draft never changes a token, only how many steps it takes. A draft is as long as its last token is
    still worth its row in the step, by how such guesses have come true in this sequence so far; so a text that
    does not repeat itself costs next to nothing.
Interface: `Drafter(longest)`, `propose`, `learn`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# How often a token that is guessed after a match of so many tokens comes true: measured on grounded answers.
PRIOR = {5: 0.85, 4: 0.8, 3: 0.7, 2: 0.5}
WEIGHT = 4  # tokens of evidence that the prior is worth
DECAY = 0.99  # of the evidence, each step: a text changes its ways
ROW = (
    0.2  # what one more row costs, in steps of one row: a token less likely than this is not worth its guess
)


class Drafter:
    """Proposals for one sequence, at most `longest` tokens each; 0 turns drafting off."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram -> index just after its first occurrence
        self._indexed = 0
        self._tries = dict.fromkeys(PRIOR, 0.0)  # guessed tokens by the length of the match, beside the prior
        self._hits = dict.fromkeys(PRIOR, 0.0)
        self._match = 0  # length of the match behind the last proposal; 0 once its fate is known

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Up to `limit` tokens that may follow `tokens`."""
        if self._longest == 0 or limit <= 0:
            return []
        for end in range(self._indexed, len(tokens)):  # n-grams that something follows
            for n in PRIOR:
                if n <= end:
                    self._seen.setdefault(tuple(tokens[end - n : end]), end)
        self._indexed = len(tokens)
        for n in PRIOR:
            self._tries[n] *= DECAY
            self._hits[n] *= DECAY
        for n in PRIOR:
            at = self._seen.get(tuple(tokens[-n:])) if n <= len(tokens) else None
            if at is not None:
                self._match = n
                length = min(limit, self._longest, self._worth(n))
                return list(tokens[at : at + length])
        return []

    def learn(self, proposed: int, accepted: int) -> None:
        """Note a draft's fate: so many of its tokens came true, and the next, if there was one, did not. Of a draft
        that was not proposed here (a turn that is resumed knows what comes) nothing is learnt."""
        if self._match == 0:
            return
        self._tries[self._match] += min(accepted + 1, proposed)
        self._hits[self._match] += accepted
        self._match = 0

    def _worth(self, match: int) -> int:
        """Tokens until one is less likely to be reached and right than its row costs."""
        rate = (PRIOR[match] * WEIGHT + self._hits[match]) / (WEIGHT + self._tries[match])
        return self._longest if rate >= 1 else int(math.log(ROW) / math.log(rate)) if rate > 0 else 0
