"""Drafting: guess what comes next from what was already read, and let one step check several tokens.

What: prompt lookup (answers quote documents): the last few tokens are looked up in the sequence itself, the longest
    match first, and what followed them where they stood for the first time is proposed. A match whose every occurrence
    goes on alike is worth far more than one that does not; of a single token that does not, the last occurrence counts,
    which is often the question. Source: Saxena 2023, "Prompt Lookup Decoding"; verification as in Leviathan et al. 2023
    (arXiv 2211.17192), but by equality with the token drawn from the position's own random bits, so the output is that
    of plain decoding, greedy or sampled.
Invariant: a draft never changes a token, only how many steps it takes. A draft is as long as its last token is
    still worth its row in the step, by how such guesses have come true in this sequence so far; so a text that
    does not repeat itself costs next to nothing.
Interface: `Drafter(longest)`, `propose`, `learn`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Match = tuple[int, bool]  # its tokens, and whether what follows was always the same

# How often a token that is guessed after a match of so many tokens comes true, where what follows the match was always
# the same, and where not: measured on grounded answers.
PRIOR = {
    (5, True): 0.92,
    (4, True): 0.87,
    (3, True): 0.85,
    (2, True): 0.65,
    (1, True): 0.6,
    (5, False): 0.5,
    (4, False): 0.3,
    (3, False): 0.3,
    (2, False): 0.3,
    (1, False): 0.25,
}
LONGEST_MATCH = max(n for n, _ in PRIOR)
WEIGHT = 2  # tokens of evidence that the prior is worth
DECAY = 0.99  # of the evidence, each step: a text changes its ways
ROW = 0.14  # what one more row costs, in steps of one row: what is less likely is not worth its guess


class Drafter:
    """Proposals for one sequence, at most `longest` tokens each; 0 turns drafting off."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        # n-gram -> where it goes on, and whether always alike
        self._seen = dict[tuple[int, ...], tuple[int, bool]]()
        self._indexed = 0
        self._tries = dict.fromkeys(PRIOR, 0.0)  # guessed tokens by the kind of match, beside the prior
        self._hits = dict.fromkeys(PRIOR, 0.0)
        self._match: Match | None = None  # behind the last proposal; None once its fate is known

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Up to `limit` tokens that may follow `tokens`."""
        if self._longest == 0 or limit <= 0:
            return []
        for end in range(self._indexed, len(tokens)):  # n-grams that something follows
            self._index(tokens, end)
        self._indexed = len(tokens)
        for match in PRIOR:
            self._tries[match] *= DECAY
            self._hits[match] *= DECAY
        for n in range(min(LONGEST_MATCH, len(tokens)), 0, -1):
            if (found := self._seen.get(tuple(tokens[-n:]))) is not None:
                at, always = found
                self._match = (n, always)
                length = min(limit, self._longest, self._worth(self._match))
                return list(tokens[at : at + length])
        return []

    def learn(self, proposed: int, accepted: int) -> None:
        """Note a draft's fate: so many of its tokens came true, and the next, if there was one, did not. Of a draft
        that was not proposed here (a turn that is resumed knows what comes) nothing is learnt."""
        if self._match is None:
            return
        self._tries[self._match] += min(accepted + 1, proposed)
        self._hits[self._match] += accepted
        self._match = None

    def _index(self, tokens: Sequence[int], end: int) -> None:
        """Note what stands at `end`, behind each n-gram."""
        for n in range(1, min(LONGEST_MATCH, end) + 1):
            gram = tuple(tokens[end - n : end])
            at, _ = self._seen.setdefault(gram, (end, True))
            if tokens[at] != tokens[end]:
                self._seen[gram] = (end if n == 1 else at, False)

    def _worth(self, match: Match) -> int:
        """Tokens until one is less likely to be reached and right than its row costs."""
        rate = (PRIOR[match] * WEIGHT + self._hits[match]) / (WEIGHT + self._tries[match])
        return self._longest if rate >= 1 else int(math.log(ROW) / math.log(rate)) if rate > 0 else 0
