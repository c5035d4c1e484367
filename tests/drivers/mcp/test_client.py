"""Servers that misbehave end calls with typed errors, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from llmos.abi.app import Text
from llmos.abi.errors import AppError, AppFailed, AppUnavailable, BadResult, DeadlineExceeded
from llmos.abi.signature import Reply
from llmos.drivers.mcp.client import Connection
from llmos.drivers.mcp.meta import CallMeta
from llmos.drivers.mcp.source import Http, Stdio

ROOT = Path(__file__).resolve().parents[3]
ROGUE = Path(__file__).with_name("rogue.py")
T = TypeVar("T")


def rogue(how: str, file: Path | None = None, **env: str) -> Stdio:
    return Stdio((sys.executable, "-S", str(ROGUE), how, *([str(file)] if file else [])), env)


def drive(source: Stdio, work: Callable[[Connection], Awaitable[T]], **options: Any) -> T:
    async def run() -> T:
        connection = await Connection.open("rogue", source, **options)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return asyncio.run(run())


def echo(how: str, text: str = "hi", deadline: float = 10.0, **options: Any) -> Reply | None:
    async def work(connection: Connection) -> Reply | None:
        return await connection.call("echo", {"text": text}, CallMeta(pid=3, key="k"), deadline=deadline)

    return drive(rogue(how), work, **options)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["good", "junk", "lie"])
def test_answers_come_through(how: str) -> None:
    reply = echo(how)
    assert reply is not None
    assert reply.parts == (Text("hi"),) or reply.value == {"x": "a" * 60 + "!"}


@pytest.mark.parametrize(
    ("how", "kind", "word"),
    [
        ("flood", BadResult, "bytes"),
        ("flood-late-id", BadResult, "bytes"),
        ("garbled", BadResult, "not JSON-RPC"),
        ("deep", BadResult, "not JSON-RPC"),
        ("wrong", BadResult, "against the protocol"),
        ("bad-part", BadResult, "cannot be read"),
        ("error", AppFailed, "no such luck"),
        ("failed", AppFailed, "hi"),
        ("die", AppUnavailable, "my last words"),
        ("endless", AppUnavailable, "ended during"),
    ],
)
def test_failures_have_a_type(how: str, kind: type[AppError], word: str) -> None:
    with pytest.raises(kind, match=word):
        echo(how)


def test_a_flood_costs_little_memory() -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadResult):
        echo("flood")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 << 10  # KiB


def test_a_deadline_ends_the_call_and_tells_the_server(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def work(connection: Connection) -> float:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await connection.call("echo", {}, CallMeta(), deadline=0.3)
        took = time.monotonic() - began
        while not told.exists():
            await asyncio.sleep(0.01)
        assert await connection.running(1.0) == set()
        return took

    assert drive(rogue("hang", told), work) < 1.0


def test_what_travels_with_a_call() -> None:
    import json

    async def work(connection: Connection) -> dict[str, Any]:
        meta = CallMeta(id="i", pid=3, key="k", integrity="user", expert="e", volume="/v", secrets={"a": "b"})  # type: ignore[dict-item]
        assert "b" not in repr(meta).split("secrets", 1)[1]
        reply = await connection.call("echo", {}, meta, deadline=5)
        assert reply is not None
        assert isinstance(reply.parts[0], Text)
        return dict(json.loads(reply.parts[0].text)["llmos/call"])

    stranger = drive(rogue("meta"), work)
    assert stranger == {"id": "i", "pid": 3, "key": "k", "integrity": "user", "readers": None}
    ours = drive(rogue("meta"), work, ours=True)
    assert (ours["expert"], ours["volume"], ours["secrets"]) == ("e", "/v", {"a": "b"})


def test_progress_is_heard() -> None:
    async def work(connection: Connection) -> list[tuple[float, float | None, str]]:
        heard: list[tuple[float, float | None, str]] = []
        await connection.call(
            "echo", {}, CallMeta(), deadline=5, on_progress=lambda *news: heard.append(news)
        )
        return heard

    assert drive(rogue("progress"), work) == [(1.0, 2.0, ""), (2.0, 2.0, "")]


def test_a_stranger_may_not_ask_the_model() -> None:
    reply = echo("ask")
    assert reply is not None
    assert isinstance(reply.parts[0], Text)
    assert "error" in reply.parts[0].text


def test_a_change_of_tools_is_noticed() -> None:
    async def work(connection: Connection) -> None:
        first = await connection.tools()
        while not connection.changed:
            await asyncio.sleep(0.01)
        assert await connection.tools() != first

    drive(rogue("change"), work)


def test_a_listing_without_end() -> None:
    async def work(connection: Connection) -> None:
        with pytest.raises(BadResult, match="pages"):
            await connection.tools()

    drive(rogue("pages"), work)


def test_servers_that_cannot_be_reached() -> None:
    with pytest.raises(AppUnavailable, match="no program"):
        drive(Stdio(("no-such-program",)), _nothing)
    with pytest.raises(AppUnavailable, match="could not be reached"):
        drive(Stdio((sys.executable, "-c", "raise SystemExit('bad start')")), _nothing)
    with pytest.raises(AppUnavailable, match="1999"):
        drive(rogue("ancient"), _nothing)
    with pytest.raises(AppUnavailable, match="did not answer"):
        drive(rogue("silent"), _nothing, seconds=0.5)


async def _nothing(_: Connection) -> None:
    return None


def test_a_child_gets_no_more_environment_than_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "hidden")

    async def work(connection: Connection) -> str:
        assert connection.child is not None
        return Path(f"/proc/{connection.child.pid}/environ").read_text()

    seen = drive(rogue("good", TOKEN="given"), work)
    assert "TOKEN=given" in seen
    assert "OTHER_TOKEN" not in seen
    assert "given" not in repr(rogue("good", TOKEN="given"))


@pytest.mark.parametrize("text", ["and stay", "and die"])
def test_no_child_is_left(text: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    async def work(connection: Connection) -> int:
        assert connection.child is not None
        with_children = connection.child.memory()
        try:
            await connection.call("echo", {"text": text}, CallMeta(), deadline=10)
            assert connection.child.memory() > with_children > 0
        except AppUnavailable:
            assert text == "and die"
        return connection.child.pid

    server = drive(rogue("litter", pids), work)
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    assert not any(alive(pid) for pid in [*left, server])


def test_a_stubborn_server_is_killed() -> None:
    async def work(connection: Connection) -> int:
        assert connection.child is not None
        return connection.child.pid

    began = time.monotonic()
    assert not alive(drive(rogue("stubborn"), work))
    assert time.monotonic() - began < 5


def test_a_killed_kernel_leaves_no_app_behind(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"""
import asyncio, os, signal, sys
from llmos.drivers.mcp.client import Connection
from llmos.drivers.mcp.source import Stdio
from llmos.drivers.mcp.meta import CallMeta

async def main():
    connection = await Connection.open("x", Stdio((sys.executable, "-S", {str(ROGUE)!r}, "litter", {str(pids)!r})))
    await connection.call("echo", {{}}, CallMeta(), deadline=10)
    print(connection.child.pid, connection.child._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    everyone = [int(pid) for pid in (ended.stdout + pids.read_text()).split()]
    assert len(everyone) == 4
    deadline = time.monotonic() + 5
    while any(map(alive, everyone)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in everyone if alive(pid)]


def test_a_url_that_is_none() -> None:
    async def run() -> None:
        with pytest.raises(AppUnavailable, match="http or https"):
            await Connection.open("x", Http("file:///etc/passwd"))
        with pytest.raises(AppUnavailable):
            await Connection.open("x", Http("http://127.0.0.1:9/mcp"), seconds=5)

    asyncio.run(run())


def test_importing_the_driver_costs_nothing() -> None:
    code = "import sys, llmos, llmos.drivers.mcp, llmos.drivers.mcp.meta; print('mcp' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "False"
