"""Which passages of a blended window are computed in it, instead of put together.

What: the few that the question is about, judged by words: a passage is as near as the question's words that it holds
    are rare. They stand last, behind all others, so that they see them and each other, and the question sees them as it
    would in a window that was computed whole.
Invariant: a pure function of texts. One passage is computed at least, others within a share of the window's knowledge.
Interface: `arrange(question, passages, sizes, share=) -> (pieces, computed)`, both as places in `passages`.

Why so: on look-alike passages the default model answers from pieces alone as if it had not read them, and recomputing
some tokens of each piece mends little of it; computing the one or two right passages last mends nearly all
(docs/log.md; `python -m benchmarks page-in`).
"""

from __future__ import annotations

from collections.abc import Sequence

from llmos.kernel.support import Text, weights, words

SHARE = 0.05  # of the knowledge's tokens: at the end of a window each costs more than one of its beginning


def arrange(
    question: str, passages: Sequence[Text], sizes: Sequence[int], share: float = SHARE
) -> tuple[list[int], list[int]]:
    """The passages that stand first, in their order, and those that are computed last, the nearest at the end.

    Args:
        passages: as retrieval ranked them, or as they stand in the document; of equally near ones the first is taken.
        sizes: their tokens.
        share: of these tokens that may be computed; the nearest passage is in any case.
    """
    weight = weights(question, passages)
    near = [sum(weight[w] for w in weight.keys() & set(words(f"{p.heading} {p.text}"))) for p in passages]
    order = sorted(range(len(passages)), key=lambda i: -near[i])
    room, taken = share * sum(sizes), list[int]()
    for i in order:
        if taken and sizes[i] > room:
            break
        taken.append(i)
        room -= sizes[i]
    return [i for i in range(len(passages)) if i not in taken], taken[::-1]
