"""The tasks: their number, their halves, and that right and wrong are told apart."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.tasks_set import Made, Right, Task, numbers, same, site, tasks
from llmos.apps.calculator import evaluate


def test_there_are_enough_for_every_app() -> None:
    published = Counter(task.app for task in tasks("published"))
    assert set(published) == {
        "calculator", "interpreter", "terminal", "files", "browser", "eyes", "ears", "voice", "studio",
    }  # fmt: skip
    assert min(published.values()) >= 5 and published.total() >= 48


def test_the_halves_are_disjoint_and_complete() -> None:
    halves = [{task.id for task in tasks(half)} for half in ("tuning", "published")]
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == {task.id for task in tasks()} and len(tasks()) == sum(map(len, halves))


@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.id)
def test_a_question_that_is_said_again_is_no_answer(task: Task, tmp_path: Path) -> None:
    assert task.number or task.says or task.made, "nothing is checked"
    before = frozenset((name, text.encode()) for name, text in task.files.items())
    for name, data in before:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert task.wrong(task.ask.replace("{site}", "http://127.0.0.1:8000"), tmp_path, before)


def test_every_page_is_linked_or_asked_for() -> None:
    asked = " ".join(task.ask for task in tasks())
    pages = site()
    for name in pages:
        heading = pages[name].partition("<h1>")[2].partition("</h1>")[0].removeprefix("The ")
        assert name in asked or (heading and heading in asked), name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is 1,234.5 or -3.", ["1234.5", "-3"]),
        ("Seven euros, 12% of them.", ["12", "7"]),
        ("12,690 and 1,2", ["12690", "1", "2"]),
        ("at 7:30 on 2025-03-17", ["7", "30", "2025", "3", "17"]),
        ("none", []),
    ],
)
def test_numbers_are_read(text: str, found: list[str]) -> None:
    assert sorted(numbers(text)) == sorted(map(Decimal, found))


def test_a_number_is_right_to_the_decimals_that_are_given() -> None:
    assert same(Decimal("12.69"), Decimal("12.6900")) and same(Decimal("42.16"), Decimal("42.1648"))
    assert not same(Decimal("12.69"), Decimal("12.7")) and not same(Decimal(89), Decimal("89.1"))


def test_what_is_lacking_is_said() -> None:
    right = Right(number=(Decimal(5),), says=("kittiwake",), excludes="petrel")
    assert right.missing("The Kittiwake, in five minutes.") == ""
    assert right.missing("The Petrel, in 15 minutes.") == "5, kittiwake, no petrel"
    with pytest.raises(ValidationError):
        Right.model_validate({"say": ["x"]})


def test_a_file_counts_where_it_is_new_or_changed(tmp_path: Path) -> None:
    made, file = Made(file="*.txt", says=("ada",)), tmp_path / "names.txt"
    assert made.wrong(tmp_path, frozenset()) == "no new *.txt"
    file.write_text("Ada\n")
    assert made.wrong(tmp_path, frozenset()) == ""
    assert made.wrong(tmp_path, frozenset({("names.txt", b"Ada\n")})) == "no new *.txt"
    file.write_text("Beth\n")
    assert made.wrong(tmp_path, frozenset()) == "ada"


def test_pictures_archives_and_sounds_are_looked_into(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (90, 60), "#d61e1e").save(tmp_path / "a.png")
    assert Made(file="*.png", shows=("red",)).wrong(tmp_path, frozenset()) == ""
    assert Made(file="*.png", shows=("blue",)).wrong(tmp_path, frozenset()) == "blue"
    assert "empty" in Made(file="*.png", picture=True).wrong(tmp_path, frozenset())
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("photos/a.txt"), io.BytesIO())
    assert Made(file="*.tar.gz", holds=("a.txt",)).wrong(tmp_path, frozenset()) == ""
    assert Made(file="*.tar.gz", holds=("b.txt",)).wrong(tmp_path, frozenset()) == "b.txt"
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert "Error" in Made(file="*.wav", seconds=2).wrong(tmp_path, frozenset())


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("tip", "15% of 84.60"), ("power", "2^61"), ("root", "sqrt(7921)"), ("marathon", "26.2 miles to km"),
        ("oven", "350 degF to degC"), ("petrol", "31 / 418 * 100"), ("shelf", "9!"), ("savings", "2500 * 1.04^6"),
        ("product", "8472913 * 65537"),
    ],
)  # fmt: skip
def test_the_calculator_can_do_its_tasks(name: str, expression: str) -> None:
    (task,) = (task for task in tasks() if task.id == f"calculator/{name}")
    assert task.missing(evaluate(expression).show(15)) == ""
