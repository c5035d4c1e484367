"""The BFCL benchmark: its halves, its reading of free text, its intervals, and the checker itself."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.bfcl import wilson
from benchmarks.bfcl_set import looks_like_a_call, parse, questions
from llmos.abi.errors import ConfigError

installed = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None, reason="needs pip install --no-deps bfcl-eval"
)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>',
        'Sure:\n```json\n{"name": "f", "parameters": {"x": 1}}\n```\nDone.',
        'I call {"function": "f", "arguments": "{\\"x\\": 1}"}',
        '[{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]',
    ],
)
def test_calls_are_found_however_they_are_written(text: str) -> None:
    assert parse(text) == [("f", {"x": 1})]
    assert looks_like_a_call(text)


@pytest.mark.parametrize("text", ["f(x=1)", '{"x": 1}', '{"name": "Ada", "born": {"year": 1815}}', "{ {", ""])
def test_other_text_is_no_call(text: str) -> None:
    assert parse(text) == []
    assert not looks_like_a_call(text)


def test_two_calls_are_two() -> None:
    one = '{"name": "f", "arguments": {"x": {"name": "g", "arguments": {}}}}'
    assert [name for name, _ in parse(f"{one} and {one}")] == ["f", "f"]


def test_the_interval_is_wilson_s() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # a textbook's example
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12) and wilson(10, 10)[1] == pytest.approx(1)


@pytest.mark.skipif(importlib.util.find_spec("bfcl_eval") is not None, reason="it is installed")
def test_without_bfcl_it_says_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match="pip install --no-deps bfcl-eval"):
        questions("irrelevance", "tuning")


@installed
def test_the_halves_are_disjoint_and_complete() -> None:
    for category, count in (("simple_python", 400), ("irrelevance", 240)):
        halves = [{q.id for q in questions(category, half)} for half in ("tuning", "published")]  # type: ignore[arg-type]
        assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == count


@installed
def test_their_own_answers_are_right_and_others_wrong() -> None:
    for question in questions("simple_python", "tuning")[:40]:
        assert question.answer is not None
        ((name, accepted),) = question.answer[0].items()
        choices = ((key, [v for v in values if v != ""]) for key, values in accepted.items())
        given = {key: values[0] for key, values in choices if values}
        if any(isinstance(v, dict) for v in given.values()):
            continue  # answers of objects list the choices for each field
        assert question.right([(name, given)]), question.id
        assert not question.right([]) and not question.right([(f"{name}_", given)])
    assert questions("irrelevance", "tuning")[0].right([])
    assert not questions("irrelevance", "tuning")[0].right([("f", {})])
