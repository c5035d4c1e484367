"""Records to test with: hypothesis strategies for every kind, and a plain conversation."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

from hypothesis import strategies as st

from llmos.abi.labels import Integrity, Label
from llmos.kernel.journal.records import KINDS, Asked, Body, Finished, Record, Sampled, Spawned, Started

labels = st.builds(
    Label,
    st.sampled_from(Integrity),
    st.none() | st.frozensets(st.text("abc", min_size=1, max_size=2), max_size=2),
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
small = st.integers(0, 5)  # so that records often speak of the same turn, call, pid and position
tokens = st.lists(st.integers(0, 300_000), max_size=4).map(tuple)
_BY_NAME = {
    "turn": small, "call": small, "parent": small, "of": small, "since": small,
    "to": small, "mail": small, "sender": small, "position": small,
    "tokens": tokens, "window": tokens, "path": st.lists(small, max_size=3).map(tuple),
    "label": labels, "labels": st.dictionaries(texts, labels, max_size=2),
    "value": plain, "content": plain,
    "quotas": st.dictionaries(texts, st.integers(0, 9).map(float), max_size=2),
    "usage": st.dictionaries(texts, st.integers(0, 9).map(float), max_size=2),
    "grants": st.lists(texts, max_size=2).map(tuple),
    "error": st.none() | st.dictionaries(texts, texts, max_size=2),
    "over": st.none() | small, "mounts": st.lists(plain, max_size=2).map(tuple),
    "limit": st.floats(0, 9), "used": st.floats(0, 9), "confidence": st.none() | st.floats(0, 1),
}  # fmt: skip
_PLAIN_MAPPINGS = ("settings", "options", "strategy", "layout", "arguments", "tree")


def _body(kind: type[Body]) -> st.SearchStrategy[Body]:
    hints = get_type_hints(kind)
    given: dict[str, st.SearchStrategy[Any]] = {}
    for field in fields(kind):
        if field.name in _PLAIN_MAPPINGS:
            given[field.name] = st.dictionaries(texts, plain, max_size=2)
        elif field.name in _BY_NAME:
            given[field.name] = _BY_NAME[field.name]
        elif hints[field.name] is str:
            given[field.name] = texts
        else:
            given[field.name] = st.from_type(hints[field.name])
    if kind.__name__ == "Forced":
        given["call"] = st.none() | small
    return st.builds(kind, **given)


bodies: st.SearchStrategy[Body] = st.one_of(*(_body(kind) for kind in KINDS.values()))
histories = st.lists(st.tuples(st.integers(0, 4), bodies), max_size=40).map(
    lambda entries: [Record(i, 1000.0 + i, pid, body) for i, (pid, body) in enumerate(entries, 1)]
)


def conversation(pids: int = 3, steps: int = 10, *, turn: int = 1) -> list[tuple[int, Body]]:
    """Each process is asked, samples a token a step, and finishes."""
    out: list[tuple[int, Body]] = []
    for pid in range(1, pids + 1):
        if turn == 1:
            out.append((pid, Spawned(expert="analyst", grants=("calculator",))))
        out += [(pid, Asked(turn, f"question {turn}")), (pid, Started(turn, (1, 2, 3), seed=pid))]
    for step in range(steps):
        out += [(pid, Sampled(turn, 3 + step, (step * 7 + pid,))) for pid in range(1, pids + 1)]
    return out + [(pid, Finished(turn, f"answer {turn}", "stop")) for pid in range(1, pids + 1)]
