"""What a passage says about a question, and whether it supports a claim: judged by words.

What: content words (stop words out, endings cut), sentences, the excerpt of a passage that is nearest to a
    question, and the passages that support a claim.
Invariant: pure functions of text, no model: the same words give the same verdict on every machine. A number,
    path or identifier counts only where it stands letter for letter.
Interface: `words`, `names`, `about`, `about_what`, `excerpt`, `supporting`, `answerable`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

EXCERPT_WORDS = (
    70  # of a passage, in the window: a small model reads four short excerpts better than one long text
)
CITATIONS = 2  # of one claim, at most
_COVERED = 0.6  # share of a claim's content words that its passages must hold
_NEW_COVERED = 0.5  # the same of those words that are not the question's own
_BEHIND = 0.5  # of the best passage's score: what has less is about something else
_NEAR = 0.6  # cosine of question and passage that is enough by itself
_KNOWN = 0.78  # else the least sum of that cosine and half the share of the question's words that are held

_STOP = frozenset(
    """
    a about according after all also am an and any are as at be been before being but by can cannot could did do
    does doing done each else for from get had has have having he her here his how i if in into is it its just
    may me mean means might more most must my namely no not of on once one only or other our out over own same
    say says shall she should so some such than that the their them then there these they this those through to
    too under until up use used uses using very was we were what when where which while who whom whose why will
    with would yes you your called e.g i.e cf vs e g i document documents passage passages
    """.split()
)
_WORD = re.compile(r"\w+(?:[-.+/@#'’]\w+)*")
_PARTS = re.compile(r"[-.+/@#'’]")
_LITERAL = re.compile(r"[\d_/.@#+]")
_ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ied", "ers", "er", "es", "ed", "ly", "s", "e", "y")
_CODE = re.compile(  # a name as programs have it: dotted, with underscores, or with a capital inside
    r"(?<![\w./@:-])(?=\w*[A-Za-z])(?:\w*_\w*(?:\.\w+)*|\w{2,}(?:\.[A-Za-z_]\w+)+|[a-z]+[A-Z]\w*|[A-Z][a-z]+[A-Z]\w*)(?![\w@/-]|\.\w)"
)
_FILE = re.compile(  # what only looks like one
    r"(?i)\.(?:[a-z]?html?|txt|md|rst|csv|tsv|jsonl?|ya?ml|toml|xml|pdf|docx?|odt|rtf|xlsx?|ods|pptx?|epub|log|ini|cfg|conf"
    r"|env|py|js|ts|sh|c|h|cc|cpp|java|go|rs|rb|sql|png|jpe?g|gif|svg|wav|mp3|zip|gz|deb|exe|org|com|net|edu|gov|io|eu|example)$"
)
_NAME = re.compile(r"(?<=[^.?!]\s)[A-Z]\w+")
_ASKING = (
    re.compile(  # "how long", "on which day": what is asked for; in its place the documents have the answer
        r"\b(how|which|what|whose)\s+\w+", re.IGNORECASE
    )
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=[\"'“(/]*[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\be\.g|\bi\.e|\bcf|\betc|\bvs|\b[A-Z])\.$")


class Text(Protocol):
    """As much of a passage as this module reads."""

    @property
    def text(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def similarity(self) -> float: ...


class Scored(Text, Protocol):
    """A passage as retrieval ranks it."""

    @property
    def score(self) -> float: ...


def words(text: str) -> list[str]:
    """The content words of `text` in order, endings cut; compounds whole and in their parts."""
    found = []
    for match in _WORD.finditer(text.lower()):
        word = re.sub(r"['’]s$", "", match[0])
        parts = _PARTS.split(word)
        found += [_stem(w) for w in ([word, *parts] if len(parts) > 1 else parts) if w and w not in _STOP]
    return found


Passage = TypeVar("Passage", bound=Scored)


def names(text: str) -> list[str]:
    """The names of code in `text`: `zlib.crc32`, `max_size`, `SSLContext`; not those of files and hosts."""
    return [m[0] for m in _CODE.finditer(text) if not _FILE.search(m[0]) and not m[0].strip("_").isdigit()]


def names_it(passage: Text, name: str) -> bool:
    """Whether a passage speaks of the code that `name` is a name of: it stands there whole, or its last part stands
    there as code does, and the part before it too."""
    text = f"{passage.heading}\n{passage.text}"
    *_, owner, last = ("", *name.split("."))
    if _stands(name, text):
        return True
    if not owner or not _stands(owner, text):
        return False
    as_code = rf"(?:\.|^|\n|> ){re.escape(last)}(?!\w)|(?<!\w){re.escape(last)}\("
    return bool(re.search(as_code, text)) or (bool(_CODE.fullmatch(last)) and _stands(last, text))


def about(question: str, passages: Sequence[Passage]) -> list[Passage]:
    """Those passages that a question is about. Where it names code that some of them speak of, these, and not what is
    like them; else those that are not far behind the best, for a small model reads whatever it is given."""
    asked = names(question)
    if of_it := [p for p in passages if any(names_it(p, name) for name in asked)]:
        return of_it
    best = max((p.score for p in passages), default=0.0)
    return [p for p in passages if p.score >= _BEHIND * best]


def _stands(name: str, text: str) -> bool:
    return bool(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE))


def _stem(word: str) -> str:
    if not _LITERAL.search(word):
        for ending in _ENDINGS:
            if word.endswith(ending) and len(word) - len(ending) >= 3:
                return word[: -len(ending)]
    return word


def paragraphs(text: str) -> list[list[str]]:
    """The sentences of each paragraph; a short line without an end (a term, a heading) goes with what follows."""
    found: list[list[str]] = []
    term = ""
    for paragraph in map(str.strip, _PARAGRAPH.split(text)):
        if not paragraph:
            continue
        if len(paragraph) < 60 and "\n" not in paragraph and paragraph[-1] not in ".!?;,":
            term = f"{term} {paragraph}".strip()
            continue
        sentences: list[str] = []
        for sentence in _SENTENCE.split(paragraph):
            if sentences and _ABBREVIATION.search(sentences[-1]):
                sentences[-1] += " " + sentence
            else:
                sentences.append(sentence)
        if term:
            sentences[0] = f"{term} {sentences[0]}"
            term = ""
        found.append(sentences)
    return [*found, [term]] if term else found


def weights(question: str, passages: Sequence[Text]) -> dict[str, float]:
    """How much each content word of the question tells among the sentences of these passages (its rarity)."""
    sentences = [set(words(s)) for p in passages for paragraph in paragraphs(p.text) for s in paragraph]
    held = Counter(word for sentence in sentences for word in sentence)
    count = len(sentences)
    return {
        w: math.log(1 + (count - held[w] + 0.5) / (held[w] + 0.5)) if held[w] else 0.0
        for w in words(question)
    }


def excerpt(passage: Text, weight: Mapping[str, float], limit: int = EXCERPT_WORDS) -> str:
    """The run of whole sentences, at most `limit` words (or one sentence), that holds most of the question."""
    body = passage.text.removeprefix(passage.heading.rpartition(" > ")[2]).lstrip() or passage.text
    units = [(s, k + 1 == len(p)) for p in paragraphs(body) for k, s in enumerate(p)]
    if not units:
        return body
    sizes = [len(s.split()) for s, _ in units]
    holds = [Counter(w for w in words(s) if w in weight) for s, _ in units]
    best, first, last = -math.inf, 0, 0
    for i in range(len(units)):
        size, seen = 0, Counter[str]()
        for j in range(i, len(units)):
            size += sizes[j]
            if size > limit and j > i:
                break
            seen += holds[j]
            value = sum(weight[w] * (1 + 0.1 * min(n - 1, 3)) for w, n in seen.items()) - 0.004 * size
            if value > best:
                best, first, last = value, i, j
    size = sum(sizes[first : last + 1])
    while True:  # what room is left goes to what follows, else to what stands before
        if last + 1 < len(units) and size + sizes[last + 1] <= limit:
            last += 1
            size += sizes[last]
        elif first > 0 and size + sizes[first - 1] <= limit:
            first -= 1
            size += sizes[first]
        else:
            break
    text = "".join(" ".join(s.split()) + ("\n" if ends else " ") for s, ends in units[first : last + 1])
    return text.strip()


def supporting(claim: str, question: str, passages: Sequence[Text]) -> list[int]:
    """Numbers (from 1) of the passages that support `claim`, the best first, at most `CITATIONS`.

    The second is named only where it holds words of the claim that the first lacks.
    """
    said = list(dict.fromkeys(words(claim)))
    asked = _with_tails(words(question))
    new = [w for w in said if w not in asked]
    held = [_with_tails(words(f"{p.heading} {p.text}")) for p in passages]

    def value(n: int) -> float:
        h = held[n]
        return 2 * _share(new, h) + _share(said, h) + _share(asked, h) - 0.02 * n

    order = sorted(range(len(passages)), key=value, reverse=True)
    if not order or (not said and _share(asked, held[order[0]]) < _COVERED):  # "Yes." is about the question
        return []
    chosen = order[:1]
    missing = [w for w in new if w not in held[order[0]]]
    if missing:
        second = max(order[1:], key=lambda n: (sum(w in held[n] for w in missing), value(n)), default=None)
        gained = [w for w in missing if second is not None and w in held[second]]
        if second is not None and (len(gained) >= 2 or any(_LITERAL.search(w) for w in gained)):
            chosen.append(second)
    together = set().union(*(held[n] for n in chosen))
    literal = all(w in together for w in new if _LITERAL.search(w))
    if literal and _share(said, together) >= _COVERED and _share(new, together) >= _NEW_COVERED:
        return [n + 1 for n in chosen[:CITATIONS]]
    return []


def _with_tails(found: Sequence[str]) -> set[str]:
    """Words, and of dotted names also what is left without the first parts: `a.b.c` is called `b.c` too. Numbers are
    whole or something else."""
    held = set(found)
    for word in found:
        while "." in word:
            word = word.partition(".")[2]
            if not word[:1].isdigit():
                held.add(word)
    return held


def _share(some: Sequence[str] | set[str], held: set[str]) -> float:
    return sum(w in held for w in some) / len(some) if some else 1.0


def about_what(question: str) -> set[str]:
    """The content words of a question but for what it asks for: of "which colour has my car" it is `car`."""
    return set(words(_ASKING.sub(r"\1", question)))


def answerable(question: str, passages: Sequence[Text]) -> bool:
    """Whether what was retrieved is near enough to the question to hold an answer: near in meaning, or in
    meaning and words together, where no name that the question turns on is missing. Where it names code, what speaks
    of that code is near, and nothing else is, however alike."""
    if not passages:
        return False
    if asked := names(question):
        return any(names_it(p, name) for p in passages for name in asked)
    nearest = max(p.similarity for p in passages)
    if nearest >= _NEAR:
        return True
    held = set().union(*(words(f"{p.heading} {p.text}") for p in passages))
    if any(w not in held for name in _NAME.findall(question) for w in words(name)):
        return False
    return nearest + 0.5 * _share(about_what(question), held) >= _KNOWN
