"""Finding the right passage: recall on questions over the Debian Policy Manual, and the speed of embedding.

What: `retrieval_questions.txt` holds questions, each with words of the one passage that answers it; a hit is a
    chunk that holds them. Keys `recall3|5.dense|bm25|fused`, over the half of the questions that no setting was
    chosen on, and `..._tuned` over the other half.
Invariant: fused is `Volume.search` as users get it; dense and BM25 are its two halves on the same volume.
Interface: `run(quick, progress) -> Figures`. Needs policy.txt.gz of Debian's package debian-policy, 4.6.2.
"""

from __future__ import annotations

import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.figures import Figures, Progress
from llmos.abi.errors import DocumentError
from llmos.abi.progress import Unit
from llmos.memory.embedding import Encoder
from llmos.memory.ranking import distinct, lexical_terms
from llmos.memory.volume import COLUMNS, Volume

MANUAL = Path("/usr/share/doc/debian-policy/policy.txt.gz")
QUESTIONS = Path(__file__).with_name("retrieval_questions.txt")
ENCODER = "all-minilm-l6-v2"


def questions() -> list[tuple[str, str]]:
    """(question, words of its passage), in the order of the file."""
    lines = QUESTIONS.read_text().splitlines()
    return [(q, words) for q, _, words in (line.partition("\t") for line in lines if line and line[0] != "#")]


def run(quick: bool, progress: Progress) -> Figures:
    """Mount the manual afresh, ask, and measure; `quick` only times the encoder."""
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
    with tempfile.TemporaryDirectory() as folder:
        volume = Volume.open(folder, encoder)

        def tell(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
            if done % 64 == 0:
                progress(f"{task} {done} of {total}")

        report = volume.mount(MANUAL, progress=tell)
        values |= {"chunks": report.chunks, "mount_s": report.seconds}
        values["search_ms"] = 1000 * _median(lambda: volume.search(questions()[0][0], k=5), 15)
        progress("asking")
        values |= _recalls(volume, encoder)
        volume.close()
    return Figures(values, (ENCODER,), (f"{len(questions())} questions, half of them for choosing settings",))


def _recalls(volume: Volume, encoder: Encoder) -> dict[str, float]:
    """recall@k of each method on both halves."""
    store, index = volume._store, volume._index()

    def texts(ids: list[int]) -> list[str]:
        rows = store.rows(ids)
        found = [rows[id_].text for id_ in ids]
        return [found[n] for n in distinct(found, 5)]

    methods: dict[str, Callable[[str], list[str]]] = {
        "dense": lambda q: texts(index.search(encoder.encode([q])[0], 20)),
        "bm25": lambda q: texts(list(store.lexical(store.frequencies(lexical_terms(q)), 20, COLUMNS))),
        "fused": lambda q: [passage.text for passage in volume.search(q, k=5)],
    }
    hits: dict[str, list[bool]] = {}
    for number, (question, words) in enumerate(questions()):
        for method, search in methods.items():
            found = [_plain(words) in _plain(text) for text in search(question)]
            for k in (3, 5):
                key = f"recall{k}.{method}" + ("" if number % 2 else "_tuned")
                hits.setdefault(key, []).append(any(found[:k]))
    return {key: sum(of) / len(of) for key, of in sorted(hits.items())}


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).lower()


def _median(action: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
