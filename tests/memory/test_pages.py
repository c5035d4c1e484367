"""The page store: what comes back is what went in, or nothing; bounded, and the least valuable leave."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.drivers.whole import UNFINISHED
from llmos.memory import pagefile
from llmos.memory import pages as pages_module
from llmos.memory.pagefile import Damaged, Page
from llmos.memory.pages import PageStore

SIZE = 1000
FILE = 1200  # a little more than a file of one page has


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def page(n: int) -> Page:
    return np.random.default_rng(n).integers(0, 256, SIZE, np.uint8)


def fetch(store: PageStore, keys: list[bytes]) -> dict[bytes, Page]:
    done, got = threading.Event(), dict[bytes, Page]()

    def then(found: dict[bytes, Page], lost: int) -> None:
        got.update(found)
        done.set()

    store.fetch(keys, then)
    assert done.wait(10)
    return got


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("??/*") if p.is_file())


Make = Callable[..., PageStore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[PageStore] = []

    def store(ram: int = 4 * SIZE, disk: int = 100 * FILE, folder: Path | None = tmp_path) -> PageStore:
        made.append(PageStore(folder, ram=ram, disk=disk))
        return made[-1]

    yield store
    for each in made:
        each.close()


def test_what_ram_has_no_room_for_comes_back_from_disk(make: Make, tmp_path: Path) -> None:
    store = make()
    for n in range(20):
        store.put(key(n), page(n))
    assert all(key(n) in store for n in range(20))
    assert [store.get(key(n)) is not None for n in (18, 19)] == [True, True]
    found = fetch(store, [key(n) for n in range(20)])
    assert all((found[key(n)] == page(n)).all() for n in range(20))
    assert store.held[0] <= 4 * SIZE and len(files(tmp_path)) == 16
    assert oct(files(tmp_path)[0].stat().st_mode & 0o777) == "0o600"


def test_a_fetch_ends_at_the_first_that_is_not_there(make: Make) -> None:
    store = make()
    for n in (1, 2, 4):
        store.put(key(n), page(n))
    assert list(fetch(store, [key(n) for n in (1, 2, 3, 4)])) == [key(1), key(2)]


def test_without_a_disk_what_leaves_is_gone(make: Make, tmp_path: Path) -> None:
    for store in (make(disk=0), make(folder=None)):
        for n in range(10):
            store.put(key(n), page(n))
        assert [key(n) in store for n in (0, 9)] == [False, True]
    assert not files(tmp_path)


def test_both_levels_are_bounded(make: Make, tmp_path: Path) -> None:
    store = make(disk=10 * FILE)
    for n in range(200):
        store.put(key(n), page(n))
    fetch(store, [])  # behind everything that is queued
    ram, disk = store.held
    assert ram <= 4 * SIZE and disk <= 10 * FILE
    assert sum(p.stat().st_size for p in files(tmp_path)) == disk


def test_what_is_asked_for_again_stays_on_disk(make: Make) -> None:
    store = make(disk=10 * FILE, ram=0)
    for n in range(5):
        store.put(key(n), page(n))
    for _ in range(3):
        fetch(store, [key(0)])
    for n in range(5, 16):
        store.put(key(n), page(n))
        fetch(store, [])
    assert key(0) in store and key(1) not in store


def test_a_flush_outlives_the_store(make: Make) -> None:
    store = make()
    store.put(key(1), page(1))
    store.flush(10)
    store.close()
    again = make()
    assert key(1) in again and again.get(key(1)) is None
    assert (fetch(again, [key(1)])[key(1)] == page(1)).all()


def test_a_flush_takes_no_longer_than_it_may(make: Make, tmp_path: Path) -> None:
    store = make(ram=50 * SIZE)
    for n in range(50):
        store.put(key(n), page(n))
    store.flush(0)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "harm",
    [
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        lambda p: p.write_bytes(p.read_bytes()[:5]),
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(p.read_bytes() + b"x"),
        lambda p: p.write_bytes(b"\xff" * 2000),
        lambda p: p.write_bytes((9999).to_bytes(8, "little") + b"{}" * 900),
        lambda p: p.write_bytes((2).to_bytes(8, "little") + b"[]" + b"x" * 100),
    ],
)
def test_a_damaged_file_is_dropped_and_said(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    store = make(ram=0)
    store.put(key(1), page(1))
    fetch(store, [])
    (path,) = files(tmp_path)
    harm(path)
    assert fetch(store, [key(1)]) == {}
    assert key(1) not in store and not files(tmp_path)
    assert store.counters.damaged == 1 and "computed again" in caplog.text
    store.put(key(1), page(1))
    assert (fetch(store, [key(1)])[key(1)] == page(1)).all()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_flipped_bit_is_served(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped"
    pagefile.write(path, key(1), page(1))
    blob = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(blob) - 1))
    blob[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(blob)
    try:
        served = pagefile.read(path, key(1))
    except Damaged:
        return
    assert (served == page(1)).all()  # a bit of the header that says nothing about the bytes


def test_a_page_under_another_name_is_refused(tmp_path: Path) -> None:
    pagefile.write(tmp_path / "a", key(1), page(1))
    with pytest.raises(Damaged):
        pagefile.read(tmp_path / "a", key(2))


def test_a_full_disk_costs_pages_and_leaves_no_pieces(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The system itself refuses: no file of this process may be longer than half a page."""
    monkeypatch.setattr(pages_module, "REST_S", 0.0)
    store = make(ram=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        store.put(key(1), page(1))
        assert fetch(store, [key(1)]) == {}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.counters.refused == 1 and "computed again" in caplog.text
    assert not files(tmp_path)
    store.put(key(1), page(1))
    assert (fetch(store, [key(1)])[key(1)] == page(1)).all()


def test_a_disk_that_was_full_is_left_alone_for_a_while(make: Make, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    store = make(ram=0, folder=blocked)
    store.put(key(1), page(1))
    fetch(store, [])
    blocked.unlink()
    store.put(key(2), page(2))
    fetch(store, [])
    assert store.counters.refused == 2 and key(2) not in store


def test_half_written_files_are_cleared_away_when_old(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "00"
    folder.mkdir()
    old, new = folder / f"x.1{UNFINISHED}", folder / f"x.2{UNFINISHED}"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    make()
    assert files(tmp_path) == [new]


WRITER = """
import sys, numpy as np
from pathlib import Path
from llmos.memory.pages import PageStore
store = PageStore(Path(sys.argv[1]), ram=0, disk=60 * 1200)
for round in range(3):
    for n in range(80):
        page = np.random.default_rng(n).integers(0, 256, 1000, np.uint8)
        store.put(n.to_bytes(16, "big"), page)
        def then(found, lost, n=n, page=page):
            assert all((p == page).all() for p in found.values())
        store.fetch([n.to_bytes(16, "big")], then)
store.close()
print(store.counters.damaged)
"""


def test_two_kernels_on_one_folder_do_not_collide(tmp_path: Path, make: Make) -> None:
    """Both write, evict and read the same keys at once: a page may be missing, never wrong."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0 and out.split() == [b"0"], err.decode()
        assert b"Traceback" not in err
    store = make(ram=0)
    for n in range(80):
        assert all((found == page(n)).all() for found in fetch(store, [key(n)]).values())
    assert store.counters.damaged == 0
