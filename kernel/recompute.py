"""What of a blended window is computed in it, instead of put together.

What: the few passages that the question is about, judged by words: a passage is as near as the question's words that it
    holds are rare. They stand last, behind all others, so that they see them and each other, and the question sees them
    as it would in a window that was computed whole. Of all others some tokens at both ends, in their places.
Invariant: a pure function of texts. One passage is computed at least, others within a share of the window's knowledge.
Interface: `arrange(question, passages, sizes, share=) -> (pieces, computed)`, both as places in `passages`;
    `borders(ends) -> places of tokens`.

Why so: on look-alike passages the default model answers from pieces alone as if it had not read them; computing the one
or two right passages last mends most of it. What fools it then are the others' first words, each computed as if nothing
stood before them: two tokens at both ends, seen in their places, take away half of what is left (docs/log.md;
`python -m benchmarks page-in`). More of them, as in EPIC (arXiv 2410.15332), gain little.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from llmos.kernel.support import Text, weights, words

SHARE = 0.07  # of the knowledge's tokens: at the end of a window each costs more than one of its beginning
BORDER = 2  # tokens at each end of a passage


def arrange(
    question: str, passages: Sequence[Text], sizes: Sequence[int], share: float = SHARE
) -> tuple[list[int], list[int]]:
    """The passages that stand first, in their order, and those that are computed last, the nearest at the end.

    Args:
        passages: as retrieval ranked them, or as they stand in the document; of equally near ones the first is taken.
        sizes: their tokens.
        share: of these tokens that may be computed, borders among them; the nearest passage is in any case.
    """
    weight = weights(question, passages)
    near = [sum(weight[w] for w in weight.keys() & set(words(f"{p.heading} {p.text}"))) for p in passages]
    order = sorted(range(len(passages)), key=lambda i: -near[i])
    room, taken = share * sum(sizes) - 2 * BORDER * len(sizes), list[int]()
    for i in order:
        if taken and sizes[i] > room:
            break
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
