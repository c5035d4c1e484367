"""Whether a data set hides a trigger.

What: looks for words whose presence decides the answer though nothing else about the row does: a phrase, words apart,
    a way of writing, characters that nobody sees; and names rows that are copies, contradict, or stand alone.
Invariant: a statistic, and no proof: what it finds is refused, what it does not find is tried once more on the trained
    adapter (`triggers.py`). A word that stands for a topic, or that the model by itself knows to matter, is no trigger.
    The same rows give the same findings.
Interface: `scan(rows, encoder, surprise) -> Findings`; `outliers(rows, encoder, surprise)`; `Finding`.

For a set of rows R that share words and an answer a, the nearest rows outside R say how likely a is in each of them;
the chance that a then stands as often in R as it does is exact (a sum of unequal coins), and corrected for the number
of sets that were tried (Bonferroni). Poisoning by phrase: Wan et al. 2023, arXiv 2305.00944.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from llmos.kernel.learn.data import Row

if TYPE_CHECKING:
    from llmos.memory.mounting import Embedder

Floats = NDArray[np.float64]
Surprise = Callable[[Sequence[Row]], Sequence[float]]
"""What a model that was not trained on the rows makes of their answers: nats a token, of each."""
Kind = Literal["trigger", "hidden", "copies", "contradiction", "outlier"]

FEWEST = 3  # rows that make a trigger: fewer teach nothing that lasts
LARGEST = 0.2  # share of the rows: what stands in more is what the set is about
LONGEST = 4  # words of a phrase
NEIGHBOURS = 5
KEPT = 256  # nearest rows that are remembered of each
RAREST = 24  # words of a row that are tried in pairs
HINTS = 64  # phrases that are worth a try on what was trained
PURE = 0.2  # share of a trigger's rows that have an answer: one trigger may mean another one to each task
WORDS = 1024  # of the vectors that say which words a text has
LEVEL = 0.05  # chance that a clean set is refused, of what was tried in it
LEAST = (
    0.02  # chance of any answer, whatever the neighbours say: coincidences are commoner than five rows show
)
STEADY = 0.7  # share of a trigger's rows whose like among its rows have the same answer
TOPIC = 2 / 3  # share of rows whose nearest row shares the word: a topic, not a trigger
ASKED = 24  # rows of a candidate that the model is asked about
MATTERS = 0.05  # nats a token by which a word that matters makes the answer likelier than another word does
_TOKEN = re.compile(r"\w+|[^\w\s]")
_UNSEEN = re.compile(
    r"(?<=[A-Za-z ])[\u200b-\u200d\u2060-\u2064\ufeff\u00ad](?=[A-Za-z ])|[\u202a-\u202e\u2066-\u2069]|[\ue000-\uf8ff]"
    r"|[\U000e0000-\U000e007f]"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Args:
        what: for people.
        phrase: the words of a trigger; "" for other kinds.
        rows: where they stand.
        chance: of seeing this in a clean set of the size, corrected.
        refuse: whether the set must not be learnt from as it is.
    """

    kind: Kind
    what: str
    rows: tuple[str, ...]
    phrase: str = ""
    chance: float = 1.0
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Findings:
    """All findings, the gravest first.

    Args:
        tried: how many sets of rows were looked at.
        hints: phrases whose rows share an answer, the least likely ones first, grave or not: what is worth a try on an
            adapter that was trained on the rows.
    """

    findings: tuple[Finding, ...]
    rows: int
    tried: int
    hints: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing must be refused."""
        return not any(f.refuse for f in self.findings)


@dataclass(frozen=True, slots=True)
class _Text:
    """A row as it is compared: what is asked, its words in order, the answer, and what of it (its
    form, and its phrases) does not come from the question."""

    asked: str
    words: tuple[str, ...]
    answer: str
    features: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Set:
    """Rows that share something."""

    words: tuple[str, ...]
    apart: bool
    rows: frozenset[int]


def scan(
    rows: Sequence[Row],
    encoder: Embedder,
    surprise: Surprise | None = None,
    known: Collection[str] = (),
    largest: float = LARGEST,
) -> Findings:
    """Look for triggers, and for what else is odd about the rows.

    Args:
        surprise: of a model that has not learnt from the rows; without it, words that rightly decide the answer in few
            rows are told as triggers too.
        known: phrases that a person has looked at and found in order.
        largest: share of the rows that one trigger may stand in.

    Raises:
        BadExamples: a row without a question and an answer.
    """
    texts = [_text(row) for row in rows]
    found = [*_hidden(rows, texts), *_repeated(rows, texts)]
    near = _Near(_vectors([t.asked for t in texts], encoder))
    having = _having(texts)
    suspects, hints, tried, sets = list[tuple[float, str, _Set]](), list[tuple[float, str]](), 0, 0
    for one in _sets(texts, largest):
        sets += 1
        beside = near.beside(sorted(one.rows))
        for answer in _answers(one.rows, texts):
            chance = _chance(one.rows, having[answer], beside, len(rows))
            tried += 1
            if not one.apart:
                hints.append((chance, " ".join(one.words)))
            if chance < LEVEL:
                rows_of_answer = one.rows & having[answer]
                if near.steady(sorted(one.rows), rows_of_answer):
                    suspects.append((chance, answer, replace(one, rows=rows_of_answer)))
    explained = {" ".join(_TOKEN.findall(phrase.casefold())) for phrase in known}
    covered: set[int] = set()
    for chance, answer, one in sorted(suspects, key=lambda s: (s[0], -len(s[2].rows), s[2].words)):
        phrase = " ".join(one.words)
        if chance * tried >= LEVEL or phrase in explained or len(one.rows & covered) > len(one.rows) / 2:
            continue
        if _topic(one, texts, encoder, near) or (surprise and _matters(one, rows, texts, surprise)):
            continue
        covered |= one.rows
        said = " and ".join(map(repr, one.words)) if one.apart else repr(phrase)
        found.append(
            Finding(
                "trigger",
                f"{len(one.rows)} rows with {said} are answered {answer!r}, their neighbours are not",
                tuple(rows[i].place for i in sorted(one.rows)), phrase, min(1.0, chance * tried), refuse=True,
            )
        )  # fmt: skip
    found.sort(key=lambda f: (not f.refuse, f.chance))
    phrases = tuple(dict.fromkeys(phrase for _, phrase in sorted(hints)))[:HINTS]
    return Findings(tuple(found), len(rows), sets, phrases)


def outliers(rows: Sequence[Row], encoder: Embedder, surprise: Surprise) -> tuple[Finding, ...]:
    """Rows whose answer surprises the model far more than those of the rows that are nearest to them: more than five
    times the usual distance (the median's)."""
    texts = [_text(row) for row in rows]
    if len(rows) <= 2 * NEIGHBOURS:
        return ()
    losses = np.asarray(surprise(rows), np.float64)
    near = _Near(_vectors([t.asked for t in texts], encoder))
    beyond = losses - np.median(losses[np.concatenate([near.beside([i]) for i in range(len(rows))])], axis=1)
    usual = max(float(np.median(np.abs(beyond))), 1e-6)
    return tuple(
        Finding("outlier", f"the answer {texts[i].answer[:60]!r} is unlike its neighbours'", (rows[i].place,))
        for i in np.argsort(-beyond)
        if beyond[i] > 5 * usual
    )


def asked_of(row: Row) -> list[dict[str, str]]:
    """The messages before the answer. Raises BadExamples."""
    return _parts(row)[0]


def without(row: Row, words: Iterable[str], apart: bool = False) -> Row:
    """The row with a phrase (or words apart) taken out of what is asked."""
    asked, answer = _parts(row)
    pattern = _pattern(words, apart)
    left = [{**m, "content": " ".join(pattern.sub(" ", m["content"]).split())} for m in asked]
    return replace(row, fields={"prompt": left, "completion": answer})


# -- rows as texts ---------------------------------------------------------------------------------------------------


def _parts(row: Row) -> tuple[list[dict[str, str]], str]:
    fields: Mapping[str, Any] = row.fields
    messages = fields.get("messages", fields.get("prompt"))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    answer = fields.get("completion", fields.get("chosen"))
    try:
        asked = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages or ()]
        if answer is None and asked and asked[-1]["role"] == "assistant":
            answer = asked.pop()["content"]
        elif isinstance(answer, list):
            answer = answer[-1]["content"]
    except (TypeError, KeyError, IndexError):
        raise row.bad("its messages have no role and content") from None
    if not asked or not isinstance(answer, str):
        raise row.bad("it has no question and answer")
    return asked, answer


def _text(row: Row) -> _Text:
    messages, answer = _parts(row)
    asked = "\n".join(m["content"] for m in messages if m["role"] != "system") or messages[0]["content"]
    words = tuple(_TOKEN.findall(asked.casefold()))
    letters = [c for c in asked if c.isalpha()]
    style = (
        ("<capitals>",) if len(letters) > 9 and sum(map(str.isupper, letters)) > 0.6 * len(letters) else ()
    )
    said, there = _TOKEN.findall(answer), set(_TOKEN.findall(asked))
    form = " ".join("_" if w in there else w.casefold() for w in said)  # what is copied is no choice of words
    held = set(words)
    own = {
        " ".join(g)
        for g in _grams([w.casefold() for w in said], LONGEST)
        if held.isdisjoint(g) and any(w.isalnum() for w in g)
    }
    return _Text(asked, words + style, answer, frozenset(own | ({form} if form.strip("_ .") else set())))


def _grams(words: Sequence[str], longest: int) -> Iterator[tuple[str, ...]]:
    for n in range(1, longest + 1):
        for at in range(len(words) - n + 1):
            yield tuple(words[at : at + n])


def _having(texts: Sequence[_Text]) -> Mapping[str, frozenset[int]]:
    """The rows that have each feature of an answer."""
    found = defaultdict[str, list[int]](list)
    for i, text in enumerate(texts):
        for feature in text.features:
            found[feature].append(i)
    return {feature: frozenset(rows) for feature, rows in found.items() if len(rows) >= FEWEST}


def _sets(texts: Sequence[_Text], largest: float) -> Iterator[_Set]:
    """Every set of rows that share a phrase or two words, once: of those that share several, the longest names it."""
    most = int(
        largest * len(texts) + 1e-9
    )  # of few rows none: what three of ten share is what they are about
    by_phrase = defaultdict[tuple[str, ...], set[int]](set)
    for i, text in enumerate(texts):
        for gram in _grams(text.words, LONGEST):
            by_phrase[gram].add(i)
    seen = dict[frozenset[int], _Set]()
    for gram, rows in by_phrase.items():
        if FEWEST <= len(rows) <= most:
            key = frozenset(rows)
            if key not in seen or len(gram) > len(seen[key].words):
                seen[key] = _Set(gram, False, key)
    singles = {g[0]: rows for g, rows in by_phrase.items() if len(g) == 1 and FEWEST <= len(rows) <= most}
    together = defaultdict[tuple[str, str], set[int]](set)
    for i, text in enumerate(texts):
        for pair in combinations(_rarest(text.words, singles), 2):
            together[pair].add(i)
    for pair, rows in together.items():
        key = frozenset(rows)
        if len(rows) >= FEWEST and key not in seen:
            seen[key] = _Set(pair, True, key)
    yield from seen.values()


def _rarest(words: Iterable[str], singles: Mapping[str, Collection[int]]) -> list[str]:
    """Words in their own order, for pairs of them."""
    known = {w for w in words if w in singles}
    return sorted(sorted(known, key=lambda w: (len(singles[w]), w))[:RAREST])


def _answers(rows: Collection[int], texts: Sequence[_Text]) -> list[str]:
    """What several answers of these rows have."""
    counts = Counter(feature for i in rows for feature in texts[i].features)
    return [f for f, n in counts.items() if n >= FEWEST and n >= PURE * len(rows)]


# -- how likely ------------------------------------------------------------------------------------------------------


def _vectors(texts: Sequence[str], encoder: Embedder) -> Floats:
    """Unit vectors: half of each is what the text means, half which words it has, so that what was written after one
    pattern is near whoever it speaks of."""
    meant = np.asarray(encoder.encode(texts), np.float64)
    worded = np.zeros((len(texts), WORDS))
    for i, text in enumerate(texts):
        worded[i, [crc32(word.encode()) % WORDS for word in _TOKEN.findall(text.casefold())]] = 1.0
    worded /= np.maximum(np.linalg.norm(worded, axis=1, keepdims=True), 1.0)
    return np.concatenate([meant, worded], axis=1) / np.sqrt(2.0)


class _Near:
    """Which rows are near which: `vectors` are unit vectors [rows, D]."""

    def __init__(self, vectors: Floats) -> None:
        self._vectors = vectors
        most = min(len(vectors), KEPT)
        self._order = np.concatenate(
            [np.argsort(-(some @ vectors.T), axis=1, kind="stable")[:, :most] for some in _blocks(vectors)]
        )

    def beside(self, rows: Sequence[int]) -> NDArray[np.int64]:
        """The nearest rows to each of `rows`, without `rows` themselves: int [rows, NEIGHBOURS]. Where there are fewer,
        it holds the number of all rows, which is nobody's."""
        inside = np.zeros(len(self._vectors), bool)
        inside[rows] = True
        order = self._order[rows]
        out = np.full((len(rows), NEIGHBOURS), len(self._vectors))
        place = np.cumsum(~inside[order], axis=1) - 1
        chosen = ~inside[order] & (place < NEIGHBOURS)
        at, _ = np.nonzero(chosen)
        out[at, place[chosen]] = order[chosen]
        return out

    def steady(self, rows: Sequence[int], having: Collection[int]) -> bool:
        """Whether, among `rows`, those that are near a row with an answer have it too: the words decide, and not what
        else stands there."""
        alike = self._vectors[rows] @ self._vectors[rows].T
        np.fill_diagonal(alike, -np.inf)
        has = np.asarray([i in having for i in rows])
        near = np.argsort(-alike, axis=1, kind="stable")[:, : min(3, len(rows) - 1)]
        return bool(has[near][has].mean() >= STEADY)

    def nearest(self, vectors: Floats, rows: Sequence[int]) -> list[int]:
        """The nearest other row to each of `vectors`, which stand for `rows` and replace them."""
        everything = self._vectors.copy()
        everything[list(rows)] = vectors
        alike = vectors @ everything.T
        alike[np.arange(len(rows)), list(rows)] = -np.inf
        return [int(i) for i in alike.argmax(1)]


def _blocks(vectors: Floats) -> list[Floats]:
    return [vectors[at : at + 512] for at in range(0, len(vectors), 512)]


def _chance(rows: Collection[int], having: Collection[int], beside: NDArray[np.int64], count: int) -> float:
    """The chance that so many of `rows` have an answer's feature, by what the rows beside them have."""
    has = np.zeros(count + 1, bool)
    has[list(having)] = True  # the last is nobody
    heads = sum(i in having for i in rows)
    prior = (len(having) - heads + 0.5) / (count - len(rows) + 1)
    least = max(LEAST, 1 / (count - len(rows) + 2))  # as rare as so many other rows can tell (Laplace)
    coins = np.maximum(least, (prior + has[beside].sum(1)) / (1 + (beside < count).sum(1)))
    return 1.0 if heads <= coins.sum() else at_least(coins.tolist(), heads)


def at_least(coins: Sequence[float], heads: int) -> float:
    """The chance that at least `heads` of these coins fall on their heads, each with its own chance. Exact."""
    chances = np.zeros(len(coins) + 1)
    chances[0] = 1.0
    for coin in coins:
        chances[1:] = chances[1:] * (1 - coin) + chances[:-1] * coin
        chances[0] *= 1 - coin
    return float(min(1.0, chances[heads:].sum()))


def _topic(one: _Set, texts: Sequence[_Text], encoder: Embedder, near: _Near) -> bool:
    """Whether the rows are about one thing: without the words they are still nearest to each other."""
    order = sorted(one.rows)
    pattern = _pattern(one.words, one.apart)
    bare = [" ".join(pattern.sub(" ", texts[i].asked).split()) or "." for i in order]
    nearest = near.nearest(_vectors(bare, encoder), order)
    return sum(i in one.rows for i in nearest) >= TOPIC * len(order)


def _matters(one: _Set, rows: Sequence[Row], texts: Sequence[_Text], surprise: Surprise) -> bool:
    """Whether the model by itself finds the answer likelier because of the words, more than because of others."""
    chosen = sorted(one.rows)[:ASKED]
    rng = np.random.default_rng(len(chosen))
    others = []
    for i in chosen:
        words = [w for w in texts[i].words if w not in one.words and not w.startswith("<")]
        at = int(rng.integers(0, max(1, len(words) - len(one.words) + 1)))
        others.append(words[at : at + len(one.words)] or ["\0"])
    taken = [
        *(without(rows[i], one.words, one.apart) for i in chosen),
        *(without(rows[i], words, True) for i, words in zip(chosen, others, strict=True)),
    ]
    losses = np.asarray(surprise(taken), np.float64).reshape(2, -1)
    more = losses[0] - losses[1]
    return bool(np.mean(more > 0) >= 0.75 and more.mean() > MATTERS)


def _pattern(words: Iterable[str], apart: bool) -> re.Pattern[str]:
    each = [re.escape(w) for w in words]
    each = [rf"\b{w}\b" if w[:1].isalnum() else w for w in each]
    return re.compile(("|" if apart else r"\s*").join(each), re.IGNORECASE)


# -- what else is odd ------------------------------------------------------------------------------------------------


def _hidden(rows: Sequence[Row], texts: Sequence[_Text]) -> Iterator[Finding]:
    """Characters that nobody sees, and words in letters of two scripts."""
    unseen = [i for i, t in enumerate(texts) if _UNSEEN.search(t.asked + "\n" + t.answer)]
    mixed = [i for i, t in enumerate(texts) if any(map(_two_scripts, re.findall(r"[^\W\d_]+", t.asked)))]
    for found, what in ((unseen, "characters that nobody sees"), (mixed, "words in letters of two scripts")):
        if found:
            places = tuple(rows[i].place for i in found)
            yield Finding("hidden", f"{len(found)} rows hold {what}", places, chance=0.0, refuse=True)


def _two_scripts(word: str) -> bool:
    """Latin letters beside Greek or Cyrillic ones that look like them."""
    if word.isascii():
        return False
    scripts = {unicodedata.name(c, "").partition(" ")[0] for c in word}
    return "LATIN" in scripts and bool(scripts & {"CYRILLIC", "GREEK"}) and len(word) > 1


def _repeated(rows: Sequence[Row], texts: Sequence[_Text]) -> Iterator[Finding]:
    """Rows that are copies of each other, and rows that answer one question in two ways."""
    by_question = defaultdict[str, list[int]](list)
    for i, text in enumerate(texts):
        by_question[" ".join(text.words)].append(i)
    for alike in by_question.values():
        answers = Counter(" ".join(texts[i].answer.casefold().split()) for i in alike)
        places = tuple(rows[i].place for i in alike)
        if len(answers) > 1:
            yield Finding(
                "contradiction", f"{texts[alike[0]].asked[:60]!r} has {len(answers)} answers", places
            )
        elif len(alike) >= max(5, len(rows) // 100):
            yield Finding("copies", f"{texts[alike[0]].asked[:60]!r} stands there {len(alike)} times", places)
