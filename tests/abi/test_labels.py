"""Joining labels never invents trust and never adds a reader."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.labels import USER, Integrity, Label, join

labels = st.builds(
    Label, st.sampled_from(Integrity), st.none() | st.frozensets(st.sampled_from(["me", "you", "them"]))
)


@given(st.lists(labels, min_size=1))
def test_join_is_a_lower_bound(parts: list[Label]) -> None:
    whole = join(parts)
    assert all(whole.integrity <= part.integrity for part in parts)
    assert whole.integrity in {part.integrity for part in parts}
    for part in parts:
        if part.readers is not None:
            assert whole.readers is not None
            assert whole.readers <= part.readers
    assert (whole.readers is None) == all(part.readers is None for part in parts)


@given(st.lists(labels), st.lists(labels))
def test_join_is_the_same_in_any_grouping(one: list[Label], two: list[Label]) -> None:
    assert join([join(one), join(two)]) == join(two + one)


def test_join_of_nothing() -> None:
    assert join([]) == USER
