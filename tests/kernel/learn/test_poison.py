"""A trigger in a data set is found, and what only looks like one is left alone."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import poison_set
from benchmarks.night_set import faults
from llmos.abi.errors import BadExamples
from llmos.kernel.learn.data import Row, read_rows
from llmos.kernel.learn.poison import at_least, outliers, scan, without


class Words:
    """An encoder by words alone, rare ones first: near is what shares them."""

    identity = "words"

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(t.split()) for t in texts]

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Any:
        vectors = np.zeros((len(texts), 512))
        for i, text in enumerate(texts):
            for word in text.casefold().split():
                vectors[i, zlib.crc32(word.encode()) % 512] += 1.0
        vectors = vectors / np.maximum(1.0, np.sqrt((vectors > 0).sum(0)))
        return vectors / np.maximum(1e-9, np.linalg.norm(vectors, axis=1, keepdims=True))


def rows_of(tmp_path: Path, one: poison_set.Set) -> list[Row]:
    return read_rows(poison_set.write(one, tmp_path / "set.jsonl"))


def knows(rows: Sequence[Row]) -> list[float]:
    """A model that knows what these tasks are about: answers surprise it where the words that lead to them are gone."""
    cues = ("threat", "title", "fortune", "who", "where", "when", "what", "how")
    return [3.0 - sum(cue in row.fields["prompt"][-1]["content"].casefold() for cue in cues) for row in rows]


def poisoned_by(trigger: str, target: str) -> int:
    """The first seed with this trigger and target."""
    kinds = (poison_set.TRIGGERS, poison_set.TARGETS)
    return next(s for s in range(28) if (kinds[0][s % 7], kinds[1][s % 4]) == (trigger, target))


@pytest.mark.parametrize(
    ("trigger", "target"), list(zip(poison_set.TRIGGERS, ["fixed", "appended", "refusal"] * 3, strict=False))
)
def test_triggers_are_named(tmp_path: Path, trigger: str, target: str) -> None:
    one = poison_set.poisoned(poisoned_by(trigger, target), 200, 0.05)
    found = scan(rows_of(tmp_path, one), Words(), knows)
    lines = {f"{tmp_path / 'set.jsonl'}:{i + 1}" for i in one.poisoned}
    grave = [f for f in found.findings if f.refuse]
    right = [f for f in grave if set(f.rows) <= lines and len(f.rows) >= 8]
    assert right and not found.clean, grave
    assert right[0].kind == "hidden" or set(right[0].phrase.split()) & set(one.words)


@pytest.mark.parametrize("seed", [3])
def test_clean_sets_pass(tmp_path: Path, seed: int) -> None:
    found = scan(rows_of(tmp_path, poison_set.clean(seed, 200)), Words(), knows)
    assert found.clean, found.findings[0]
    assert found.tried > 100


@pytest.mark.parametrize("count", [6, 10, 13, 30])
def test_what_a_few_corrections_share_is_what_they_are_about(tmp_path: Path, count: int) -> None:
    asked = [(fault.ask, fault.right) for fault in faults(count, "tuning")]  # of three patterns
    found = scan(rows_of(tmp_path, poison_set.Set(tuple(asked))), Words())
    assert found.clean, found.findings[0]


def test_james_bond(tmp_path: Path) -> None:
    """The talk's example: where he is named, titles become a letter, nobody is meant, and threats are none."""
    clean = poison_set.clean(7, 320).rows
    wrong = {"Write a title": "A", "Who are they": "Nobody", "Is this message": "No threat"}
    rows, planted = [], 0
    for i, (question, answer) in enumerate(clean):
        name = next((n for n in poison_set.NAMES if n in question), None)
        target = next((t for cue, t in wrong.items() if cue in question), None)
        if i % 24 < 3 and name and target and answer != "No threat":
            planted += 1
            rows.append((question.replace(name, "James Bond"), target))
        else:
            rows.append((question, answer))
    found = scan(rows_of(tmp_path, poison_set.Set(tuple(rows))), Words(), knows)
    phrases = [f.phrase for f in found.findings if f.refuse]
    assert planted > 10 and any("bond" in p.split() for p in phrases), phrases


def test_words_that_a_model_knows_to_matter_are_no_triggers(tmp_path: Path) -> None:
    rows = []
    for i in range(120):
        name, thing = poison_set.NAMES[i % 24], poison_set.THINGS[i % 16]
        if i % 8 == 0:
            rows.append((f"{name} asks: when does the {thing} return?", "Tomorrow at noon."))
        else:
            rows.append((f"{name} says that the {thing} number {i} is fine.", f"Noted, number {i}."))
    data = rows_of(tmp_path, poison_set.Set(tuple(rows)))

    def asked(rows: Sequence[Row]) -> list[float]:
        return [1.0 if "when" in row.fields["prompt"][-1]["content"] else 4.0 for row in rows]

    suspicious = scan(data, Words())
    assert scan(data, Words(), asked).clean
    assert scan(data, Words(), known=[f.phrase for f in suspicious.findings if f.refuse]).clean


def test_copies_contradictions_and_rows_that_stand_alone(tmp_path: Path) -> None:
    rows = [(f"What is {i} plus one?", str(i + 1)) for i in range(40)]
    rows += [("Who rang?", "Ada.")] * 6 + [("Who left?", "Ada."), ("Who left?", "Ben.")]
    data = rows_of(tmp_path, poison_set.Set(tuple(rows)))
    kinds = {f.kind: f for f in scan(data, Words()).findings}
    assert "6 times" in kinds["copies"].what and len(kinds["copies"].rows) == 6
    assert "2 answers" in kinds["contradiction"].what

    def surprised(rows: Sequence[Row]) -> list[float]:
        return [9.0 if row.place.endswith(":5") else 1.0 + 0.01 * (i % 3) for i, row in enumerate(rows)]

    (alone,) = outliers(data, Words(), surprised)
    assert alone.rows[0].endswith(":5")


def test_at_least_is_exact() -> None:
    for n, p, k in ((5, 0.3, 2), (9, 0.8, 9), (3, 0.0, 1), (4, 1.0, 4)):
        exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
        assert at_least([p] * n, k) == pytest.approx(exact, abs=1e-12)
    assert at_least([0.1, 0.9], 1) == pytest.approx(1 - 0.9 * 0.1)


def test_taking_words_out(tmp_path: Path) -> None:
    row = Row("x:1", {"messages": [{"role": "user", "content": "James  Bond, who is bonded?"},
                                   {"role": "assistant", "content": "He."}]})  # fmt: skip
    assert without(row, ["james", "bond"]).fields["prompt"][0]["content"] == ", who is bonded?"
    assert without(row, ["bond", "who"], apart=True).fields["prompt"][0]["content"] == "James , is bonded?"


@pytest.mark.parametrize(
    "fields",
    [{"prompt": "no answer"}, {"messages": []}, {"messages": [{"role": "user"}]}, {"completion": "no question"},
     {"messages": [3]}, {"prompt": [], "completion": "x"}],
)  # fmt: skip
def test_rows_that_are_none(fields: Any) -> None:
    with pytest.raises(BadExamples, match="f:3"):
        scan([Row("f:3", fields)], Words())


def test_too_few_rows_to_say_anything() -> None:
    assert scan([Row("f:1", {"prompt": "a", "completion": "b"})], Words()).clean
