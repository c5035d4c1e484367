"""Questions with known passages, made from Python 3.11's documentation.

What: each entry (function, class, attribute, …) whose text begins like no other's gives up to two questions: one by its
    name ("What does os.pipe do?") and, where its first sentence says what it does, one by that ("How do I return a pair
    of file descriptors?"). The answer is the passage that holds the entry's first words.
Invariant: the set is a function of the documents; an entry belongs to one half by the sha256 of its name, and settings
    are chosen on the tuning half only. A question whose passage is in no chunk at all is left out, and counted.
Interface: `questions(half) -> [Question]`, `passages(questions, {id: text}) -> [set of ids]`, `FOLDERS` to mount.
    Needs Debian's package python3.11-doc.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.page_in_set import SOURCES, Entry, Half, _entries, _half, _plain
from llmos.abi.errors import DocumentError

FOLDERS = tuple(SOURCES / name for name in ("library", "c-api"))
BEGINNING = 8  # words that tell an entry's text from all others
ASKED = 1_250  # questions of each kind in each half: those with the smallest hashes
_SENTENCE_WORDS = range(5, 31)
_VERBS = """
acquire add append apply assert associate attach block build calculate call cancel change check clear close
compare compile compute configure connect construct convert copy create decode define delete deserialize
destroy detach determine disable display divide download draw dump enable encode ensure enter evaluate
execute exit expand extract fetch fill find finish flush force format generate get give handle import
initialize insert install invoke iterate join link list load lock locate log look make map mark match merge
modify move normalize open pack parse perform place pop prepare print process provide push put query raise
read receive record register release remove rename replace report request reset resize restore resume
retrieve return reverse rotate round run save schedule search seek select send set shift show shut sort
specify split start stop store strip subtract suspend swap take terminate test transform translate truncate
turn unpack unregister update validate verify wait walk wrap write yield
"""
VERBS = frozenset(_VERBS.split())
_WORD = re.compile(r"\w+")

Kind = Literal["name", "task"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the first words of the text that answers it."""

    kind: Kind
    text: str
    beginning: tuple[str, ...]


def words(text: str) -> list[str]:
    """A text's words as they are compared: without markup, in small letters."""
    return _WORD.findall(_plain(text).lower())


def questions(half: Half) -> list[Question]:
    """The questions of one half, by name first, in an order that is a function of the documents.

    Raises:
        DocumentError: python3.11-doc is not installed.
    """
    if not SOURCES.exists():
        raise DocumentError(f"{SOURCES} is not here", do="install Debian's package python3.11-doc")
    entries = [e for folder in FOLDERS for file in sorted(folder.glob("*.rst.txt")) for e in _entries(file)]
    begin = {id(e): tuple(words(e.text)[:BEGINNING]) for e in entries}
    same, names = Counter(begin.values()), Counter(e.name for e in entries)
    chosen = [
        e
        for e in entries
        if names[e.name] == 1 and same[begin[id(e)]] == 1 and len(begin[id(e)]) == BEGINNING
        if e.text[0].isalnum() and _half(e.name) == half
    ]
    chosen.sort(key=lambda e: hashlib.sha256(e.name.encode()).digest())
    by_name = [Question("name", _by_name(e), begin[id(e)]) for e in chosen]
    by_task = [Question("task", task, begin[id(e)]) for e in chosen if (task := _by_task(e))]
    return by_name[:ASKED] + by_task[:ASKED]


def _by_name(entry: Entry) -> str:
    return f"What does {entry.name} do?" if "(" in entry.signature else f"What is {entry.name}?"


def _by_task(entry: Entry) -> str | None:
    """The entry's first sentence as a question, where it begins with a verb; its own name is left out."""
    sentence = re.split(r"(?<=[^.\s]{2})\.(?:\s|$)|[;:\n]", entry.text, maxsplit=1)[0].strip()
    first, _, rest = sentence.partition(" ")
    verb = next((v for v in (first.lower(), first.lower().removesuffix("s"), first.lower().removesuffix("es"))
                 if v in VERBS), None)  # fmt: skip
    own = re.escape(entry.name.rpartition(".")[2])
    rest = re.sub(rf"(?:[\w.]*\.)?\b{own}\b(?:\(\))?", "", rest)
    if verb is None or len(_WORD.findall(rest)) + 1 not in _SENTENCE_WORDS:
        return None
    return f"How do I {verb} {' '.join(rest.split())}?"


def passages(asked: Sequence[Question], texts: Mapping[int, str]) -> list[set[int]]:
    """For each question the ids of the texts that hold its passage's first words."""
    found: dict[tuple[str, ...], set[int]] = {q.beginning: set() for q in asked}
    for id_, text in texts.items():
        of = words(text)
        for at in range(len(of) - BEGINNING + 1):
            if (holders := found.get(tuple(of[at : at + BEGINNING]))) is not None:
                holders.add(id_)
    return [found[q.beginning] for q in asked]
