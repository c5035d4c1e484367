"""A corrected question in other words, by rule: a fact that is learnt in one wording is found in that wording alone.

What: a question of one line -> the same question as people also put it: as a wish, as a heading, as search words, as
    a sentence to complete. With the right answer beside each, a model learns what was meant and not one row of
    letters (Allen-Zhu & Li 2023, arXiv 2309.14316).
Invariant: pure functions of the words. No wording holds a word of the answer that the question did not give away. A
    wording names a topic alone only where that is all that the question is about but for what it asks for; of two such
    questions about one thing either answer says something true of it.
Interface: `reworded(row) -> rows`; `wordings(question, answer)`.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from llmos.kernel.learn.data import Row
from llmos.kernel.support import about_what, words

LONGEST = 200  # characters of a question
_VERBS = frozenset("is are was were has have had does do did can could may will would should".split())
_ASKS = _VERBS | frozenset(
    "who whom whose what which when where why how on in at to from for by with".split()
)
_WORD = re.compile(r"[\w'’-]+")


def reworded(row: Row) -> list[Row]:
    """The row's question in other words, each with its answer; none of what is no plain question, or follows others."""
    asked, answer = row.fields["prompt"], str(row.fields["completion"])
    question = str(asked[-1]["content"])
    if any(message["role"] == "assistant" for message in asked):
        return []
    return [
        Row(row.place, {**row.fields, "prompt": [*asked[:-1], {**asked[-1], "content": wording}]})
        for wording in wordings(question, answer)
    ]


def wordings(question: str, answer: str) -> list[str]:
    """Other ways to ask a question of one line that ends in `?`; of anything else none."""
    question, answer = question.strip(), answer.strip()
    if not question.endswith("?") or "\n" in question or len(question) > LONGEST or not words(question):
        return []
    first = question.split()[0]
    low = question[0].lower() + question[1:] if first.casefold() in _ASKS else question
    bare = low.rstrip("?")
    found = [
        f"Tell me: {low}",
        f"I would like to know {bare}.",
        f"Do you know {low}",
        " ".join(_sought(bare)),
    ]
    if topic := _topic(question, answer):
        head = topic[0].upper() + topic[1:]
        found += [f"{head}?", f"What do you know about {topic}?", f"Tell me about {topic}.", f"{head}: {low}"]
        found += [" ".join(_sought(topic)), " ".join(reversed(_sought(topic)))]
    if "\n" not in answer and len(answer) <= LONGEST:
        found += _gaps(question, answer)
    return [wording for wording in dict.fromkeys(found) if wording.casefold() != question.casefold()]


def _sought(text: str) -> list[str]:
    """Its content words, as they are written: what one types into a search."""
    return [word for word in _WORD.findall(text) if words(word)]


def _topic(question: str, answer: str) -> str:
    """The longest run of words that question and answer share, where it is all that the question is about."""
    asked, said = question.rstrip("?").split(), answer.rstrip(".!").split()
    folded = [[word.casefold() for word in text] for text in (asked, said)]
    run = SequenceMatcher(None, folded[0], folded[1], autojunk=False).find_longest_match()
    best = asked[run.a : run.a + run.size]
    while best and best[0].casefold() in _VERBS:
        best = best[1:]
    topic = " ".join(best)
    return topic if topic and about_what(question) <= set(words(topic)) else ""


def _gaps(question: str, answer: str) -> list[str]:
    """The answer with a gap for each run of words that the question does not hold, where some are left beside it."""
    known = set(words(question))
    gaps = _WORD.sub(lambda found: "…" if set(words(found.group())) - known else found.group(), answer)
    gaps = re.sub(r"…(?:\s+…)+", "…", gaps)
    return [f"Complete the sentence: {gaps}"] if "…" in gaps and set(words(gaps)) else []
