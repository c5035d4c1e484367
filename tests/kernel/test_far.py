"""A process that a remote model speaks for: the same syscalls, monitor and journal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from llmos.abi.config import RemoteConfig
from llmos.abi.errors import (
    AnswerCut,
    CallDenied,
    ConfigError,
    GrammarError,
    LLMOSError,
    ProcessError,
    QuotaExceeded,
)
from llmos.abi.events import Ask, Call, Result, Token
from llmos.abi.mount import Mount
from llmos.drivers.remote import RemoteGarbled
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.serve.server import Server, listen
from llmos.testing import call
from tests.drivers.remote.hostile import Request, serving

Make = Callable[..., Kernel]


def silent(window: str) -> str:
    raise AssertionError("the machine's own model was asked")


def far(kernel: Kernel, url: str, **spawning: Any) -> Process:
    remotes = {"far": RemoteConfig(url=url, model="qwen2.5-coder-0.5b", retries=0, stall=20.0)}
    kernel.config = kernel.config.model_copy(update={"remotes": remotes})
    return kernel.spawn(model="remote:far", **spawning)


def calls(request: Request, *made: tuple[str, Any]) -> None:
    """An answer that is calls."""
    fragments = [
        {"index": n, "id": f"c{n}", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for n, (name, arguments) in enumerate(made)
    ]
    request.begin()
    request.event({"choices": [{"index": 0, "delta": {"content": "Let me see. ", "tool_calls": fragments}}]})
    request.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    request.event("[DONE]")


def test_words_and_conversation(scripted_kernel: Make) -> None:
    with serving(lambda request: request.say("Good ", "day", ".")) as server:
        kernel = scripted_kernel(silent)
        process = far(kernel, server.url, instructions="Be kind.")
        turn = process.ask("Hello?", max_tokens=50)
        assert [e.text for e in turn if isinstance(e, Token) and e.text] == ["Good ", "day", "."]
        assert turn.answer == "Good day." and turn.reason == "stop" and turn.usage.completion_tokens == 9
        assert turn.usage.pages == 0 and process.stat().tokens == 9
        (child,) = process.fork(1)
        assert child.ask("And you?").answer == "Good day."
        assert [(m["role"], m["content"]) for m in server.seen[1].json["messages"]] == [
            ("system", "Be kind."), ("user", "Hello?"), ("assistant", "Good day."), ("user", "And you?")
        ]  # fmt: skip
        with pytest.raises(ProcessError, match="came from a remote model"):
            kernel.replay(process.pid)
        with pytest.raises(ProcessError, match="raw text"):
            _ = process.ask("Once", raw=True).answer
        with pytest.raises(ProcessError, match="top_k"):
            _ = process.ask("Hm?", top_k=3).answer
        assert process.ask("Stop?", stop=["day"]).answer == "Good"
        assert process.ask("Short?", max_tokens=3).reason == "length"


def test_calls_go_through_grammar_trap_and_journal(scripted_kernel: Make) -> None:
    def answer(request: Request) -> None:
        *_, last = request.json["messages"]
        if last["role"] == "tool":
            request.say(f"It is {last['content']}.")
        elif "Add" in last["content"]:
            calls(request, ("calculator__evaluate", {"expression": "40 + 2"}))
        elif "date" in last["content"]:  # keys in another order, a whole number with a point
            calls(request, ("calculator__add_to_date", {"unit": "days", "amount": 2.0, "date": "2024-01-01"}))
        elif "Steal" in last["content"]:
            calls(request, ("files__read", {"path": "x"}))
        else:
            calls(request, ("calculator__evaluate", {"expression": 7}))

    with serving(answer) as server:
        kernel = scripted_kernel(silent)
        process = far(kernel, server.url, grants=["calculator"])
        events = list(process.ask("Add them."))
        assert [(e.syscall, dict(e.arguments)) for e in events if isinstance(e, Call)] == [
            ("calculator.evaluate", {"expression": "40 + 2"})
        ]
        assert [(e.ok, e.text) for e in events if isinstance(e, Result)] == [(True, "42")]
        assert process.conversation[-1].answer == "It is 42."
        first, second = (request.json for request in server.seen)
        names = {tool["function"]["name"] for tool in first["tools"]}
        assert "calculator__evaluate" in names and not any(name.startswith("files") for name in names)
        asked, told = second["messages"][-2:]
        assert asked["tool_calls"][0]["id"] == told["tool_call_id"] and asked["content"] == "Let me see. "
        kinds = [type(record.body).__name__ for record in kernel.journal.records(process.pid)]
        assert kinds.index("Intent") < kinds.index("Result") < kinds.index("Finished")
        assert "Sampled" in kinds
        assert "2024-01-03" in process.ask("What date?").answer
        with pytest.raises(GrammarError, match="not granted"):
            _ = process.ask("Steal it.").answer
        with pytest.raises(GrammarError, match="does not fit"):
            _ = process.ask("Nonsense.").answer
        assert process.ask("Add again.").answer == "It is 42."  # an error ends a turn, not the process


class Point(BaseModel):
    x: int
    y: int


def test_answers_of_a_form(scripted_kernel: Make) -> None:
    replies = ['{"y": 2,\n "x": 1.0}', '{"x": "one"}', "no"]

    with serving(lambda request: request.say(replies[len(server.seen) - 1])) as server:
        process = far(scripted_kernel(silent), server.url)
        turn = process.ask("Where?", returns=Point)
        assert turn.answer == '{"x": 1, "y": 2}' and turn.value == Point(x=1, y=2)
        schema = server.seen[0].json["response_format"]["json_schema"]["schema"]
        assert set(schema["properties"]) == {"x", "y"}
        for _ in range(2):
            with pytest.raises(AnswerCut, match="not of the form"):
                _ = process.ask("Where?", returns=Point).value


@pytest.mark.parametrize(("readers", "allowed"), [({"me"}, False), ({"me", "far"}, True)])
def test_a_remote_reads_only_what_it_may(
    scripted_kernel: Make, tmp_path: Path, readers: set[str], allowed: bool
) -> None:
    (tmp_path / "note.txt").write_text("The launch is on Tuesday.")
    mount = Mount(tmp_path / "note.txt", "mine", frozenset(readers))
    with serving(lambda request: request.say("Tuesday.")) as server:
        process = far(scripted_kernel(silent), server.url, mounts=[mount])
        turn = process.ask("When is the launch?")
        if allowed:
            assert turn.answer.startswith("Tuesday") and "The launch is on Tuesday." in str(
                server.seen[0].json
            )
            return
        with pytest.raises(CallDenied, match=r"remote\.tell"):
            list(turn)
        assert server.seen == []


def test_whoever_approves_sees_the_words_that_leave(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("The launch is on Tuesday.")
    asked: list[Ask] = []
    with serving(lambda request: request.say("Tuesday.")) as server:
        kernel = scripted_kernel(silent, ask=lambda ask: asked.append(ask) or True)
        process = far(kernel, server.url, mounts=[Mount(tmp_path / "note.txt", "mine", frozenset({"me"}))])
        assert process.ask("When is the launch?").answer.startswith("Tuesday")
    assert [(ask.syscall, ask.argument) for ask in asked] == [("remote.tell", "window")]
    assert "The launch is on Tuesday." in str(asked[0].value)


def test_what_is_no_answer_and_who_is_not_there(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(silent)
    with serving(lambda request: request.send(b"<html>")) as server:
        process = far(kernel, server.url)
        with pytest.raises(RemoteGarbled):
            _ = process.ask("Hello?").answer
    with pytest.raises(LLMOSError, match="cannot be reached"):
        _ = process.ask("Hello?").answer
    for wrong in ("remote:fra", "far", "gpt"):
        with pytest.raises(ConfigError, match="is no model for a process"):
            kernel.spawn(model=wrong)


def test_cancel_and_quota(scripted_kernel: Make) -> None:
    def endless(request: Request) -> None:
        request.begin()
        while not server.over.wait(0.01):
            request.event({"choices": [{"index": 0, "delta": {"content": "word "}}]})

    with serving(endless) as server:
        kernel = scripted_kernel(silent)
        turn = far(kernel, server.url).ask("Go on.", max_tokens=100_000 // 20)
        for event in turn:
            if isinstance(event, Token) and event.text:
                turn.cancel()
        assert turn.reason == "cancelled" and turn.answer.startswith("word")
        process = kernel.spawn(model="remote:far", quotas={"tokens": 20})
        with pytest.raises(QuotaExceeded):
            _ = process.ask("Go on.").answer


def test_a_turn_that_a_crash_cut_off_ends_by_an_error(scripted_kernel: Make, tmp_path: Path) -> None:
    def hanging(request: Request) -> None:
        request.begin()
        request.event({"choices": [{"index": 0, "delta": {"content": "word "}}]})
        server.over.wait()

    with serving(hanging) as server:
        kernel = scripted_kernel(silent, state=tmp_path / "state")
        process = far(kernel, server.url)
        turn = process.ask("Go on.", detached=True)
        assert any(isinstance(event, Token) for event in _until_word(turn))
        kernel.close()
        again = scripted_kernel(silent, state=tmp_path / "state")
        found = again.process(process.pid)
        assert found.spawned.settings["model"] == "far"
        again.loop.run(found.asettled())
        assert len(server.seen) == 1 and found.conversation == []
        reasons = [
            r.body.reason for r in again.journal.records(process.pid) if type(r.body).__name__ == "Finished"
        ]
        assert reasons == ["error"]


def _until_word(turn: Any) -> list[Any]:
    seen: list[Any] = []
    while not any(isinstance(e, Token) and e.text for e in seen):
        seen.append(turn._take(turn._queue.get(timeout=60)))
    return seen


def test_one_kernel_is_the_cpu_of_another(scripted_kernel: Make) -> None:
    """`llmos serve` at the other end: the protocol as we speak it ourselves."""

    def script(window: str) -> str:
        tail = window.rpartition("How much")[2]
        return "It is 42." if "42" in tail else call("calculator__evaluate", expression="40 + 2")

    near, other = scripted_kernel(silent), scripted_kernel(script)
    with Server(other, listen("127.0.0.1", 0)) as server:
        process = far(near, f"{server.url}", grants=["calculator.evaluate"])
        turn = process.ask("How much is 40 and 2?")
        made = [e for e in turn if isinstance(e, Result)]
        assert [(e.ok, e.text) for e in made] == [(True, "42")] and turn.answer == "It is 42."
        assert turn.usage.prompt_tokens > 20
