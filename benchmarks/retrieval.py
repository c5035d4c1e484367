"""Finding the right passage: recall on questions with known passages, latency at size, and the speed of ingestion.

What: three parts. The Debian Policy Manual with questions of people's own words (`retrieval_questions.txt`): keys
    `recall3|5.METHOD`. Python's documentation with 2,500 questions in its words (retrieval_set.py): `recall10.METHOD`,
    also ranked again, beside bm25s and faiss where they are installed, and `together_ratio.N`: how much sooner N of
    them are answered together than one by one. Then volumes of 10 thousand to a million chunks (retrieval_size.py) and
    ingestion (retrieval_ingest.py). Settings were chosen on the other half of the questions (`..._tuned`).
Invariant: fused is `Volume.search` as users get it; dense and BM25 are its two halves on the same volume.
Interface: `run(quick, progress) -> Figures`. Needs Debian's packages debian-policy 4.6.2 and python3.11-doc. Python's
    documentation is mounted once (20 minutes) and kept in the cache; `quick` only times the encoder.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks import retrieval_ingest, retrieval_set, retrieval_size
from benchmarks.figures import Figures, Progress
from llmos.abi.config import default_cache
from llmos.abi.errors import DocumentError
from llmos.abi.progress import Unit
from llmos.memory.embedding import Encoder
from llmos.memory.ranking import distinct, lexical_terms
from llmos.memory.volume import CANDIDATES, COLUMNS, Passage, Volume, search

MANUAL = Path("/usr/share/doc/debian-policy/policy.txt.gz")
QUESTIONS = Path(__file__).with_name("retrieval_questions.txt")
ENCODER = "all-minilm-l6-v2"
SIZES = {"10k": 10_000, "100k": 100_000, "1m": 1_000_000}
TOGETHER, ROUNDS = (4, 16, 64), 7  # questions that are asked together, and how often that is timed
ASKED = 200  # questions of a grown volume


def questions() -> list[tuple[str, str]]:
    """(question, words of its passage), in the order of the file."""
    lines = QUESTIONS.read_text().splitlines()
    return [(q, words) for q, _, words in (line.partition("\t") for line in lines if line and line[0] != "#")]


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    if not MANUAL.exists():
        raise DocumentError(f"{MANUAL} is not here", do="install Debian's package debian-policy")
    encoder = Encoder.find(ENCODER)
    values: dict[str, float] = {}
    progress("compiling the encoder")
    for size in (1, 60, 120, 180, 250):  # a text for each bucket
        encoder.encode(["word " * size])
    values["query_ms"] = 1000 * _median(lambda: encoder.encode(["How is a package's changelog called?"]), 15)
    sample = ["Every package must have a maintainer, except for orphaned packages. " * 12] * 32
    started = time.perf_counter()
    encoder.encode(sample)
    values["embed_tokens_per_s"] = sum(encoder.count(sample)) / (time.perf_counter() - started)
    if quick:
        return Figures(values, (ENCODER,))

    def tell(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
        if done % 64 == 0:
            progress(f"{task} {done} of {total}")

    with tempfile.TemporaryDirectory() as folder:
        volume = Volume.open(folder, encoder)
        report = volume.mount(MANUAL, progress=tell)
        values |= {"chunks": report.chunks, "mount_s": report.seconds}
        progress("asking about the manual")
        values |= _policy_recalls(volume, encoder)
        volume.close()
    volume = Volume.open(default_cache() / "benchmarks" / "retrieval", encoder)
    for documents in retrieval_set.FOLDERS:
        volume.mount(documents, progress=tell)
    progress("asking about Python")
    values |= _python_recalls(volume, encoder) | _together(volume)
    ids, vectors = volume._store.vectors(volume._store.ids().tolist())
    texts = [row.text for row in volume._store.rows(ids).values()]
    asked = retrieval_set.questions("published")
    some = [q.text for q in asked[:: max(len(asked) // ASKED, 1)]][:ASKED]
    volume.close()
    for label, size in SIZES.items():
        progress(f"{label} chunks")
        with tempfile.TemporaryDirectory() as folder:
            grown = Volume.open(folder, encoder)
            retrieval_size.grow(grown, texts, vectors, size)
            values |= retrieval_size.measured(grown, some, label)
            grown.close()
    progress("ingestion")
    values |= retrieval_ingest.speed() | retrieval_ingest.growth(progress)
    notes = (
        f"{len(questions())} questions on the manual, half of them for choosing settings",
        "dense is the index and the exact cosines of what it proposes; fused is all of it, embedding included",
        f"load at the end {os.getloadavg()[0]:.1f}",
    )
    return Figures(values, (ENCODER,), notes)


def _policy_recalls(volume: Volume, encoder: Encoder) -> dict[str, float]:
    """recall@3 and @5 of each method on both halves."""
    store, index = volume._store, volume._index()

    def texts(ids: list[int]) -> list[str]:
        rows = store.rows(ids)
        found = [rows[id_].text for id_ in ids]
        return [found[n] for n in distinct(found, 5)]

    methods: dict[str, Callable[[str], list[str]]] = {
        "dense": lambda q: texts(index.search(encoder.encode([q]), 20)[0]),
        "bm25": lambda q: texts(list(store.lexical(store.frequencies(lexical_terms(q)), 20, COLUMNS))),
        "fused": lambda q: [passage.text for passage in volume.search(q, k=5)],
    }
    hits: dict[str, list[bool]] = {}
    for number, (question, words) in enumerate(questions()):
        for method, find in methods.items():
            found = [_plain(words) in _plain(text) for text in find(question)]
            for k in (3, 5):
                key = f"recall{k}.{method}" + ("" if number % 2 else "_tuned")
                hits.setdefault(key, []).append(any(found[:k]))
    return {key: sum(of) / len(of) for key, of in sorted(hits.items())}


def _python_recalls(volume: Volume, encoder: Encoder) -> dict[str, float]:
    """recall@10 of each method on the published half, and by kind of question; how many questions there were."""
    store, index = volume._store, volume._index()
    rows = store.rows(store.ids().tolist())
    every = retrieval_set.questions("published")
    holders = retrieval_set.passages(every, {id_: row.text for id_, row in rows.items()})
    asked = [(q, ids) for q, ids in zip(every, holders, strict=True) if ids]
    vectors = encoder.encode([q.text for q, _ in asked])

    def ten(ids: list[int]) -> list[int]:
        return [ids[n] for n in distinct((rows[id_].text for id_ in ids), 10)]

    def words(n: int) -> list[int]:
        return list(store.lexical(store.frequencies(lexical_terms(asked[n][0].text)), CANDIDATES, COLUMNS))

    methods: dict[str, Callable[[int], list[int]]] = {
        "dense": lambda n: ten(index.search(vectors[n : n + 1], CANDIDATES)[0]),
        "bm25": lambda n: ten(words(n)),
        "fused": lambda n: [passage.chunk_id for passage in volume.search(asked[n][0].text, k=10)],
        "reranked": lambda n: _reranked(volume, asked[n][0].text)[:10],
    }
    methods |= _others(store.vectors(list(rows)), [f"{r.heading}\n{r.text}" for r in rows.values()],
                       vectors, [q.text for q, _ in asked])  # fmt: skip
    values: dict[str, float] = {"questions": len(asked), "questions_without_passage": len(every) - len(asked)}
    for method, find in methods.items():
        hits = [bool(ids & set(find(n))) for n, (_, ids) in enumerate(asked)]
        values[f"recall10.{method}"] = sum(hits) / len(hits)
        for kind in ("name", "task"):
            of = [hit for hit, (q, _) in zip(hits, asked, strict=True) if q.kind == kind]
            values[f"recall10.{method}.{kind}"] = sum(of) / len(of)
    return values


def _together(volume: Volume) -> dict[str, float]:
    """How many times as fast questions are answered together as one by one, each way in turn."""
    every = [q.text for q in retrieval_set.questions("tuning")]
    values = {}
    for size in TOGETHER:
        ratios = []
        for start in range(0, ROUNDS * size, size):
            asked, times = every[start : start + size], []
            for sizes in (1, size):
                began = time.perf_counter()
                for at in range(0, size, sizes):
                    search([volume], asked[at : at + sizes], k=10)
                times.append(time.perf_counter() - began)
            ratios.append(times[0] / times[1])
        values[f"together_ratio.{size}"] = statistics.median(ratios)
    return values


def _reranked(volume: Volume, question: str) -> list[int]:
    """What is fused, ranked again by the share of the question's words, rare ones counting more, that a passage and its
    headings hold: the best that was found, but questions in people's own words lose by it (docs/log.md)."""
    found = volume.search(question, k=CANDIDATES)
    held = volume._store.frequencies(lexical_terms(question))
    rarity = {term: math.log(1 + len(volume) / (1 + count)) for term, count in held.items()}
    whole = sum(rarity.values()) or 1.0

    def score(passage: Passage) -> float:
        words = set(re.findall(r"\w+", f"{passage.heading} {passage.text}".lower()))
        return passage.score + 0.5 * sum(rarity[term] for term in rarity.keys() & words) / whole

    return [passage.chunk_id for passage in sorted(found, key=score, reverse=True)]


def _others(
    stored: tuple[list[int], np.ndarray], texts: list[str], asked: np.ndarray, questions: list[str]
) -> dict[str, Callable[[int], list[int]]]:
    """The first ten of plain faiss on the same vectors, and of bm25s (with its stop words, and stems where PyStemmer
    is installed) on headings and texts."""
    import faiss

    ids, vectors = stored
    plain = faiss.IndexFlatIP(vectors.shape[1])
    plain.add(vectors)
    near = plain.search(asked, 10)[1]
    methods: dict[str, Callable[[int], list[int]]] = {"faiss": lambda n: [ids[place] for place in near[n]]}
    if find_spec("bm25s"):
        import bm25s

        stemmer = __import__("Stemmer").Stemmer("english") if find_spec("Stemmer") else None
        ranker = bm25s.BM25()
        quiet = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
        ranker.index(bm25s.tokenize(texts, **quiet), show_progress=False)
        best = ranker.retrieve(bm25s.tokenize(questions, **quiet), k=10, show_progress=False)[0]
        methods["bm25s"] = lambda n: [ids[place] for place in best[n]]
    return methods


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def _median(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
