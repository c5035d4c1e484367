"""Grounded answers: how knowledge stands in the window, and how an answer names what it stood on.

What: the instructions, the text of the passages and the question; the grammar that ends each claim of an answer
    with the `[n]` of the passages that support it; and the reading of those `[n]` afterwards.
Invariant: a citation is a passage that stood in the window, that the answer itself names, and that supports
    the claim before it, at most two a claim; any other `[n]` is taken out of the answer and counted. Retrieval
    alone cites nothing. Where the documents hold no answer, the answer says so.
Interface: `PASSAGES`, `BLENDED`, `INSTRUCTIONS`, `knowledge_text`, `whole_text`, `question_text`,
    `answer_grammar`, `extract`, `uncited`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.abi.events import Citation
from llmos.kernel.engine.grammar import OuterGrammar
from llmos.kernel.heard import Heard
from llmos.kernel.support import answerable, excerpt, supporting, weights, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.engine.grammar import InnerGrammar
    from llmos.memory.volume import Passage

PASSAGES = 4  # in the window: small models read few passages better than many
LOOKED_AT = 12  # times as many are looked at for those that speak of what is asked about
BLENDED = 24  # where they are put together instead of computed: whole ones, and the nearest stand last
NOT_SAID = "The documents do not say."
UNSUPPORTED = " (The documents do not say this.)"  # written after an answer that nothing supports
INSTRUCTIONS = "Answer the user's question from the documents given. Answer in one sentence."
_MORE = " Namely, the"  # written where an answer that says nothing new would stop
_MAX_CLAIMS = 3  # a small model that goes on repeats itself
_VERDICTS = ("Yes", "No", "yes", "no")  # a small model says yes whatever it read: it has to state the rule
_AMOUNT = re.compile(  # questions that are answered by a number
    r"\bhow (?:many|much|long|often|far|old|tall|high|large)\b|\b(?:until|till|by|since) when\b"
    r"|\b(?:what|which) (?:year|date)\b",
    re.IGNORECASE,
)
_CITATION = re.compile(r"(?:(?<=\s)|^)\[(\d{1,3})\]")
_WORD = re.compile(r"\w")
_REFUSAL = re.compile(
    r"documents? (?:do|does) not (?:say|mention|specify|contain|provide|state)", re.IGNORECASE
)
_CLAIM_END = re.compile(r"[.!?][\"'”’)`*]*\s*$")
_NEXT_CLAIM = re.compile(r"\s+[\"'“‘(`*\-]*[A-Z0-9]|\s*\n")
_NOT_AN_END = re.compile(r"(?:\be\.g|\bi\.e|\bcf|\betc|\bvs|(?:^|\n)\s*\d{1,2})\.\s*$")


@dataclass(frozen=True, slots=True)
class Extraction:
    """The answer as the user should read it, what it cites, and how many `[n]` were taken out."""

    answer: str
    citations: tuple[Citation, ...]
    dropped: int


def knowledge_text(passages: Sequence[Passage], question: str) -> list[str]:
    """One text per passage as it stands in the window: its number, its heading, and the excerpt nearest to the
    question."""
    weight = weights(question, passages)
    texts = []
    for n, p in enumerate(passages, start=1):
        heading = re.sub(r"^[\d.]+\s+", "", p.heading.rpartition(" > ")[2])
        texts.append(f"[{n}] {f'{heading}: ' if heading else ''}{excerpt(p, weight)}")
    if texts:
        texts[0] = f"Documents:\n\n{texts[0]}"
    return texts


def whole_text(passage: Passage) -> str:
    """A passage as it stands in a blended window: the same words whatever is asked, wherever it stands."""
    heading = re.sub(r"^[\d.]+\s+", "", passage.heading.rpartition(" > ")[2])
    return passage.text if not heading or passage.text.startswith(heading) else f"{heading}: {passage.text}"


def question_text(question: str) -> str:
    """The question, as it stands after the passages."""
    return f"Question: {question}\nAnswer in one sentence, copying the words of the documents."


def answer_grammar(
    question: str,
    passages: Sequence[Passage],
    tokenizer: Tokenizer,
    inner: InnerGrammar,
    opens_call: int | None = None,
    *,
    alone: bool = True,
) -> CitingGrammar:
    """The grammar of one answer from `passages`; stateful, for one turn.

    Args:
        inner: what the process may write at all.
        opens_call: the token behind which a syscall stands, where it has any: that is not the answer's text.
        alone: the passages are all that the answer can stand on; else it may come from results of calls too, so what
            the passages do not say is neither refused nor remarked on.
    """
    return CitingGrammar(question, passages, tokenizer, inner, opens_call, alone)


class CitingGrammar(OuterGrammar):
    """Free text, in which each claim is closed with the `[n]` of what supports it.

    A claim ends where the model begins another sentence or line, begins a citation of its own, or stops. In that
    place the citation is written for it: which passages support the claim is decided by words
    (`support.supporting`), and a claim without support gets none. Nothing else is forced, so the answer is the
    model's own; with three exceptions: where nothing that was retrieved comes near the question, the answer is
    `NOT_SAID`; a claim that repeats an earlier one ends the answer; and an answer that only says the question again, or
    that has no number where a number was asked for, may not end there: once, it is made to go on by `_MORE`.
    """

    def __init__(
        self,
        question: str,
        passages: Sequence[Passage],
        tokenizer: Tokenizer,
        inner: InnerGrammar,
        opens_call: int | None,
        alone: bool = True,
    ) -> None:
        super().__init__(inner, tokenizer)
        self._question, self._passages = question, passages
        self._opens_call = opens_call
        self._calling = False
        self._claim = 0  # where in the text the open claim begins
        self._said: list[str] = []
        self._grounded = False  # some claim was supported, or the answer is that the documents do not say
        self._alone = alone
        self._refuse = alone and opens_call is None and not answerable(question, passages)
        self._pressed = False  # a claim that only restated the question was made to go on

    def masks(self, draft: Sequence[int], out: NDArray[np.uint32]) -> None:
        """Every token is allowed (see `instead`), but an answer does not open with a bare yes or no, and does not
        stop behind the words that asked for more."""
        super().masks(draft, out)
        if self._calling:
            return
        forbidden: list[int] = []
        if not self._bytes:
            forbidden = [ids[0] for verdict in _VERDICTS if len(ids := self._encode(verdict)) == 1]
        elif self._pressed and self._bytes.endswith(_MORE.encode()):
            openings = [self._encode(opening)[0] for opening in (" [", "[", "\n", "\n\n")]
            forbidden = [*openings, *self._tokenizer.eos_ids]
        for token in forbidden:
            out[0, token // 32] &= ~(1 << token % 32) & 0xFFFFFFFF

    def accept(self, token: int) -> list[int]:
        self._calling = self._calling or token == self._opens_call
        return super().accept(token)

    def instead(self, token: int) -> list[int] | None:
        """The tokens taken in place of `token`, already advanced over; None where `token` stands."""
        if self._calling or token == self._opens_call:
            return None
        written = self._written(token)
        if written is not None:
            self._inner.take(written)
        return written

    def _written(self, token: int) -> list[int] | None:
        """What is written where the model chose `token`; None where it stands."""
        if self._refuse:
            self.finished = True
            return self._encode(NOT_SAID)
        text = self._bytes.decode("utf-8", "replace")
        stops = token in self._tokenizer.eos_ids
        piece = "" if stops else self._tokenizer.visible_bytes(token).decode("utf-8", "replace")
        if stops and not self._pressed and self._evades(text[self._claim :]):
            self._pressed = True
            self._bytes += _MORE.encode()
            return self._encode(_MORE)
        at = 0 if stops else _boundary(text[self._claim :], piece)
        if at is None:
            return None
        claim = text[self._claim :] + piece[:at]
        if not _WORD.search(claim):
            self.finished = stops
            return self._encode(NOT_SAID) if stops and not self._said else None
        repeated = _normal(claim) in self._said
        self._said.append(_normal(claim))
        self.finished = stops or repeated or len(self._said) == _MAX_CLAIMS
        refuses = bool(_REFUSAL.search(claim))
        named = [] if repeated or refuses else supporting(claim, self._question, self._passages)
        self._grounded = self._grounded or bool(named) or refuses
        marks = "".join(f" [{n}]" for n in named)
        if self.finished and self._alone and not self._grounded:
            marks = UNSUPPORTED
        rest = "" if self.finished or piece[at:].lstrip().startswith("[") else piece[at:]
        if marks and claim[-1].isspace():
            marks, rest = marks[1:] + (" " if rest else ""), rest.lstrip(" ")
        self._claim = len(text) + at + len(marks)
        if not marks and rest == piece[at:]:
            return None
        self._bytes += (added := piece[:at] + marks + rest).encode()
        return self._encode(added)

    def _evades(self, claim: str) -> bool:
        """Whether `claim` holds no content word that the question does not, or no number where one is asked for."""
        if _AMOUNT.search(self._question) and not self._said and not Heard(claim).numbers:
            return bool(_WORD.search(claim)) and not _REFUSAL.search(claim)
        said = set(words(claim))
        return len(said) > 1 and said <= set(words(self._question))

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.vocabulary.encode(text, start=False)


def _boundary(open_: str, piece: str) -> int | None:
    """Where in `piece` the claim `open_` ends; None where it goes on."""
    if open_.count("```") % 2:
        return None  # inside a block of code
    text = open_ + piece
    if (own := re.search(r"\s\[$|\s\[\d+\]?$", text)) and own.start() >= len(open_) - 1:
        before = text[: own.start()].rstrip()
        return max(0, own.start() - len(open_)) if before and before[-1] not in "=,(:+[{" else None
    for found in _NEXT_CLAIM.finditer(text, max(0, len(open_) - 2)):
        before = text[: found.start()]
        line = "\n" in found[0]
        if found.end() > len(open_) and before.strip() and (line or _ends(before)):
            return max(0, found.start() - len(open_))
    return None


def _ends(text: str) -> bool:
    return bool(_CLAIM_END.search(text)) and not _NOT_AN_END.search(text)


def _normal(claim: str) -> str:
    return " ".join(re.sub(r"\[\d+\]", "", claim).lower().split())


def uncited(answer: str) -> str:
    """`answer` without the citations."""
    return re.sub(r"(?:(?<=\S)\s|^)\[\d{1,3}\]", "", answer)


def _claims(answer: str) -> Iterator[tuple[int, int, int]]:
    """(start of claim, start of its citations, end of its citations) wherever citations stand."""
    start = 0
    for run in re.finditer(r"(?:(?:(?<=\s)|^)\[\d{1,3}\]\s*)+", answer):
        yield start, run.start(), run.end()
        start = run.end()


def extract(answer: str, passages: Sequence[Passage], question: str) -> Extraction:
    """Read the citations that `answer` names; take out those that retrieval did not supply or that do not
    support the claim before them."""
    named: dict[int, Citation] = {}
    text, last, dropped = "", 0, 0
    for start, at, end in _claims(answer):
        claim = answer[start:at]
        allowed = [] if _REFUSAL.search(claim) else supporting(claim, question, passages)
        kept = []
        for n in map(int, _CITATION.findall(answer[at:end])):
            if n in allowed and n not in kept:
                kept.append(n)
                p = passages[n - 1]
                named.setdefault(n, Citation(n, p.source, p.position, p.text, p.label))
            else:
                dropped += 1
        after = answer[at:end][len(answer[at:end].rstrip()) :]
        text += answer[last:at] + " ".join(f"[{n}]" for n in kept) + (after if kept else "")
        last = end
    return Extraction((text + answer[last:]).strip(), tuple(named.values()), dropped)
