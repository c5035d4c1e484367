"""Notes: kept once, found again, under the label they were written with."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmos.abi.errors import VolumeError
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label
from llmos.memory.notes import MAX_NOTE, Note, Notes

from .words_encoder import WordsEncoder


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    made = Notes(tmp_path / "notes.sqlite", lambda: WordsEncoder().encode)
    yield made
    made.close()


def test_kept_and_found_by_meaning(notes: Notes) -> None:
    for n, text in enumerate(["The cat is called Miso.", "The car is red.", "Pay the rent on Monday."]):
        assert notes.add(Note(text, USER, "process 1, turn 2", "librarian"), key=f"k{n}").number == n + 1
    found = notes.search("what is the cat called", expert="librarian", k=2)
    assert found[0].text == "The cat is called Miso." and len(found) == 2
    assert (found[0].origin, found[0].label) == ("process 1, turn 2", USER) and found[0].time > 1e9
    assert [n.number for n in notes.search("", expert="librarian")] == [3, 2, 1]


def test_labels_are_given_back_as_they_were(notes: Notes) -> None:
    secret = Label(Integrity.UNTRUSTED, frozenset({"me"}))
    for n, label in enumerate([USER, STORE, UNTRUSTED, secret, Label(Integrity.USER, frozenset())]):
        notes.add(Note(f"note {n}", label, "here"), key=str(n))
        assert notes.search("", k=1)[0].label == label


def test_a_key_keeps_one_note(notes: Notes) -> None:
    first = notes.add(Note("once", USER, "a"), key="k")
    assert notes.add(Note("twice", UNTRUSTED, "b"), key="k") == first
    assert len(notes.search("", k=9)) == 1


def test_nobody_reads_or_removes_anothers(notes: Notes) -> None:
    mine = notes.add(Note("mine", USER, "", "a", "ann"), key="1")
    assert notes.search("mine", expert="b", user="ann") == [] == notes.search("mine", expert="a", user="bob")
    assert not notes.forget(mine.number, expert="a", user="bob")
    assert (
        notes.forget(mine.number, expert="a", user="ann") and notes.search("", expert="a", user="ann") == []
    )


@pytest.mark.parametrize("text", ["", "  \n", "x" * (MAX_NOTE + 1)])
def test_what_is_no_note(notes: Notes, text: str) -> None:
    with pytest.raises(VolumeError):
        notes.add(Note(text, USER, ""), key="k")


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(VolumeError, match="damaged"):
        Notes(path, lambda: None)


def test_what_was_reported_survives_a_kill(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from llmos.abi.labels import USER\n"
        "from llmos.memory.notes import Note, Notes\n"
        "notes = Notes(Path(sys.argv[1]), lambda: None)\n"
        "for n in range(1000):\n"
        "    print(notes.add(Note(f'note {n}', USER, ''), key=str(n)).number, flush=True)\n"
        "    if n == 20: os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "notes.sqlite"
    for _ in range(2):  # the second life repeats nothing
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
        )
        assert done.stdout.split() == [str(n + 1) for n in range(21)]
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (21,)
    db.close()
