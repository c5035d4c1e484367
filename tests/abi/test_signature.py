"""A method gets only arguments that fit its hints, and only results that fit them leave it."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Any, cast

import pytest
from pydantic import BaseModel

from llmos.abi.app import App, Call, Image, Part, Text, syscall
from llmos.abi.errors import AppFailed, BadArguments, BadResult
from llmos.abi.signature import Reply, Signature

CALL = cast(Call, object())


class Point(BaseModel):
    x: int
    y: int = 0


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Probe(App):
    """Behaves as it is told."""

    @syscall(effect="none")
    def add(self, a: int, b: float = 1.0) -> float:
        """Adds."""
        return a + b

    @syscall(effect="none")
    async def later(self, day: date, points: list[Point], call: Call) -> list[Point]:
        """Gives the points back."""
        assert call is CALL
        assert isinstance(day, date)
        await asyncio.sleep(0)
        return points

    @syscall(effect="none")
    def lie(self) -> int:
        """Promises a number."""
        return cast(int, "seven")

    @syscall(effect="none")
    def infinite(self) -> float:
        """No JSON for this."""
        return float("inf")

    @syscall(effect="none")
    def fail(self, how: str) -> str:
        """Fails."""
        if how == "exit":
            sys.exit(3)
        if how == "stop":
            raise StopIteration
        if how == "words":
            raise Unprintable
        raise KeyError(how)

    @syscall(effect="none")
    def stream(self, count: int) -> Iterator[str | Part]:
        """Yields."""
        yield "first"
        for _ in range(count):
            yield Image(b"\x89PNG")

    @syscall(effect="none")
    async def astream(self) -> AsyncIterator[Text]:
        """Yields later."""
        yield Text("a")
        yield cast(Text, 3)

    @syscall(effect="none")
    def thread(self) -> str:
        """Where it runs."""
        return threading.current_thread().name

    @syscall(effect="none")
    def nap(self) -> None:
        """Sleeps."""
        time.sleep(0.3)


def run(name: str, **arguments: Any) -> Reply:
    method = getattr(Probe(), name)
    return asyncio.run(Signature.read("probe", getattr(Probe, name)).invoke(method, arguments, CALL))


def test_values() -> None:
    assert run("add", a=2) == Reply(value=3.0)
    assert run("later", day="2026-02-28", points=[{"x": 1}]) == Reply(value=[{"x": 1, "y": 0}])
    assert run("nap") == Reply(value=None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({}, "a: Field required"),
        ({"a": "2"}, "valid integer"),
        ({"a": True}, "valid integer"),
        ({"a": 1, "c": 2}, "c: Extra"),
        ({"a": 1, "b": None}, "valid number"),
        ({"a": 1, "b": object()}, "serializable"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(BadArguments, match=word):
        run("add", **arguments)


def test_results_that_do_not_fit() -> None:
    with pytest.raises(BadResult, match="valid integer"):
        run("lie")
    with pytest.raises(BadResult):
        run("infinite")
    with pytest.raises(BadResult, match="int where a Text"):
        run("astream")


def test_parts_of_a_stream() -> None:
    assert run("stream", count=1).parts == (Text("first"), Image(b"\x89PNG"))


@pytest.mark.parametrize(
    ("how", "kind"), [("exit", "SystemExit"), ("x", "KeyError"), ("words", "Unprintable")]
)
def test_failures_have_a_type(how: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AppFailed) as caught:
        run("fail", how=how)
    assert caught.value.type == kind
    assert "Traceback" not in str(caught.value)
    assert "Traceback" in capfd.readouterr().err


def test_stop_iteration_does_not_end_the_loop() -> None:
    with pytest.raises(AppFailed):
        run("fail", how="stop")


def test_sync_methods_have_a_thread() -> None:
    assert run("thread").value == "syscall"


def test_nobody_waits_for_a_cancelled_sync_method() -> None:
    async def cancel() -> float:
        signature = Signature.read("probe", Probe.nap)
        task = asyncio.create_task(signature.invoke(Probe().nap, {}, CALL))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.monotonic() - began

    assert asyncio.run(cancel()) < 0.2
