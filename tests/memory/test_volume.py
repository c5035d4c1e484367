"""A volume says what its files say: added, changed, moved, deleted, damaged; crashed, shared, full."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import DiskFull, DocumentError, VolumeError
from llmos.abi.labels import STORE, UNTRUSTED, Integrity, Label
from llmos.memory.chunking import ChunkLimits
from llmos.memory.index import DenseIndex
from llmos.memory.ranking import lexical_terms, pooled
from llmos.memory.store import FILE, Store
from llmos.memory.volume import COLUMNS, Volume, search
from tests.memory.words_encoder import WordsEncoder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def books(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    (folder / "inner").mkdir(parents=True)
    (folder / "leave.md").write_text(
        "# Leave\n\nEverybody has 25 days of holiday.\n\n## Sick\n\nCall before nine.\n"
    )
    (folder / "inner" / "pay.txt").write_text("Pay\n===\n\nSalaries are paid on the last Friday.\n")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    (folder / "empty.txt").write_text("")
    (folder / ".hidden.txt").write_text("not for search\n")
    return folder


@pytest.fixture
def encoder() -> WordsEncoder:
    return WordsEncoder()


@pytest.fixture
def volume(tmp_path: Path, encoder: WordsEncoder) -> Iterator[Volume]:
    opened = Volume.open(tmp_path / "volume", encoder)
    yield opened
    opened.close()


def age(folder: Path) -> None:
    """Let the files look old: what changed a moment ago is always read again."""
    for path in folder.rglob("*"):
        os.utime(path, (1e9, 1e9))


def top(volume: Volume, question: str) -> tuple[str, str]:
    passage = volume.search(question, k=1)[0]
    return passage.source, passage.position


def test_a_folder_is_mounted_and_searched(volume: Volume, books: Path) -> None:
    report = volume.mount(books, label=STORE)
    assert (report.added, report.changed, report.unchanged, report.removed) == (2, 0, 0, 0)
    assert report.chunks == len(volume) >= 2
    assert dict(report.skipped) == {
        "books/picture.png": "files of type .png are not read",
        "books/empty.txt": "empty.txt is empty. there is no text in it. leave it out, or fill it.",
    }
    passage = volume.search("on which Friday are salaries paid?", k=1)[0]
    assert (passage.source, passage.position, passage.heading) == ("books/inner/pay.txt", "lines 1-4", "Pay")
    assert "last Friday" in passage.text
    assert passage.label == STORE
    assert 0 < passage.similarity <= 1.0001
    assert top(volume, "holiday days") == ("books/leave.md", "lines 1-7")


def test_only_what_changed_is_embedded_again(volume: Volume, books: Path, encoder: WordsEncoder) -> None:
    volume.mount(books)
    before = encoder.embedded
    assert volume.mount(books).unchanged == 2
    assert encoder.embedded == before
    (books / "leave.md").write_text("# Leave\n\nEverybody has 30 days of holiday.\n")
    (books / "inner" / "pay.txt").rename(books / "inner" / "wages.txt")
    (books / "new.rst").write_text("New\n===\n\nfresh words\n")
    report = volume.mount(books)
    assert (report.added, report.changed, report.moved, report.unchanged, report.removed) == (1, 1, 1, 0, 0)
    texts = [p.text for p in volume.search("days of holiday salaries fresh words", k=9)]
    assert any("30 days" in t for t in texts) and not any("25 days" in t for t in texts)
    assert top(volume, "salaries")[0] == "books/inner/wages.txt"


def test_an_unchanged_file_is_known_by_its_stamp_or_else_by_its_content(
    volume: Volume, books: Path, encoder: WordsEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (books / "empty.txt").unlink()
    monkeypatch.setattr("llmos.memory.mounting._RACY_SECONDS", -1e9)
    volume.mount(books)
    monkeypatch.setattr("llmos.memory.mounting.hashlib.file_digest", None)  # not called: the stamp is enough
    assert volume.mount(books).unchanged == 2
    monkeypatch.undo()
    before = encoder.embedded
    age(books)
    assert volume.mount(books).unchanged == 2
    assert encoder.embedded == before


def test_a_label_follows_the_mount_without_work(volume: Volume, books: Path, encoder: WordsEncoder) -> None:
    volume.mount(books, label=STORE)
    before = encoder.embedded
    mine = Label(Integrity.UNTRUSTED, frozenset({"me"}))
    volume.mount(books, label=mine)
    assert encoder.embedded == before
    assert {p.label for p in volume.search("days salaries", k=9)} == {mine}


def test_one_file_and_what_is_wrong_with_one(volume: Volume, books: Path) -> None:
    assert volume.mount(books / "leave.md").added == 1
    assert volume.search("sick", k=1)[0].label == UNTRUSTED
    with pytest.raises(DocumentError, match="does not exist"):
        volume.mount(books / "gone.md")
    with pytest.raises(DocumentError, match="is empty"):
        volume.mount(books / "empty.txt")
    (books / "leave.md").write_text("")
    with pytest.raises(DocumentError, match="is empty"):
        volume.mount(books / "leave.md")
    assert volume.search("sick", k=1) == []  # what the file no longer says is not answered


def test_a_refusal_is_remembered_with_the_content(
    volume: Volume, books: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes a minute to fail must not take it again at every mount."""
    bad = books / "bad.pdf"
    bad.write_bytes(b"%PDF-1.4 damaged")
    first = volume.mount(books)
    monkeypatch.setattr("llmos.memory.mounting.DocumentReader.read", None)  # nothing is read again
    again = volume.mount(books)
    assert (again.skipped, again.unchanged, again.removed) == (first.skipped, 2, 0)
    assert "is damaged" in dict(again.skipped)["books/bad.pdf"]
    monkeypatch.undo()
    bad.with_name("bad.txt").write_text("good")
    bad.unlink()
    (books / "leave.md").write_text("")
    report = volume.mount(books)
    assert (report.added, report.changed, report.unchanged, report.removed) == (1, 0, 1, 1)
    (books / "leave.md").write_text("# Leave\n\nagain\n")
    assert volume.mount(books).added == 1


def test_links_out_special_and_unreadable_files_are_skipped(
    volume: Volume, books: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("password\n")
    (books / "out.txt").symlink_to(tmp_path / "secret.txt")
    (books / "loop").symlink_to(books)
    (books / "also.txt").symlink_to(books / "inner" / "pay.txt")
    os.mkfifo(books / "pipe.txt")
    skipped = dict(volume.mount(books).skipped)
    assert "link" in skipped["books/out.txt"] and "link" in skipped["books/loop"]
    assert "not a regular file" in skipped["books/pipe.txt"]
    assert "books/also.txt" not in skipped
    assert not any("password" in p.text for p in volume.search("password", k=9))
    if os.getuid():
        (books / "leave.md").chmod(0)
        assert "Permission denied" in dict(volume.mount(books).skipped)["books/leave.md"]


def test_the_same_words_in_two_files_are_found_once(volume: Volume, books: Path) -> None:
    shutil.copy(books / "inner" / "pay.txt", books / "pay-copy.txt")
    volume.mount(books)
    found = [p.source for p in volume.search("salaries Friday", k=9)]
    assert len([source for source in found if "pay" in source]) == 1


def test_any_question_is_safe(volume: Volume, books: Path) -> None:
    assert volume.search("anything", k=5) == []
    volume.mount(books)
    for question in [
        '"',
        "a AND",
        "(",
        "*",
        "NEAR(",
        "x:y",
        "-",
        "'; DROP TABLE chunks; --",
        "東京",
        "\0",
        "\ud800",
        "",
    ]:
        assert len(volume.search(question, k=5)) <= 5
    assert volume.search("days", k=0) == []
    assert len(volume) > 0


def test_the_order_is_deterministic(volume: Volume, books: Path) -> None:
    volume.mount(books)
    assert volume.search("days nine Friday", k=5) == volume.search("days nine Friday", k=5)


def test_a_new_encoder_or_chunking_starts_over(tmp_path: Path, books: Path) -> None:
    first = Volume.open(tmp_path / "v", WordsEncoder())
    first.mount(books)
    first.close()
    for encoder, limits in (
        (WordsEncoder("words-2"), None),
        (WordsEncoder("words-2"), ChunkLimits(bound=50)),
    ):
        again = Volume.open(tmp_path / "v", encoder, limits)
        with pytest.raises(VolumeError, match="another encoder or chunking"):
            again.search("salaries")
        assert again.mount(books).added == 2
        again.close()


def write(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text + "\n")
    return folder


def test_several_volumes_are_ranked_as_if_they_were_one(tmp_path: Path, encoder: WordsEncoder) -> None:
    """The same documents in three volumes of unequal size and in one: same passages, order and scores."""
    subjects = "leave salary travel parking badge laptop canteen travel leave travel printer leave".split()
    texts = {
        f"{n:02}.txt": f"Rule {n}: the {s} office {'opens' * (n % 3)} at {n}." for n, s in enumerate(subjects)
    }
    whole = Volume.open(tmp_path / "whole", encoder)
    whole.mount(write(tmp_path / "all", texts))
    parts = []
    names = sorted(texts)
    for number, of in enumerate((names[:2], names[2:5], names[5:])):
        parts.append(Volume.open(tmp_path / f"part{number}", encoder))
        parts[-1].mount(write(tmp_path / f"p{number}", {name: texts[name] for name in of}))
    for question in ("who opens the travel office", "leave", "laptop and badge at 5", "nothing of the sort"):
        one, several = whole.search(question, k=6), search(parts, [question], k=6)[0]
        assert [p.text for p in several] == [p.text for p in one]
        assert [p.score for p in several] == pytest.approx(
            [p.score for p in one], abs=0.02
        )  # lengths are pooled not
    for volume in (whole, *parts):
        volume.close()


def test_pooled_over_one_volume_is_its_own_bm25(volume: Volume, books: Path) -> None:
    volume.mount(books)
    question = "days of holiday on the last Friday"
    frequency = volume._store.frequencies(lexical_terms(question))
    own = volume._store.lexical(frequency, 50, COLUMNS)
    parts = volume._store.term_matches(frequency, list(own), COLUMNS)
    assert pooled([parts]) == [pytest.approx(own)]
    assert len(own) >= 2


def test_a_volume_of_noise_does_not_push_in(tmp_path: Path, encoder: WordsEncoder) -> None:
    """Its best match of words is worth little where that word is everywhere."""
    texts = {f"{n}.txt": f"note {n} on form {n * 7} and form {n * 3}" for n in range(30)}
    texts["a.txt"] = "The visa form is yellow."
    with_answer, noise = Volume.open(tmp_path / "a", encoder), Volume.open(tmp_path / "b", encoder)
    with_answer.mount(write(tmp_path / "forms", texts))
    noise.mount(
        write(tmp_path / "noise", {"x.txt": "A form of words.", "y.txt": "Rain tomorrow.", "z.txt": "Hm."})
    )
    best = noise.search("yellow visa form", k=1)[0]
    among = search([noise, with_answer], ["yellow visa form"], k=40)[0]
    assert among[0].text == "The visa form is yellow."
    assert (
        next(p.score for p in among if p.text == best.text) < best.score - 0.2
    )  # alone it had the full bonus
    for volume in (with_answer, noise):
        volume.close()


def test_questions_asked_together_are_answered_as_alone(
    tmp_path: Path, books: Path, encoder: WordsEncoder
) -> None:
    house = Volume.open(tmp_path / "house", encoder)
    house.mount(
        write(tmp_path / "forms", {f"{n}.txt": f"form {n} of the house is yellow" for n in range(60)})
    )
    shelf = Volume.open(tmp_path / "shelf", encoder)
    shelf.mount(books)
    questions = [
        "salaries",
        "",
        "the yellow form 7",
        "salaries",
        "days of holiday",
        "???",
        "form house Friday",
    ]
    for volumes in ([shelf], [house], [house, shelf], [shelf, house, shelf]):
        alone = [search(volumes, [question], k=7)[0] for question in questions]
        before = encoder.embedded
        assert search(volumes, questions, k=7) == alone
        assert encoder.embedded - before == 6  # each but the empty one, once
        assert [len(found) > 0 for found in alone] == [q != "" for q in questions]
    places = {p.volume: p.source.split("/")[0] for p in search([house, shelf], ["Friday form"], k=9)[0]}
    assert places == {0: "forms", 1: "books"}
    for volume in (house, shelf):
        volume.close()


def test_edges_of_searching_several(tmp_path: Path, books: Path, encoder: WordsEncoder) -> None:
    full, empty = Volume.open(tmp_path / "a", encoder), Volume.open(tmp_path / "b", encoder)
    full.mount(books)
    alone = full.search("salaries", k=3)
    assert search([full, empty, full], ["salaries"], k=3) == [
        alone
    ]  # twice the same volume, and one with nothing in it
    assert search([], ["salaries"]) == search([empty], ["salaries"]) == search([full], ["  "]) == [[]]
    assert search([full, empty], ['"AND" OR (foo*) NEAR/3 "'], k=2) is not None
    empty.mount(books)
    assert [p.text for p in search([full, empty], ["salaries"], k=3)[0]] == [
        p.text for p in alone
    ]  # no text twice
    other = Volume.open(tmp_path / "c", WordsEncoder("words-2"))
    other.mount(books)
    with pytest.raises(ValueError, match="different encoders"):
        search([full, other], ["salaries"])
    for volume in (full, empty, other):
        volume.close()


def test_progress_ends_complete(volume: Volume, books: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def progress(task: str, done: int, total: int, unit: str = "items", /) -> None:
        seen.setdefault(task, []).append((done, total))

    volume.mount(books, progress=progress)
    assert set(seen) == {"read", "embed"}
    for calls in seen.values():
        assert [done for done, _ in calls] == sorted(done for done, _ in calls)
        assert calls[-1][0] == calls[-1][1] > 0


def test_a_lost_or_damaged_index_is_rebuilt(tmp_path: Path, books: Path, encoder: WordsEncoder) -> None:
    with_index = Volume.open(tmp_path / "v", encoder)
    with_index.mount(books)
    want = [p.chunk_id for p in with_index.search("salaries", k=3)]
    with_index.close()
    (saved,) = (tmp_path / "v").glob("*.faiss")
    data = saved.read_bytes()
    for damage in (b"", data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1]), os.urandom(100), None):
        if damage is None:
            saved.unlink(missing_ok=True)  # a damaged one has been removed
        else:
            saved.write_bytes(damage)
        again = Volume.open(tmp_path / "v", encoder)
        assert [p.chunk_id for p in again.search("salaries", k=3)] == want
        again.close()


def test_an_index_that_is_ahead_of_its_database_is_made_anew(
    tmp_path: Path, books: Path, encoder: WordsEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """An old copy of the database was put back; the ids of the index then mean other chunks."""
    folder = tmp_path / "v"
    volume = Volume.open(folder, encoder)
    volume.mount(books)
    volume.close()
    old = (folder / FILE).read_bytes()
    volume = Volume.open(folder, encoder)
    (books / "new.txt").write_text("The canteen closes at two.\n")
    volume.mount(books)
    volume.close()
    (folder / FILE).write_bytes(old)
    (books / "new.txt").write_text("Parking is free.\n")
    volume = Volume.open(folder, encoder)
    assert "salaries" in volume.search("salaries", k=1)[0].text.lower()
    assert "is ahead of" in caplog.text
    volume.mount(books)
    assert volume.search("parking free", k=1)[0].text == "Parking is free."
    assert DenseIndex.saved(folder) == volume._store.generation
    volume.close()


def test_an_index_on_a_full_disk_is_written_by_the_next_mount(
    volume: Volume, books: Path, tmp_path: Path
) -> None:
    volume.mount(books)
    generation = volume._store.generation
    (books / "new.txt").write_text("The canteen closes at two.\n")
    (tmp_path / "volume" / f".dense-{generation + 1}").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no room"):
        volume.mount(books)
    assert volume.search("when does the canteen close", k=1)[0].source == "books/new.txt"
    assert DenseIndex.saved(tmp_path / "volume") == generation
    assert volume.mount(books).added == 0
    assert DenseIndex.saved(tmp_path / "volume") == volume._store.generation


def test_a_volume_deleted_while_it_is_open_is_said_to_be_gone(
    tmp_path: Path, books: Path, encoder: WordsEncoder
) -> None:
    volume = Volume.open(tmp_path / "v", encoder)
    volume.mount(books)
    shutil.rmtree(tmp_path / "v")
    with pytest.raises(VolumeError, match="is gone"):
        volume.search("salaries")
    with pytest.raises(VolumeError):
        volume.mount(books)
    (books / "new.txt").write_text("The canteen closes at two.\n")
    other = Volume.open(tmp_path / "v", encoder)  # as another kernel would make it anew
    other.mount(books)
    for use in (lambda: volume.search("canteen"), lambda: volume.mount(books)):
        with pytest.raises(VolumeError, match="is gone"):
            use()
    assert other.search("canteen closes", k=1)[0].source == "books/new.txt"
    volume.close()
    other.close()


def test_two_kernels_mount_into_one_volume_in_turn(
    tmp_path: Path, books: Path, encoder: WordsEncoder
) -> None:
    one, two = Volume.open(tmp_path / "v", encoder), Volume.open(tmp_path / "v", encoder)
    one.mount(books)
    more = write(tmp_path / "more", {"canteen.txt": "The canteen closes at two."})
    two.mount(more)
    assert top(one, "canteen closes")[0] == "more/canteen.txt"
    (more / "canteen.txt").unlink()
    one.mount(more)
    assert all(passage.source != "more/canteen.txt" for passage in two.search("canteen closes", k=9))
    assert top(two, "salaries")[0] == "books/inner/pay.txt"
    assert DenseIndex.saved(tmp_path / "v") == one._store.generation
    one.close()
    two.close()


def test_vectors_of_another_length_make_the_index_anew(tmp_path: Path, encoder: WordsEncoder) -> None:
    class Shorter(WordsEncoder):
        def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
            return super().encode(texts, progress)[:, :32]

    single = write(tmp_path / "single", {"a.txt": "One chunk only."})
    first = Volume.open(tmp_path / "v", encoder)
    first.mount(single)
    first.close()
    second = Volume.open(tmp_path / "v", Shorter("words-short"))
    second.mount(single)
    assert top(second, "one chunk")[0] == "single/a.txt"
    second.close()


def test_a_damaged_database_is_said_so(tmp_path: Path, books: Path, encoder: WordsEncoder) -> None:
    volume = Volume.open(tmp_path / "v", encoder)
    volume.mount(books)
    volume.close()
    whole = (tmp_path / "v" / FILE).read_bytes()
    for damage in (
        b"not a database" * 1000,
        whole[: len(whole) // 2],
        whole[:4096] + os.urandom(len(whole) - 4096),
    ):
        (tmp_path / "v" / FILE).write_bytes(damage)
        with pytest.raises(VolumeError, match="is damaged") as caught:
            broken = Volume.open(tmp_path / "v", encoder)
            try:
                broken.mount(books)
                broken.search("salaries", k=3)
            finally:
                broken.close()
        assert "mount the documents again" in caught.value.do


def test_a_folder_that_cannot_be_used(tmp_path: Path, encoder: WordsEncoder) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(VolumeError, match="cannot be used"):
        Volume.open(tmp_path / "file", encoder)


def test_a_full_disk_leaves_whole_documents_and_the_next_mount_goes_on(
    tmp_path: Path, encoder: WordsEncoder
) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for n in range(40):
        (many / f"{n:02}.txt").write_text(f"document {n} " * 500)
    volume = Volume.open(tmp_path / "v", encoder)
    pages = volume._store._db.execute("PRAGMA page_count").fetchone()[0]
    volume._store._db.execute(f"PRAGMA max_page_count = {pages + 60}")  # SQLite's own way to a full disk
    with pytest.raises(DiskFull, match="no room") as caught:
        volume.mount(many)
    assert "goes on where it stopped" in caught.value.do
    stored = volume._store.documents()
    assert 0 < len(stored) < 40
    assert volume.search("document 0", k=1)
    volume._store._db.execute("PRAGMA max_page_count = 1000000")
    report = volume.mount(many)
    assert (report.added, report.unchanged) == (40 - len(stored), len(stored))
    volume.close()


def test_two_writers_take_turns_and_a_reader_sees_the_news(
    tmp_path: Path, books: Path, encoder: WordsEncoder
) -> None:
    reader = Volume.open(tmp_path / "v", encoder)
    assert reader.search("salaries", k=1) == []
    code = (
        "import sys; from pathlib import Path\n"
        "from llmos.memory.volume import Volume\nfrom tests.memory.words_encoder import WordsEncoder\n"
        f"v = Volume.open({str(tmp_path / 'v')!r}, WordsEncoder()); r = v.mount({str(books)!r}); print(r.added)"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    added = sorted(int(run.communicate(timeout=120)[0]) for run in runs)
    assert added == [0, 2]  # the second one found the work done
    assert reader.search("salaries", k=1)[0].source == "books/inner/pay.txt"
    reader.close()


def test_a_writer_that_waits_too_long_says_so(tmp_path: Path) -> None:
    store, other = Store(tmp_path / "v"), Store(tmp_path / "v")
    with store.writing(), pytest.raises(VolumeError, match="is locked"), other.writing(wait=0.1):
        pass
    with other.writing(wait=0.1):
        pass
    store.close()
    other.close()


def test_threads_may_search_while_one_mounts(volume: Volume, books: Path) -> None:
    volume.mount(books)
    failures: list[BaseException] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                assert volume.search("salaries Friday", k=3)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(5):
        (books / f"new{n}.txt").write_text(f"more words {n}\n")
        volume.mount(books)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.slow
def test_a_killed_mount_loses_nothing_and_repeats_nothing(tmp_path: Path, encoder: WordsEncoder) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for n in range(300):
        (many / f"{n:03}.txt").write_text(
            f"Document {n}\n" + "=" * 12 + "\n\n" + f"words of number {n}. " * 200
        )
    code = (
        "from llmos.memory import mounting, volume; mounting._BATCH = 20\n"
        "from tests.memory.words_encoder import WordsEncoder\n"
        f"volume.Volume.open({str(tmp_path / 'v')!r}, WordsEncoder()).mount({str(many)!r})"
    )
    before = 0
    for delay in (0.8, 1.0, 1.2, 1.5):
        run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        run.wait()
        volume = Volume.open(tmp_path / "v", encoder)
        stored = len(volume._store.documents())
        assert stored >= before
        check = volume._store._db.execute("PRAGMA integrity_check").fetchone()[0]
        words = volume._store._db.execute("INSERT INTO words (words, rank) VALUES ('integrity-check', 1)")
        assert check == "ok" and words is not None
        before = stored
        volume.close()
    volume = Volume.open(tmp_path / "v", encoder)
    report = volume.mount(many)
    assert report.added + report.unchanged == 300
    assert report.unchanged == before
    volume.close()


def test_end_to_end_with_the_real_encoder(
    tmp_path: Path, books: Path, weights_path: Callable[[str], Path]
) -> None:
    from llmos.memory.embedding import Encoder

    volume = Volume.open(tmp_path / "real", Encoder.find("all-minilm-l6-v2"))
    volume.mount(books, label=STORE)
    assert (
        volume.search("When do I get my wages?", k=1)[0].source == "books/inner/pay.txt"
    )  # no word in common
    volume.close()


def rewrite(path: Path, *statements: str) -> None:
    """What an earlier or later version may have left."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE documents DROP COLUMN refusal",),
        ("DROP TABLE words",),
        ("DROP TABLE chunks", "CREATE TABLE chunks (id INTEGER PRIMARY KEY, text TEXT)"),
        ("UPDATE meta SET value = '1' WHERE key = 'format'",),
    ],
)
def test_a_volume_of_an_earlier_version_is_made_anew(
    tmp_path: Path, books: Path, encoder: WordsEncoder, statements: tuple[str, ...]
) -> None:
    first = Volume.open(tmp_path / "v", encoder)
    first.mount(books)
    wanted = [(p.source, p.text) for p in first.search("salaries", k=3)]
    first.close()
    rewrite(tmp_path / "v" / FILE, "PRAGMA foreign_keys=OFF", *statements)
    again = Volume.open(tmp_path / "v", encoder)
    assert again.search("salaries") == []
    assert again.mount(books).added == 2
    assert [(p.source, p.text) for p in again.search("salaries", k=3)] == wanted
    again.close()
    last = Volume.open(tmp_path / "v", encoder)
    assert last.mount(books).unchanged == 2
    last.close()


@pytest.mark.parametrize(
    ("statements", "told"),
    [
        (
            (
                "UPDATE meta SET value = '99' WHERE key = 'format'",
                "CREATE TABLE more (x)",
                "DROP INDEX chunks_document",
            ),
            "99",
        ),
        (("UPDATE meta SET value = '99' WHERE key = 'format'",), "99"),
        (("DROP TABLE meta",), "None"),
    ],
)
def test_a_database_of_a_later_version_or_another_program_is_left_alone(
    tmp_path: Path, books: Path, encoder: WordsEncoder, statements: tuple[str, ...], told: str
) -> None:
    volume = Volume.open(tmp_path / "v", encoder)
    volume.mount(books)
    volume.close()
    rewrite(tmp_path / "v" / FILE, *statements)
    with pytest.raises(VolumeError, match=f"has format {told}"):
        Volume.open(tmp_path / "v", encoder)
    db = sqlite3.connect(tmp_path / "v" / FILE)
    assert db.execute("SELECT count(*) FROM chunks").fetchone()[0] > 0
    db.close()


def test_common_words_of_a_large_volume_are_left_to_likeness(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"{n}.txt": f"the common form {n}" for n in range(30)} | {"a.txt": "the common yellow form"}
    volume.mount(write(tmp_path / "forms", texts))
    store = volume._store
    assert len(store.lexical(store.frequencies(["common", "yellow"]), 50, COLUMNS)) == 31
    monkeypatch.setattr("llmos.memory.store.MATCHES", 10)
    assert len(store.lexical(store.frequencies(["common", "yellow"]), 50, COLUMNS)) == 1
    assert store.lexical(store.frequencies(["common", "form"]), 50, COLUMNS) == {}
    assert volume.search("the common yellow form", k=1)[0].source == "forms/a.txt"


def test_how_often_a_common_word_is_in_a_volume_is_judged_by_its_beginning(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting stops at the limit; several volumes are then ranked by an estimate."""
    texts = {f"{n:03}.txt": f"form {n} {'even' * (n % 2 == 0)}" for n in range(100)} | {
        "x.txt": "yellow form"
    }
    volume.mount(write(tmp_path / "forms", texts))
    store, terms = volume._store, ["form", "even", "yellow", "nowhere"]
    ids = store.ids().tolist()
    exact = store.term_matches(store.frequencies(terms), ids, COLUMNS)
    assert exact.frequency == {"form": 101, "even": 50, "yellow": 1, "nowhere": 0}
    assert len(exact.scores["form"]) == 101
    monkeypatch.setattr("llmos.memory.store.MATCHES", 10)
    judged = store.term_matches(store.frequencies(terms), ids, COLUMNS)
    assert judged.frequency["form"] == 101 and 40 <= judged.frequency["even"] <= 60
    assert judged.scores == {"yellow": exact.scores["yellow"], "nowhere": {}}
    assert pooled([judged, judged])[0].keys() == exact.scores["yellow"].keys()


# -- where files move --------------------------------------------------------------------------------------------


def test_a_file_that_moved_is_not_read_again(volume: Volume, books: Path, encoder: WordsEncoder) -> None:
    volume.mount(books)
    before = encoder.embedded
    (books / "moved").mkdir()
    (books / "inner" / "pay.txt").rename(books / "moved" / "pay.txt")
    report = volume.mount(books)
    assert (report.added, report.removed, report.moved, encoder.embedded) == (0, 0, 1, before)
    assert volume.search("salaries Friday", k=1)[0].source == "books/moved/pay.txt"
    shutil.copy(books / "moved" / "pay.txt", books / "pay.txt")  # a copy is no move
    report = volume.mount(books)
    assert (report.added, report.moved) == (1, 0)
    (books / "plain.txt").write_text("Its name is its title, and is embedded with it.\n")
    volume.mount(books)
    (books / "plain.txt").rename(books / "simple.txt")
    report = volume.mount(books)
    assert (report.added, report.removed, report.moved) == (1, 1, 0)
