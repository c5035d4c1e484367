"""Grounded answers: how knowledge stands in the window, and how an answer names what it stood on.

What: the text of the instructions, of each passage and of the question; the grammar that makes an answer end
    its claim with `[n]` or say that the documents do not say; and the reading of those `[n]` afterwards.
Invariant: a citation is a passage that stood in the window, that the answer itself names, and that supports
    the claim before it; any other `[n]` is taken out of the answer and counted. Retrieval alone cites nothing.
Interface: `PASSAGES`, `INSTRUCTIONS`, `knowledge_text`, `question_text`, `answer_grammar`, `extract`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.abi.events import Citation

if TYPE_CHECKING:
    from llmos.memory.volume import Passage

PASSAGES = 4  # in the window: small models read few passages better than many
NOT_SAID = "The documents do not say."
INSTRUCTIONS = (
    "You answer questions from numbered passages of documents. Use only what the passages say. Answer in one "
    "short sentence and end it with the number of the passage it came from, like this: [2]. If the passages do "
    f"not answer the question, say: {NOT_SAID}"
)
_CITATION = re.compile(r"\s?\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answer as the user should read it, what it cites, and how many `[n]` were taken out."""

    answer: str
    citations: tuple[Citation, ...]
    dropped: int


def knowledge_text(passages: Sequence[Passage]) -> list[str]:
    """One text per passage, as it stands in the window, numbered from 1."""
    return [f"[{n}] {p.heading}\n{p.text}" for n, p in enumerate(passages, start=1)]


def question_text(question: str) -> str:
    """The question, as it stands after the passages."""
    return f"Question: {question}"


def answer_grammar(k: int) -> str | None:
    """The Lark grammar of an answer from `k` passages; None where there is nothing to cite."""
    if not k:
        return None
    return f"""start: "{NOT_SAID}" | claim (" " claim){{0,2}}
claim: TEXT " [" N "]" (" [" N "]")?
TEXT: /[A-Z0-9"\\/`]([^.\\[\\]\\n]|\\.[^ \\[\\]\\n.])*\\.?/
N: /[1-{k}]/
"""


def extract(answer: str, passages: Sequence[Passage]) -> Extraction:
    """Read the citations that `answer` names; take out those that retrieval did not supply."""
    named: dict[int, Citation] = {}
    dropped = 0

    def keep(found: re.Match[str]) -> str:
        nonlocal dropped
        n = int(found[1])
        if not 1 <= n <= len(passages):
            dropped += 1
            return ""
        p = passages[n - 1]
        named.setdefault(n, Citation(n, p.source, p.position, p.text, p.label))
        return found[0]

    text = _CITATION.sub(keep, answer)
    return Extraction(text.strip(), tuple(named.values()), dropped)
