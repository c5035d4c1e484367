"""Grounded questions with checkable answers, and others that the documents do not answer.

What: pieces of Python 3.11's manual (the contexts of `page_in_set`, each written to a file of its own) and questions
    about versions: since which one a thing exists, or which one changed it. A question is unanswerable where its piece
    is not among the files; the others hold look-alikes of what it asks for.
Invariant: a function of the documents. The published half is what figures come from, and nothing was chosen on it; the
    tuning half is what is looked at. An answer is right where its first version number is the one, and rightly cited
    where a passage that it names states that number of the thing that was asked about.
Interface: `python_manual(count, unanswerable, folder, half) -> Grounded`; needs Debian's package python3.11-doc.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page_in_set import Half, contexts
from llmos.abi.errors import DocumentError
from llmos.abi.events import Citation


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, the version number that answers it, and the name of the thing."""

    text: str
    answer: str
    name: str

    def right(self, answer: str) -> bool:
        """Whether the answer's first version number is the one. Python's own name may stand before it."""
        found = re.findall(r"(?<![\w.])\d+\.\d+(?:\.\d+)?(?![\w.]*\w)", re.sub(r"\s?\[\d+\]", "", answer))
        return bool(found) and found[0] == self.answer

    def cited(self, citations: Sequence[Citation], folder: Path) -> bool:
        """Whether a passage that is cited states the version, and speaks of the thing: by its own words, or because it
        stands in the entry of that thing, which is longer than one passage."""
        return any(
            self.answer in c.text and (self.name in c.text or self.name in _heading(c, folder))
            for c in citations
        )


@dataclass(frozen=True, slots=True)
class Grounded:
    """Questions that the files of `folder` answer, and others that they do not."""

    folder: Path
    answerable: tuple[Question, ...]
    unanswerable: tuple[Question, ...]


def python_manual(count: int, unanswerable: int, folder: Path, half: Half = "published") -> Grounded:
    """That many questions of each kind; the files are written to `folder`.

    Raises:
        DocumentError: python3.11-doc is not installed, or has too few.
    """
    asked: list[Question] = []
    left: list[Question] = []
    for context in sorted(contexts(half), key=lambda c: c.id):
        found = [
            Question(q.text, q.answer, name[1].rpartition(".")[2])
            for q in context.questions
            if q.kind != "signature" and (name := re.search(r"Python (?:is|was) (\S+) ", q.text))
        ]
        if len(asked) < count:
            asked += found[: count - len(asked)]
            text = "\n\n".join(map(_section, context.chunks))
            (folder / f"manual-{context.id}.md").write_text(text, encoding="utf-8")
        elif len(left) < unanswerable:
            left += found[: unanswerable - len(left)]
    if len(asked) < count or len(left) < unanswerable:
        raise DocumentError(f"Python's manual has only {len(asked)} and {len(left)} such questions")
    return Grounded(folder, tuple(asked), tuple(left))


def _heading(citation: Citation, folder: Path) -> str:
    """The heading under which the cited passage begins, in the file itself."""
    file, first = folder / Path(citation.source).name, re.search(r"\d+", citation.position)
    lines = file.read_text(encoding="utf-8").splitlines()[: int(first[0]) if first else 0]
    return next((line for line in reversed(lines) if line.startswith("## ")), "")


def _section(chunk: str) -> str:
    """An entry as the manual has it: its signature as a heading, its text below."""
    signature, _, text = chunk.partition("\n")
    return f"## {signature}\n\n{text}"
