"""Questions over shared contexts, made from Python 3.11's documentation; answers are checked letter for letter.

What: a chunk is the entry of one function, class, attribute, option or exception as a reader sees it; a context is
    neighbouring chunks of a module, about 3,000 tokens of look-alike text; a question asks for one fact of one chunk:
    since which version it exists, which version changed it, what its signature is.
Invariant: the answer stands in its chunk, and the asked name belongs to that chunk alone among those of the context.
    The set is a function of the documents; a context belongs to one half, by the sha256 of its id.
Interface: `contexts(half) -> [Context]`, `Question.asked`, `right(question, answer)`;
    `python -m benchmarks.page_in_set` says how many there are and shows some. Needs Debian's package python3.11-doc.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmos.abi.errors import DocumentError

SOURCES = Path("/usr/share/doc/python3.11/html/_sources")
FOLDERS = ("library", "c-api")
CONTEXT_CHARACTERS = 13_600  # about 3,000 tokens: with 4,000 there would not be 100 contexts in each half
LEAST_CHARACTERS = 12_000
CHUNK_CHARACTERS = (120, 1_400)
QUESTIONS = 40  # of one context, at most

Half = Literal["tuning", "published"]
Kind = Literal["added", "changed", "signature"]


@dataclass(frozen=True, slots=True)
class Question:
    """One fact; `chunk` is the place in its context of the chunk that holds it."""

    id: str
    kind: Kind
    text: str
    answer: str
    chunk: int

    @property
    def asked(self) -> str:
        """The question as it is put to the model."""
        what = "signature" if self.kind == "signature" else "version number"
        copied = ", copied from the documents" if self.kind == "signature" else ""
        return f"Question: {self.text}\nAnswer with the {what} only{copied}."


@dataclass(frozen=True, slots=True)
class Context:
    """Chunks in the order of the document, and what is asked about them."""

    id: str
    chunks: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing: its full name, its signature as written, its text."""

    name: str
    signature: str
    text: str

    @property
    def chunk(self) -> str:
        return f"{self.signature}\n{self.text}"


def contexts(half: Half | None = None) -> list[Context]:
    """The contexts of one half, or all.

    Raises:
        DocumentError: python3.11-doc is not installed.
    """
    if not SOURCES.exists():
        raise DocumentError(f"{SOURCES} is not here", do="install Debian's package python3.11-doc")
    made = []
    for folder in FOLDERS:
        entries = [e for file in sorted((SOURCES / folder).glob("*.rst.txt")) for e in _entries(file)]
        made += [_context(group) for group in _groups(entries)]
    return [c for c in made if c.questions and (half is None or _half(c.id) == half)]


def right(question: Question, answer: str) -> bool:
    """Whether the first version number is the one, or the arguments stand there as they are written, spaces aside."""
    if question.kind == "signature":
        return re.sub(r"\s", "", question.answer) in re.sub(r"\s", "", answer)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", answer)
    return found is not None and found[0] == question.answer


# -- from entries to questions


def _half(id_: str) -> Half:
    return "published" if hashlib.sha256(id_.encode()).digest()[-1] % 2 else "tuning"


def _groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Neighbours whose texts are long enough together for a window."""
    group: list[Entry] = []
    size = 0
    for entry in entries:
        if not CHUNK_CHARACTERS[0] <= len(entry.chunk) <= CHUNK_CHARACTERS[1]:
            continue
        if size + len(entry.chunk) > CONTEXT_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(entry)
        size += len(entry.chunk)
    if size >= LEAST_CHARACTERS:
        yield group


def _context(group: list[Entry]) -> Context:
    id_ = hashlib.sha256("\n\n".join(e.chunk for e in group).encode()).hexdigest()[:12]
    names = Counter(e.name for e in group)
    found = [
        Question(f"{id_}/{kind}/{entry.name}/{n}", kind, text, answer, place)
        for place, entry in enumerate(group)
        if names[entry.name] == 1
        for n, (kind, text, answer) in enumerate(_facts(entry))
    ]
    # The same few of each context, whatever else changes: those with the smallest hashes.
    kept = sorted(found, key=lambda q: hashlib.sha256(q.id.encode()).digest())[:QUESTIONS]
    return Context(id_, tuple(e.chunk for e in group), tuple(kept))


_SIGNATURE = re.compile(r"[\w.]+(\(.*\w.*\))")
SIGNATURE_CHARACTERS = 60  # of its arguments; copying long ones says little and takes long


def _facts(entry: Entry) -> Iterator[tuple[Kind, str, str]]:
    added = re.findall(r"New in version (\d+\.\d+(?:\.\d+)?)", entry.text)
    changed = re.findall(r"Changed in version (\d+\.\d+(?:\.\d+)?)", entry.text)
    if len(added) == 1:
        yield "added", f"In which version of Python is {entry.name} new?", added[0]
    if len(changed) == 1 and changed != added:
        yield "changed", f"In which version of Python was {entry.name} changed?", changed[0]
    written = _SIGNATURE.fullmatch(entry.signature)
    if written and len(written[1]) <= SIGNATURE_CHARACTERS:
        yield "signature", f"What is the signature of {entry.name}?", written[1]


# -- from reStructuredText to entries

_ENTRY = re.compile(
    r"^(\s*)\.\. (?:c:|py:)?(function|class|method|data|attribute|exception|decorator|opcode|classmethod"
    r"|staticmethod|coroutinefunction|coroutinemethod"
    r"|awaitablefunction|abstractmethod|macro|type|var|member|cmdoption|option):: +(.+)$"
)
_MODULE = re.compile(r"^\.\. (?:module|currentmodule):: +(\S+)")
_DIRECTIVE = re.compile(r"^(\s*)\.\. ([\w:-]+)::\s*(.*)$")
_VERSION = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
}
_ALOUD = {
    "note": "Note:",
    "warning": "Warning:",
    "availability": "Availability:",
    "impl-detail": "Implementation detail:",
}


def _entries(file: Path) -> Iterator[Entry]:
    lines = file.read_text("utf-8", "replace").splitlines()
    module = ""
    owners: list[tuple[int, str]] = []  # indentation and name of the classes around a line
    for at, line in enumerate(lines):
        if found := _MODULE.match(line):
            module, owners = found[1], []
            continue
        if not (found := _ENTRY.match(line)):
            if line.strip() and not line[0].isspace():
                owners = []
            continue
        indent, kind = len(found[1]), found[2]
        owners = [o for o in owners if o[0] < indent]
        signature = re.sub(r"\\(.)", r"\1", found[3]).strip()
        bare = re.split(
            r"[(\s]", re.sub(r"^(?:async|abstractmethod|classmethod|static)\s+", "", signature), maxsplit=1
        )[0]
        if file.parent.name == "c-api":
            words = signature.split("(")[0].split()
            bare = words[-1].lstrip("*")
        if not re.fullmatch(r"[\w.]+", bare):
            continue
        name = bare
        if owners:
            name = bare if bare.startswith(owners[-1][1] + ".") else f"{owners[-1][1]}.{bare}"
        elif module and file.parent.name == "library" and "." not in bare:
            name = bare if module == "builtins" else f"{module}.{bare}"
        if kind in ("class", "exception"):
            owners.append((indent, name))
        text = _clean(_body(lines, at + 1, indent))
        if text:
            written = (
                signature[len(bare) :] if file.parent.name == "library" and signature.startswith(bare) else ""
            )
            yield Entry(name, name + written if file.parent.name == "library" else signature, text)


def _body(lines: list[str], at: int, indent: int) -> list[str]:
    """The lines of the entry at `indent` that begins before `at`, without the entries inside of it."""
    body: list[str] = []
    inner: int | None = None
    for line in lines[at:]:
        if line.strip():
            depth = len(line) - len(line.lstrip())
            if depth <= indent:
                break
            if inner is not None and depth <= inner:
                inner = None
            if inner is None and (found := _ENTRY.match(line)):
                inner = len(found[1])
        if inner is None:
            body.append(line)
    return body


def _clean(body: list[str]) -> str:
    """What a reader sees of an entry's body, one paragraph a line."""
    out: list[str] = []
    skip: int | None = None
    fresh = True
    for line in body:
        depth = len(line) - len(line.lstrip())
        if not line.strip():
            fresh = True
            continue
        if skip is not None and depth > skip:
            continue
        skip = None
        text = line.strip()
        if found := _DIRECTIVE.match(line):
            name, rest = found[2], found[3].strip()
            if name in _VERSION:
                version, _, more = rest.partition(" ")
                text, fresh = f"{_VERSION[name]} {version.rstrip(',')}. {more}".strip(), True
            elif name in _ALOUD:
                text, fresh = f"{_ALOUD[name]} {rest}".strip(), True
            else:
                skip = depth
                continue
        elif text.startswith(":") and re.match(
            r":(?:noindex|module|type|value|abstractmethod|async):?", text
        ):
            continue
        elif text.startswith(".. "):
            skip = depth
            continue
        if fresh or not out:
            out.append(text)
        else:
            out[-1] += " " + text
        fresh = False
    return _plain("\n".join(out))


def _plain(text: str) -> str:
    text = re.sub(
        r":[\w:-]+:`[!~]?([^`<]*?)(?: ?<[^`>]*>)?`",
        lambda m: m[1].rpartition(".")[2] if m[0].count("~") else m[1],
        text,
    )
    text = re.sub(r"``([^`]+)``", r"\1", text)
    text = re.sub(r"`([^`<]+?)(?: ?<[^`>]*>)?`_{0,2}", r"\1", text)
    text = re.sub(r"(?<![\w*])\*{1,2}([^*\s](?:[^*\n]*[^*\s])?)\*{1,2}(?![\w*])", r"\1", text)
    text = re.sub(r"\|(\w+)\|", r"\1", text)
    return re.sub(r"\\(.)", r"\1", text).replace("::\n", ":\n")


def main() -> None:
    """Say how many there are, and show a few."""
    for half in ("tuning", "published"):
        made = contexts(half)
        asked = [q for c in made for q in c.questions]
        print(half, len(made), "contexts", len(asked), "questions", dict(Counter(q.kind for q in asked)))
    for context in contexts("tuning")[::20]:
        q = context.questions[0]
        print(f"\n{q.text} -> {q.answer}\n{context.chunks[q.chunk]}")


if __name__ == "__main__":
    main()
