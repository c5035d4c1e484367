"""The dense index: exact while it is small, nearly so when large, and never wrong about what is in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmos.memory import index as index_module
from llmos.memory.index import DenseIndex, sample_size

D = 32


def unit(rng: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    """Vectors around centres, as texts of some subjects lie."""
    found = centres[rng.integers(len(centres), size=count)] + 0.12 * rng.standard_normal(
        (count, D), np.float32
    )
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large begins at 2,000 vectors, in 32 lists; at 7,000 in 64."""
    monkeypatch.setattr(index_module, "KINDS", ((2_000, 0, 0), (7_000, 32, 8), (10**9, 64, 12)))


@pytest.fixture
def vectors() -> np.ndarray:
    rng = np.random.default_rng(1)
    return unit(rng, rng.standard_normal((300, D), np.float32), 6_000)


def full(vectors: np.ndarray) -> DenseIndex:
    index = DenseIndex.made(len(vectors), vectors[:3_000])
    for start in range(0, len(vectors), 1_000):
        index.add(np.arange(start, min(start + 1_000, len(vectors))) * 3 + 1, vectors[start : start + 1_000])
    return index


def recall(index: DenseIndex, vectors: np.ndarray, ids: np.ndarray, k: int = 10) -> float:
    """Share of the k nearest that are among the candidates that a volume ranks exactly."""
    hits = 0
    questions = vectors[:: len(vectors) // 100]
    for question in questions:
        exact = ids[np.argsort(-(vectors @ question), kind="stable")[:k]]
        hits += len(set(exact.tolist()) & set(index.search(question[None], 50)[0]))
    return hits / (len(questions) * k)


@pytest.mark.usefixtures("small_limits")
def test_small_is_exact_and_large_nearly(vectors: np.ndarray) -> None:
    ids = np.arange(len(vectors)) * 3 + 1
    small, large = full(vectors[:1_500]), full(vectors)
    assert small.flat and not large.flat
    assert recall(small, vectors[:1_500], ids[:1_500]) == 1
    assert recall(large, vectors, ids) >= 0.95
    assert large.fits(3_000) and not large.fits(2_000) and small.fits(2_000) and not small.fits(2_001)
    assert not large.fits(7_001) and sample_size(7_001) == 2 * sample_size(3_000) > sample_size(2_000) == 1
    assert len(large) == 6_000 and large.ids.tolist() == ids.tolist()


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("count", [1_500, 6_000])
def test_what_is_removed_is_not_found(vectors: np.ndarray, count: int) -> None:
    vectors = vectors[:count]
    index = full(vectors)
    gone = index.ids[::2]
    index.remove(gone)
    assert len(index) == count // 2 and not set(index.search(vectors[:1], 50)[0]) & set(gone.tolist())
    assert index.search(vectors[1:2], 1) == [[4]]
    index.add(np.array([10**6]), vectors[:1])
    assert index.search(vectors[:1], 1) == [[10**6]]


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("count", [0, 1_500, 6_000])
def test_saved_and_read_back(vectors: np.ndarray, count: int, tmp_path: Path) -> None:
    index = full(vectors[:count]) if count else DenseIndex.made(0, vectors[:0])
    index.save(tmp_path, 7)
    index.save(tmp_path, 12)
    assert len(list(tmp_path.iterdir())) == 1
    found = DenseIndex.load(tmp_path)
    assert found is not None
    generation, again = found
    assert generation == 12 and again.ids.tolist() == index.ids.tolist() and again.flat == index.flat
    assert again.search(vectors[3:7], 20) == index.search(vectors[3:7], 20)


def test_a_damaged_file_is_not_used(
    vectors: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert DenseIndex.load(tmp_path) is None
    full(vectors).save(tmp_path, 3)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    caplog.set_level("WARNING", "llmos.volume")
    for wrong in (data[:-1], b"", data[:500] + bytes([data[500] ^ 1]) + data[501:]):
        path.write_bytes(wrong)
        assert DenseIndex.load(tmp_path) is None
        assert "is dropped and made anew" in caplog.records[-1].message and not path.exists()
    path.write_bytes(data)
    path.rename(path.with_name("dense-x-y.faiss"))
    assert DenseIndex.load(tmp_path) is None


def test_a_full_disk_is_noticed_and_leaves_the_index_before(vectors: np.ndarray, tmp_path: Path) -> None:
    """However small the index: its last bytes are written when the file is closed."""
    index = full(vectors[:100])
    index.save(tmp_path, 3)
    (tmp_path / ".dense-4").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        index.save(tmp_path, 4)
    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == ["3"]
    assert DenseIndex.saved(tmp_path) == 3


def test_what_a_killed_save_left_goes_with_the_next(vectors: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / ".dense-3").write_bytes(b"half of an index")
    index = full(vectors[:100])
    index.save(tmp_path, 3)
    (tmp_path / ".dense-4").write_bytes(b"half of an index")
    index.save(tmp_path, 5)
    assert [path.name.split("-")[1] for path in tmp_path.iterdir()] == ["5"]


def test_a_question_takes_one_thread_and_leaves_the_setting(vectors: np.ndarray) -> None:
    import faiss

    index, seen = full(vectors[:100]), []
    inner = index._index

    class Watched:
        nlist = 32

        def search(self, *arguments: object, **options: object) -> object:
            seen.append(faiss.omp_get_max_threads())
            return inner.search(*arguments, **options)

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(2)
    try:
        index._index = Watched()
        index.search(vectors[:1], 5)
        assert (seen, faiss.omp_get_max_threads()) == ([1], 2)
    finally:
        faiss.omp_set_num_threads(before)
