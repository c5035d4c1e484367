"""Telling results: what a small model reads behind the results of its calls, and what its answer has to hold.

What: behind a result a small model is told what to write, with the lines of the result that are nearest to the
    question. An answer that does not hold what these lines say gets them written behind it, and so does one that has
    nothing of what the user said of the same thing before; what another expert answered, or that a call failed, is
    told word for word.
Invariant: pure functions of the question, the window and the results' text, so a turn that is resumed is told the same
    and tells the same. The model's own words stand: only the end of an answer is added to.
Interface: `told(question, results, follows) -> parts`; `Result.of(...)` of what is `written(...)`; `remembered(...)`;
    `HoldingGrammar`; `nearest(question, result) -> Lines`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmos.kernel.engine.grammar import OuterGrammar
from llmos.kernel.heard import NUMBER
from llmos.kernel.prompt import Part
from llmos.kernel.support import about_what, words

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.engine.grammar import InnerGrammar
    from llmos.kernel.layout import Layout

Follows = Literal["", "words", "call"]
"""What the model is to write behind results: whatever it likes, words, or a call in place of one that failed."""

_RESULT = "\n\nThis is the result."
TELL = f"{_RESULT} Tell the user in a sentence what it says about the question."
AGAIN = "\n\nThat failed. Call again, in a way that works, to do what the user asked for."
_ANSWERS = ("experts.ask", "experts.route")  # syscalls whose result is an answer already
_FAILED = "I could not do it: "
MOST = 40  # words of a result that are quoted
_FEW = 3  # lines of a result of which an answer may tell any
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_ROW = re.compile(r"\s*\|")
_OWN = re.compile(r"\b(I|me|my|mine|we|us|our|ours)\b", re.IGNORECASE)
_RULE = re.compile(r"\s*\|[\s|:-]+$")  # of a table, under its head


def told(question: str, results: Sequence[Part], follows: Follows) -> tuple[Part, ...]:
    """What stands behind results, for the model to go on from."""
    if not follows:
        return ()
    if follows == "call":
        return (Part("system", AGAIN),)
    last = results[-1]
    near = nearest(question, last.text).text
    if not near or len(last.text.split()) <= MOST or _error(last.text):
        return (Part("system", TELL),)
    before, _, behind = TELL.partition(". ")
    about = Part(last.kind, f"{near}\n", last.label, last.source)
    return Part("system", f"{before}. Nearest to the question is:\n"), about, Part("system", behind)


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of a result that say something of a question, as they are quoted; and the words, of a short result all,
    that the question does not have."""

    text: str
    new: frozenset[str]


NOTHING = Lines("", frozenset())


def nearest(question: str, result: str) -> Lines:
    """The lines of a result that share most with the question and say something beside, those of tables with their
    heads; of a short result all that say something."""
    asked = frozenset(words(question))
    lines = [unit for line in result.splitlines() if line.strip() for unit in _units(line)]
    heads = _heads(lines)
    said = [
        frozenset(words(line)) if at not in head else frozenset()
        for at, (line, head) in enumerate(zip(lines, heads, strict=True))
    ]
    held = Counter(word for line in said for word in line)
    shared = [sum(1 / held[word] for word in line & asked) if line - asked else 0.0 for line in said]
    few = len(result.split()) <= MOST
    best, short = max(shared, default=0.0), few and len(lines) <= _FEW
    chosen = [at for at, share in enumerate(shared) if share == best]
    if short or not best:
        if not few:
            return NOTHING
        chosen = [at for at, line in enumerate(said) if line - asked]
    quoted: list[int] = []
    for at in chosen:
        more = [i for i in dict.fromkeys((*heads[at], at)) if i not in quoted]
        if quoted and sum(len(lines[i].split()) for i in (*quoted, *more)) > MOST:
            break
        quoted += more
    new = frozenset().union(*(said if short else (said[at] for at in quoted))) - asked
    return Lines("\n".join(lines[at] for at in quoted), new)


def _units(line: str) -> list[str]:
    """A line, or its sentences where it is long; what is long without sentences is not quoted."""
    if len(line.split()) <= MOST:
        return [line]
    return [unit for unit in _SENTENCE.split(line.strip()) if len(unit.split()) <= MOST]


def _heads(lines: Sequence[str]) -> list[range]:
    """Where the head of the table stands in which each line stands, the head's own lines included: with Markdown's rule
    under it, or the first line where it alone is indented, as of a data frame."""
    framed = (
        len(lines) > 1 and lines[0].startswith("  ") and not any(line.startswith(" ") for line in lines[1:])
    )
    heads, rule = [], 0
    for at, line in enumerate(lines):
        row = _ROW.match(line) is not None
        rule = at if _RULE.match(line) else rule if row else 0
        if rule:
            heads.append(range(rule - 1, rule + 1))
        elif row and at + 1 < len(lines) and _RULE.match(lines[at + 1]):
            heads.append(range(at, at + 2))
        else:
            heads.append(range(framed))
    return heads


@dataclass(frozen=True, slots=True)
class Result:
    """What the calls of a turn came to."""

    text: str
    verbatim: str = ""  # what is told word for word in place of an answer

    @classmethod
    def of(cls, results: Sequence[tuple[str, str]]) -> Result:
        """Of (syscall, text) in order. What another expert answered is an answer already; where nothing but errors
        came, the last of them is told."""
        good = [text for _, text in results if not _error(text)]
        syscall, last = results[-1]
        if not good:
            return cls(last, f"{_FAILED}{_error(last)}")
        return cls("\n".join(good), last if syscall in _ANSWERS and good[-1] == last else "")


def remembered(question: str, layout: Layout) -> Result | None:
    """What the user told of his own in turns that stand in the window, where he asks for it now in the same words."""
    asked = about_what(question)
    if not asked or not _OWN.search(question):
        return None
    before = [m.parts[-1].text for m in layout.messages[:-1] if m.role == "user"]
    said = [text for text in before if not text.rstrip().endswith("?") and asked <= set(words(text))]
    return Result("\n".join(said)) if said else None


def written(behind: str, frame: tuple[str, str]) -> str:
    """A result, read back from what stands in a window behind its call; `frame` is what the template writes around
    one."""
    _, _, inside = behind.partition(frame[0])
    before, marked, _ = inside.rpartition(_RESULT)
    text = before if marked else inside.partition(frame[1])[0]
    return text.removesuffix(AGAIN).strip("\n")


def _error(text: str) -> str:
    """What an error says, without the lines of code that it shows; "" where the text is none."""
    if not text.startswith('{"error": {'):
        return ""
    try:
        message = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    _, _, last = message.rpartition("Traceback (most recent call last):")
    return "\n".join(line for line in last.splitlines() if line and not line.startswith(" "))


class HoldingGrammar(OuterGrammar):
    """Words that tell what came of a call, or what was said before. Where the model would stop and has not told what
    that says of the question, the lines that say it are written behind its words."""

    def __init__(self, question: str, result: Result, tokenizer: Tokenizer, inner: InnerGrammar) -> None:
        super().__init__(inner, tokenizer)
        self._question, self._result = question, result.text
        self._near = nearest(question, result.text)

    def instead(self, token: int) -> list[int] | None:
        """The tokens taken in place of the one that ends the answer, already advanced over; None where it ends."""
        if token not in self._tokenizer.eos_ids or not self._near.text or self._holds():
            return None
        quotation = self._tokenizer.vocabulary.encode(f"\n\n{_quoted(self._near.text)}", start=False)
        self._inner.take(quotation)
        self.finished = True
        return quotation

    def _holds(self) -> bool:
        """Whether the answer has something of what these lines say beside the question's own words, and no number that
        stands nowhere."""
        answer, near = self._bytes.decode("utf-8", "replace"), self._near
        if _numbers(answer) - _numbers(f"{self._question}\n{self._result}"):
            return False
        return not near.new or bool(near.new & set(words(answer)))


def _quoted(text: str) -> str:
    """As Markdown has it: these are not the model's own words."""
    return "\n".join(f"> {line}" for line in text.splitlines())


def _numbers(text: str) -> set[float]:
    return {float(found[0].replace(",", "")) for found in re.finditer(NUMBER, text)}
