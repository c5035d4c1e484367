"""Chunks: passages small enough to embed whole, cut where the document itself has joints.

What: a section (the blocks under one path of headings) becomes one chunk where it fits the bound, else several
    of about equal size, cut between blocks, else between sentences or lines, else between words; neighbours
    in one section overlap by a sentence or two. Short neighbouring sections of one parent share a chunk.
Invariant: no text is lost: the chunks of a document, overlaps taken out, are its blocks, verbatim and in
    order. No chunk is larger than the bound. Every chunk knows its first and last source line or page.
Interface: `chunk(document, measure, limits) -> list[Chunk]`. `measure` gives the size of each of many texts in
    tokens; sizes are taken as additive over white space, which holds for word pieces.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llmos.drivers.documents.document import Block, Document, Unit

Measure = Callable[[Sequence[str]], list[int]]
_SENTENCE_END = re.compile(r"""(?<=[.!?;:])["')\]”’]*\s+(?=\S)""")
_LINE_END = re.compile(r"\n+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimits:
    """Sizes in tokens of the encoder; the defaults are what retrieved best (benchmarks/retrieval.py)."""

    bound: int = 200  # of a chunk's text
    merge: int = 100  # sections up to this size are joined with their neighbours
    overlap: int = 30  # repeated from the chunk before, within a section


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: verbatim text, the headings above it, and the source lines or pages from first to last."""

    text: str
    path: tuple[str, ...]
    unit: Unit
    first: int
    last: int
    overlap: int  # characters at the start of `text` that the chunk before also holds


@dataclass(frozen=True, slots=True)
class _Atom:
    """A piece of a block that is never cut: text[start:end], with the space after it."""

    block: Block
    start: int
    end: int
    size: int

    @property
    def text(self) -> str:
        return self.block.text[self.start : self.end]


def chunk(document: Document, measure: Measure, limits: ChunkLimits | None = None) -> list[Chunk]:
    """Cut a document into passages of at most `limits.bound` tokens each."""
    limits = limits or ChunkLimits()
    chunks: list[Chunk] = []
    for section in _sections(_atoms(document, measure, limits.bound), limits):
        chunks.extend(_cut(section, document.unit, limits))
    return chunks


def _atoms(document: Document, measure: Measure, bound: int) -> list[_Atom]:
    """Every block cut into sentences (of prose) or lines (of code, tables and lists), all measured at once."""
    spans: list[tuple[Block, int, int]] = []
    for block in document.blocks:
        joint = _SENTENCE_END if block.kind == "paragraph" else _LINE_END
        spans.extend((block, start, end) for start, end in _split(block.text, joint))
    atoms: list[_Atom] = []
    for (block, start, end), size in zip(spans, measure([b.text[s:e] for b, s, e in spans]), strict=True):
        atom = _Atom(block, start, end, size)
        atoms.extend([atom] if size <= bound else _words(atom, measure, bound))
    return atoms


def _split(text: str, joint: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Spans that partition `text`, cut after each match of `joint`."""
    start = 0
    for found in joint.finditer(text):
        if found.end() < len(text):
            yield start, found.end()
            start = found.end()
    yield start, len(text)


def _words(atom: _Atom, measure: Measure, bound: int) -> list[_Atom]:
    """An atom that is larger than the bound, cut between words; a word that is too large, between characters."""
    spans = [(atom.start + s, atom.start + e) for s, e in _split(atom.text, _SPACE)]
    text = atom.block.text
    sizes = measure([text[s:e] for s, e in spans])
    pieces: list[_Atom] = []
    start, total = atom.start, 0
    for (s, e), size in zip(spans, sizes, strict=True):
        if total and total + size > bound:
            pieces.append(_Atom(atom.block, start, s, total))
            start, total = s, 0
        if size > bound or (
            size == 0 and e - s > bound
        ):  # at most one token a character: always within the bound
            step = max(
                1, bound // 4
            )  # a character may be several word pieces (its bytes, or [UNK] and joins)
            cuts = list(range(s, e, step))
            for a, b in zip(cuts, [*cuts[1:], e], strict=True):
                pieces.append(_Atom(atom.block, a, b, min(bound, measure([text[a:b]])[0])))
            start, total = e, 0
            continue
        total += size
    if start < atom.end:
        pieces.append(_Atom(atom.block, start, atom.end, total))
    return pieces


def _sections(atoms: list[_Atom], limits: ChunkLimits) -> Iterator[list[_Atom]]:
    """Runs of atoms under one path of headings; short neighbours with the same parent are joined."""
    runs: list[list[_Atom]] = []
    for atom in atoms:
        if runs and runs[-1][-1].block.path == atom.block.path:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    joined: list[_Atom] = []
    for run in runs:
        size, added = sum(a.size for a in joined), sum(a.size for a in run)
        bare = joined and all(a.block.kind == "heading" for a in joined)
        if joined and size + added <= limits.bound and (bare or _near(joined, run, limits, size, added)):
            joined = joined + run
            continue
        if joined:
            yield joined
        joined = run
    if joined:
        yield joined


def _near(joined: list[_Atom], run: list[_Atom], limits: ChunkLimits, size: int, added: int) -> bool:
    above, here = joined[0].block.path, run[0].block.path
    related = above == here[: len(above)] or (len(above) > 1 and above[:-1] == here[:-1])
    return related and size <= limits.merge and added <= limits.merge


def _cut(section: list[_Atom], unit: Unit, limits: ChunkLimits) -> Iterator[Chunk]:
    """Cut a section into chunks of about equal size, at the end of a block where one is near."""
    total = sum(atom.size for atom in section)
    room = limits.bound - limits.overlap
    parts = 1 if total <= limits.bound else math.ceil(total / room)
    target = total / parts
    open_: list[_Atom] = []
    before: list[_Atom] = []
    size = 0
    for k, atom in enumerate(section):
        if open_ and size + atom.size > (limits.bound if parts == 1 else room):
            yield _make(before, open_, unit)
            before, open_, size = _tail(open_, limits.overlap), [], 0
        open_.append(atom)
        size += atom.size
        ends_block = k + 1 == len(section) or section[k + 1].block is not atom.block
        if ends_block and size >= target * 0.85 and k + 1 < len(section) and atom.block.kind != "heading":
            yield _make(before, open_, unit)
            before, open_, size = _tail(open_, limits.overlap), [], 0
    if open_:
        yield _make(before, open_, unit)


def _tail(atoms: list[_Atom], overlap: int) -> list[_Atom]:
    """The last atoms, no more than `overlap` tokens of them."""
    size, k = 0, len(atoms)
    while k and size + atoms[k - 1].size <= overlap:
        k -= 1
        size += atoms[k].size
    return atoms[k:] if k else []


def _make(before: list[_Atom], atoms: list[_Atom], unit: Unit) -> Chunk:
    text, overlap = "", 0
    previous: Block | None = None
    places: list[int] = []
    for k, atom in enumerate([*before, *atoms]):
        if previous is not None and atom.block is not previous:
            text = text.rstrip() + "\n\n"
        if k == len(before):
            overlap = len(text)
        text += atom.text
        previous = atom.block
        line = atom.block.text.count("\n", 0, atom.start)
        places += [atom.block.places[line], atom.block.places[line + atom.text.rstrip().count("\n")]]
    path = atoms[0].block.path
    for atom in atoms:  # joined sections: the headings that they share, or the first's where only it has text
        path = _common(path, atom.block.path) if atom.block.kind != "heading" else path
    return Chunk(text.rstrip(), path or atoms[0].block.path, unit, min(places), max(places), overlap)


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[str, ...]:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n]
