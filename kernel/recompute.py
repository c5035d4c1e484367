"""What of a blended window is computed in it, instead of put together.

What: the few passages that the question is about, judged by words: a passage is as near as the question's words that it
    holds are rare. They stand last, behind all others, so that they see them and each other, and the question sees them
    as it would in a window that was computed whole. Of all others the tokens at both ends, in their places.
Invariant: a pure function of texts. One passage is computed at least; others where they are about as near, within a
    share of the window's knowledge.
Interface: `arrange(question, passages, sizes, share=, near=) -> (pieces, computed)`, both as places in `passages`;
    `borders(ends) -> places of tokens`.

Why so: on look-alike passages the default model answers from pieces alone as if it had not read them; computing the one
that is asked about last mends most of it. The nearest is that one in 97 of 100 questions, and one of those about as
near in 99.6 (docs/log.md): what is computed is spent where there is doubt. What fools the model then are the others'
first words, each computed as if nothing stood before them: the first and the last token, seen in their places, take
away half of what is left (`python -m benchmarks page-in`). More of them, as in EPIC (arXiv 2410.15332), gain little.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmos.kernel.support import Text, weights, words

NEAR = 0.8  # of the nearest passage's weight: who has as much may be what is asked about
SHARE = 0.2  # of the knowledge's tokens, where many are as near; what is computed comes to 6 or 7 % of most windows
BORDER = 1  # token at each end of a passage


def arrange(
    question: str, passages: Sequence[Text], sizes: Sequence[int], share: float = SHARE, near: float = NEAR
) -> tuple[list[int], list[int]]:
    """The passages that stand first, in their order, and those that are computed last, the nearest at the end.

    Args:
        passages: as retrieval ranked them, or as they stand in the document; of equally near ones the first is taken.
        sizes: their tokens.
        share: of these tokens that may be computed, borders among them; the nearest passage is in any case.
        near: of the nearest one's weight that others need; 0: as many are computed as the share allows.
    """
    weight = weights(question, passages)
    weigh = [sum(weight[w] for w in weight.keys() & set(words(f"{p.heading} {p.text}"))) for p in passages]
    nearest, *others = sorted(range(len(passages)), key=lambda i: -weigh[i])
    room = share * sum(sizes) - 2 * BORDER * len(sizes) - sizes[nearest]
    taken = [nearest]
    for i in others:
        if sizes[i] <= room and weigh[i] >= near * weigh[nearest]:
            taken.append(i)
            room -= sizes[i]
    return [i for i in range(len(passages)) if i not in taken], taken[::-1]


def borders(ends: Sequence[int]) -> list[int]:
    """The tokens of put-together passages that are computed again.

    Args:
        ends: where the pieces of a window end: what stands before all passages, then these. The first passage stands
            where it was computed, so nothing of it is wrong.
    """
    found = set[int]()
    for start, end in pairwise(ends[1:]):
        found.update(range(start, min(start + BORDER, end)), range(max(start, end - BORDER), end))
    return sorted(found)
