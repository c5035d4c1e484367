"""Chunks hold every word of the document, once but for overlaps, within the bound, and know where they stand."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.documents.document import Block, Document
from llmos.drivers.documents.markdown import parse_markdown
from llmos.drivers.documents.plain import parse_plain
from llmos.memory.chunking import Chunk, ChunkLimits, chunk

SMALL = ChunkLimits(bound=20, merge=8, overlap=5)


def words(texts: Sequence[str]) -> list[int]:
    """A measure: one token for each four characters of each word, at least one a word."""
    return [sum(1 + len(word) // 4 for word in text.split()) for text in texts]


def joined(chunks: list[Chunk]) -> list[str]:
    """The words of all chunks, overlaps taken out."""
    return " ".join(c.text[c.overlap :] for c in chunks).split()


def test_a_short_section_is_one_chunk_with_its_heading_and_lines() -> None:
    text = "# Leave\n\nEverybody has 25 days.\n\n## Sick\n\n" + "Call before nine. " * 2 + "\n\nOr write.\n"
    first, second = chunk(parse_markdown(text, "x.md"), words, SMALL)
    assert (first.text, first.path, first.first, first.last) == (
        "Leave\n\nEverybody has 25 days.",
        ("Leave",),
        1,
        3,
    )
    assert (second.path, second.first, second.last, second.overlap) == (("Leave", "Sick"), 5, 9, 0)


def test_a_long_section_is_cut_between_sentences_with_overlap() -> None:
    sentences = [f"Sentence {n} has six words here." for n in range(9)]
    chunks = chunk(
        parse_plain(" ".join(sentences), "x.txt"), words, ChunkLimits(bound=30, merge=0, overlap=10)
    )
    assert len(chunks) > 1
    for before, after in pairwise(chunks):
        assert after.overlap > 0
        assert before.text.endswith(after.text[: after.overlap].strip())
    assert all(c.text.startswith("Sentence") and c.text.endswith("here.") for c in chunks)


def test_what_is_longer_than_the_bound_is_cut_between_words_then_characters() -> None:
    chunks = chunk(parse_plain("word " * 200 + "x" * 5000, "x.txt"), words, SMALL)
    assert max(words([c.text for c in chunks])) <= SMALL.bound
    assert "".join(joined(chunks)) == "word" * 200 + "x" * 5000


def test_short_neighbours_share_a_chunk_but_not_across_chapters() -> None:
    text = "# A\n\n## A1\n\none\n\n## A2\n\ntwo\n\n# B\n\nthree\n"
    chunks = chunk(parse_markdown(text, "x.md"), words, ChunkLimits(bound=20, merge=8, overlap=0))
    assert [(c.text.split(), c.path) for c in chunks] == [
        (["A", "A1", "one", "A2", "two"], ("A",)),
        (["B", "three"], ("B",)),
    ]


BLOCKS = st.lists(
    st.tuples(
        st.sampled_from(["heading", "paragraph", "code", "list", "table"]),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=200),
        st.lists(st.sampled_from("ABC"), max_size=3),
    ),
    max_size=15,
)


@settings(deadline=None)
@given(BLOCKS, st.integers(4, 60), st.integers(0, 30), st.integers(0, 20))
def test_no_text_is_lost_and_no_chunk_is_too_large(
    parts: list[tuple[str, str, list[str]]], bound: int, merge: int, overlap: int
) -> None:
    blocks = tuple(
        Block(kind, text.replace("|", "\n"), tuple(range(9, 10 + text.count("|"))), tuple(path))  # type: ignore[arg-type]
        for kind, text, path in parts
        if text.replace("|", "\n").strip()
    )
    limits = ChunkLimits(bound=bound, merge=merge, overlap=min(overlap, bound // 2))
    chunks = chunk(Document("t", "line", blocks), words, limits)
    assert "".join(joined(chunks)) == "".join(w for b in blocks for w in b.text.split())
    assert all(words([c.text])[0] <= bound + 1 for c in chunks)
    assert all(c.first <= c.last for c in chunks)


@pytest.mark.skipif(
    not Path("/usr/share/doc/debian-policy/policy.txt.gz").exists(), reason="no debian-policy here"
)
def test_a_real_manual_is_found_again_at_the_lines_that_its_chunks_name() -> None:
    text = gzip.decompress(Path("/usr/share/doc/debian-policy/policy.txt.gz").read_bytes()).decode()
    lines = text.split("\n")
    chunks = chunk(parse_plain(text, "policy.txt"), words)
    for c in chunks:
        there = " ".join(lines[c.first - 1 : c.last]).split()
        assert set(c.text.split()) <= set(there), (c.first, c.last)
    assert len(joined(chunks)) > 60_000
