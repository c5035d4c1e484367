"""The 20 questions of the demo, and how an answer to one is checked.

What: reads `questions.yaml` (its format stands at its top); says whether an answer is right, and which of its
    citations are.
Invariant: nothing here is seen by the model; a citation is right where the cited passage itself states the
    answer, whatever was retrieved beside it.
Interface: `questions()`, `draw(seed, count)`, `right(question, answer)`, `right_citations(question, citations)`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from llmos.abi.events import Citation

_FILE = Path(__file__).with_name("questions.yaml")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with the patterns that check an answer to it."""

    id: str
    text: str
    accept: tuple[str, ...]
    source: str
    evidence: tuple[str, ...]


def questions() -> list[Question]:
    """All of them, in the order of the file."""
    return [
        Question(q["id"], q["question"], tuple(q["accept"]), q["source"], tuple(q["evidence"]))
        for q in yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    ]


def draw(seed: int, count: int = 2) -> list[Question]:
    """`count` different questions; the same for the same seed."""
    return random.Random(seed).sample(questions(), count)


def right(question: Question, answer: str) -> bool:
    """Whether `answer` holds all that the question asks for."""
    said = re.sub(r"\s\[\d+\]|[`*]", "", answer)
    return all(_found(pattern, said) for pattern in question.accept)


def right_citations(question: Question, citations: Sequence[Citation]) -> list[Citation]:
    """Those citations that point to a passage which states the answer."""
    return [
        c
        for c in citations
        if _found(question.source, c.source) and all(_found(pattern, c.text) for pattern in question.evidence)
    ]


def _found(pattern: str, text: str) -> bool:
    return bool(re.search(pattern, " ".join(text.split()), re.IGNORECASE))
