"""The questions of page-in: what is asked has its answer in its own chunk, and the halves are apart."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.__main__ import benchmarks
from benchmarks.page_in import _kl, _known, _values
from benchmarks.page_in_set import SOURCES, Question, contexts, right

needs_documents = pytest.mark.skipif(
    not SOURCES.exists(), reason="Debian's package python3.11-doc is not installed"
)


@needs_documents
def test_there_are_enough_and_each_answer_stands_in_its_chunk() -> None:
    tuning, published = contexts("tuning"), contexts("published")
    assert len(published) >= 100 and sum(len(c.questions) for c in published) >= 1000
    assert not {c.id for c in tuning} & {c.id for c in published}
    for context in (*tuning, *published):
        for q in context.questions:
            chunk = context.chunks[q.chunk]
            assert q.answer in chunk
            assert right(q, chunk.partition("\n")[0] if q.kind == "signature" else q.answer)


def test_answers_are_judged_by_their_letters() -> None:
    version = Question("", "added", "", "3.8", 0)
    assert right(version, " It is new in Python 3.8.") and right(version, "3.8")
    assert not right(version, "3.80") and not right(version, "3.7, and 3.8") and not right(version, "none")
    signature = replace(version, kind="signature", answer="(key, default=None)")
    assert right(signature, "`get(key,default=None)`") and not right(signature, "get(key)")


def test_divergence_is_zero_for_equals_and_counts_what_is_unknown_as_one() -> None:
    p = ((1, math.log(0.5)), (2, math.log(0.25)))
    assert _kl(p, p) == pytest.approx(0, abs=1e-9)
    assert _kl(p, ((1, math.log(0.25)), (2, math.log(0.25)))) == pytest.approx(
        0.5 * math.log(2) + 0.25 * math.log(0.25 / 0.5), rel=1e-6
    )
    assert _kl(p, ((3, math.log(0.9)),)) > 1


def test_answers_that_were_kept_are_not_asked_again(tmp_path: Path) -> None:
    kept = tmp_path / "answers"
    assert _known(None) == _known(kept) == {}
    kept.write_text(
        '\n["x", "a", [{"full": true}]]\n\n["x", "b", [{"fu\n["y", "c", [{"full": false}]]\n["a", []]\n'
    )
    assert _known(kept) == {("x", "a"): [{"full": True}], ("y", "c"): [{"full": False}]}


def test_a_loss_is_counted_by_pairs_and_others_over_those_that_were_asked_so() -> None:
    row = {"full": True, "blend": False, "blend_15": True, "share_blend": 0.04, "share_blend_15": 0.1}
    row |= {"kl_blend": 0.2, "kl_blend_15": 0.1}
    more = {"shift_only": True, "no_shift": False, "kl_shift_only": 0.5, "kl_no_shift": 0.5}
    once = {key: value for key, value in row.items() if "15" not in key} | {"blend": True}
    rows = [row | more, row | {"blend": True}, once, once]
    values = _values(
        [each | {"question": f"{place}/added/x"} for each, place in zip(rows, "abcd", strict=True)]
    )
    assert values["loss"] == 25 and values["loss_15"] == 0 and values["match_blend"] == 0.75
    margin = 1.96 * 50 / 2  # the deviation of 100, 0, 0, 0 is 50
    assert values["loss_interval_high"] == pytest.approx(25 + margin)
    assert values["loss_windows_high"] == pytest.approx(25 + margin)  # of as many windows
    together = _values(
        [each | {"question": f"{place}/added/x"} for each, place in zip(rows, "aabb", strict=True)]
    )
    # Sums beside the mean of 25: 75 - 25 and -25 - 25.
    assert together["loss_windows_high"] == pytest.approx(25 + 1.96 * (2 * 5000) ** 0.5 / 4)
    assert values["match_shift_only"] == 1 and values["questions"] == 4


def test_its_name_has_a_dash() -> None:
    assert "page-in" in benchmarks() and not any("_" in name for name in benchmarks())
