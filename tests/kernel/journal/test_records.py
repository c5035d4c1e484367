"""What is written is read back equal, or refused; never changed on the way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from llmos.abi.errors import JournalError
from llmos.kernel.journal.records import (
    KINDS,
    Asked,
    Body,
    Result,
    Sampled,
    Sent,
    Spawned,
    decode,
    encode,
    name_of,
)
from tests.kernel.journal.records import bodies


@given(bodies)
def test_a_body_comes_back_equal(body: Body) -> None:
    kind, blob = encode(body)
    assert decode(kind, blob) == body
    assert name_of(type(body)) == kind


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), {1, 2}, (1, 2), {1: 2}, object(), b"bytes", "\ud800", [[float("-inf")]]],
)
def test_what_json_would_change_is_refused(value: Any) -> None:
    for body in (
        Sent(1, value),
        Result(1, 1, value),
        Spawned(settings={"a": value}),
        Asked(1, "", options={"a": [value]}),
    ):
        with pytest.raises(JournalError, match="cannot be written"):
            encode(body)


def test_a_field_of_the_wrong_type_is_refused() -> None:
    wrong: Any = "3"
    for body in (
        Sampled(wrong, 1, (1,)),
        Sampled(1, wrong, (1,)),
        Sampled(1, 1, (wrong,)),
        Asked(1, wrong and 3),
    ):  # type: ignore[arg-type]
        with pytest.raises(JournalError, match="cannot be written"):
            encode(body)


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(JournalError):
        encode(Sent(1, circle))


@pytest.mark.parametrize(
    ("kind", "blob"),
    [
        ("dreamt", b"{}"),
        ("sampled", b'{"turn":1,"position":1,"tokens":[1],"new":1}'),
        ("sampled", b'{"turn":1}'),
        ("sampled", b"{"),
        ("sampled", b'{"turn":1,"position":1,"tokens":"1"}'),
    ],
)
def test_a_later_versions_record_is_an_error_that_says_so(kind: str, blob: bytes) -> None:
    with pytest.raises(JournalError, match="the version of llmos that wrote it"):
        decode(kind, blob)


def test_what_is_no_record_is_refused() -> None:
    wrong: Any = "text"
    with pytest.raises(JournalError, match="not a kind of record"):
        encode(wrong)


def test_names_of_kinds_never_change() -> None:
    assert list(KINDS) == [
        "booted", "spawned", "asked", "started", "sampled", "forced", "intent", "result", "approval", "parked",
        "finished", "forgot", "signalled", "sent", "received", "exceeded", "exited", "reaped", "feedback",
        "mounted", "granted", "placed", "considered", "adapted",
    ]  # fmt: skip
