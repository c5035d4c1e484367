"""Our apps, driven by the official `mcp` client, in real processes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

import mcp_types as types
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

ROOT = Path(__file__).resolve().parents[3]
APPS = "tests.apps.serve.naughty"
ENV = {"PYTHONPATH": str(ROOT)}


def drive(
    work: Callable[[Client], Awaitable[None]], *names: str, mode: str = "legacy", **options: Any
) -> str:
    """Serve `names` in a child, connect the official client, do `work`; what the child wrote to stderr."""
    arguments = ["-m", "llmos.apps.serve", *(f"{APPS}:{name}" for name in names)]
    program = StdioServerParameters(command=sys.executable, args=arguments, env=ENV)

    async def run(errors: TextIO) -> None:
        async with Client(stdio_client(program, errlog=errors), mode=mode, **options) as client:
            await work(client)

    with tempfile.TemporaryFile("w+") as errors:
        asyncio.run(run(errors))
        errors.seek(0)
        return errors.read()


def meta(**fields: Any) -> Any:
    return {"llmos/call": fields}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_stranger_can_use_our_apps(mode: str) -> None:
    async def work(client: Client) -> None:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert {"naughty.chatter", "notebook.add"} <= set(listed)
        tool = listed["notebook.add"]
        assert tool.description == "Add a note; returns how many there are."
        assert tool.input_schema["required"] == ["note"]
        assert tool.output_schema is not None
        assert (await client.call_tool("notebook.add", {"note": "a"})).structured_content == {"result": 1}
        assert (await client.call_tool("notebook.add", {"note": "b"})).structured_content == {"result": 2}
        said = await client.call_tool("naughty.chatter", {"words": "hello"})
        assert said.structured_content == {"result": "hello"}
        parts = (await client.call_tool("naughty.media", {})).content
        assert [part.type for part in parts] == ["text", "image", "resource"]
        assert isinstance(parts[1], types.ImageContent)
        assert base64.b64decode(parts[1].data) == b"\x89PNG"
        nothing = await client.call_tool("naughty.modules", {})
        assert nothing.structured_content == {"result": []}

    assert "hello" in drive(work, "Naughty", "Notebook", mode=mode)


def test_errors_are_results_with_a_type() -> None:
    async def work(client: Client) -> None:
        async def error(name: str, **arguments: Any) -> tuple[str, str]:
            result = await client.call_tool(f"naughty.{name}", arguments)
            assert result.is_error
            assert "Traceback" not in json.dumps(result.model_dump(mode="json"))
            assert isinstance(result.content[0], types.TextContent)
            return (result.meta or {})["llmos/error"]["kind"], result.content[0].text

        assert await error("fail", words="gone") == ("AppFailed", "naughty.fail failed: LookupError: gone.")
        assert (await error("lie"))[0] == "BadResult"
        assert (await error("flood", megabytes=100))[0] == "BadResult"
        assert (await error("fail"))[0] == "BadArguments"
        assert (await error("pry"))[0] == "SecretMissing"
        assert (await error("whoami"))[0] == "SecretMissing"
        assert (await error("wonder", prompt="?"))[0] == "AskRefused"
        assert (await error("deadlock"))[0] == "AskRefused"
        assert (await error("nothing"))[0] == "BadArguments"
        broken = await client.call_tool("broken.anything", {})
        assert (broken.meta or {})["llmos/error"]["kind"] == "AppUnavailable"

    assert "LookupError" in drive(work, "Naughty", "Broken")


def test_the_context_of_a_call() -> None:
    context = meta(pid=7, expert="clerk", volume="/tmp/x", key="k1", secrets={"door": "mellon", "other": "x"})

    async def work(client: Client) -> None:
        told = await client.call_tool("naughty.whoami", {}, meta=context)
        assert told.structured_content == {"result": ["7", "clerk", "/tmp/x", "k1", "mellon"]}
        assert (await client.call_tool("naughty.pry", {}, meta=context)).is_error

    assert "mellon" not in drive(work, "Naughty")


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_progress_and_questions(mode: str) -> None:
    asked: list[types.CreateMessageRequestParams] = []

    async def answer(_: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        asked.append(params)
        said = params.messages[0].content
        assert isinstance(said, types.TextContent)
        text = '{"good": true}' if "fits this schema" in said.text else "because"
        return types.CreateMessageResult(
            role="assistant", model="m", content=types.TextContent(type="text", text=text)
        )

    async def work(client: Client) -> None:
        heard: list[tuple[float, float | None, str | None]] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            heard.append((done, total, message))

        await client.call_tool("naughty.count", {"upto": 1000}, progress_callback=progress)
        for _ in range(200):  # the package delivers news in tasks of their own, and none that is late
            if (1000, 1000, "step 1000") in heard:
                break
            await asyncio.sleep(0.01)
        assert 0 < len(heard) < 100 and all(total == 1000 for _, total, _ in heard)
        why = await client.call_tool("naughty.wonder", {"prompt": "why?"}, meta=meta(id="c9"))
        assert why.structured_content == {"result": "BECAUSE"}
        if mode == "legacy":  # the newer protocol has no place for it
            assert (asked[0].meta or {}).get("llmos/call") == "c9"  # type: ignore[call-overload]
        good = await client.call_tool("naughty.judge", {"prompt": "good?"})
        assert good.structured_content == {"result": True}

    drive(work, "Naughty", mode=mode, sampling_callback=answer)


def test_a_companion_knows_what_came_of_a_key() -> None:
    async def work(client: Client) -> None:
        letter = {"to": "you", "text": "hi"}
        await client.call_tool("post.send", letter, meta=meta(key="k1"))
        known = await client.call_tool("post.send", {}, meta=meta(key="k1", query=True))
        assert known.structured_content == {"result": "letter to you"}
        absent = meta(key="k2", query=True)
        unknown = await client.session.send_request(
            types.CallToolRequest(params=types.CallToolRequestParams(name="post.send", _meta=absent)),
            types.CallToolResult,
        )
        assert unknown.meta == {"llmos/absent": True}
        refused = await client.call_tool("notebook.add", {}, meta=meta(key="k1", query=True))
        assert (refused.meta or {})["llmos/error"]["kind"] == "BadArguments"

    drive(work, "Post", "Notebook")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmos.apps.serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **ENV},
        stdin=subprocess.DEVNULL,
    )


def test_manifests_from_the_command_line() -> None:
    found = json.loads(run("--manifests", f"{APPS}:Naughty", f"{APPS}:Nobody", "nothing").stdout)
    assert found[f"{APPS}:Naughty"]["manifest"]["app"] == "naughty"
    assert "Nobody" in found[f"{APPS}:Nobody"]["error"][1]
    assert "no app 'nothing'" in found["nothing"]["error"][0]


def test_an_app_that_is_none() -> None:
    ended = run(f"{APPS}:Verdict")
    assert ended.returncode == 1
    assert "is no app" in ended.stderr
    assert ended.stdout == ""
