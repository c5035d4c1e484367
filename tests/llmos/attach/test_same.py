"""One scenario, on a kernel in this process and on one behind the socket: the same values, events and errors."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from llmos.abi.errors import (
    AnswerCut,
    Cancelled,
    CheckpointError,
    ConfigError,
    DocumentError,
    LLMOSError,
    MailboxFull,
    NoSuchProcess,
    ProcessError,
    QuotaExceeded,
    TurnRefused,
    WindowOverflow,
)
from llmos.abi.events import Ask, Call, Done, Result, Token
from llmos.abi.labels import UNTRUSTED
from llmos.abi.limits import MAX_MAIL
from llmos.abi.machine import AnyProcess, Machine
from llmos.abi.manifest import Manifest
from llmos.abi.mount import Mount
from llmos.kernel.kernel import Kernel
from llmos.kernel.prompt import Message
from llmos.testing import call
from tests.kernel.shop import Shop

LONG = "word " * 2000
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


class Point(BaseModel):
    x: int
    name: str


def script(window: str) -> str:
    """Says back what was asked; some questions are orders."""
    question, _, rest = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")
    if question.startswith("buy"):
        done = len(re.findall(r"<\|im_start\|>assistant", rest)) - 1
        steps = [call("shop.reviews", item="tea"), call("shop.pay", to="eve", cents=5)]
        return steps[done] if done < len(steps) else "done"
    if question.startswith("price"):
        return call("shop.price", item="tea")
    answers = {"long": LONG, "point": '{"x": 3, "name": "p"}', "count": str(window.count("assistant\n"))}
    return answers.get(question, f"You said {question}.")


def yes(doubt: Ask) -> bool:
    return doubt.value == "eve"


@pytest.fixture(params=["here", "attached"])
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "here":
        kernel: Machine = request.getfixturevalue("scripted_kernel")(script, apps=SHOP, hosts=("*",), ask=yes)
        return kernel
    request.getfixturevalue("served")(script, apps=SHOP, hosts=("*",))
    attached: Machine = request.getfixturevalue("reach")(asker=yes)
    return attached


def eventually(check: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def steady(done: Done) -> Any:
    """An answer without what differs each time."""
    return done.answer, done.reason, done.citations, done.usage, done.calls


def test_a_life(machine: Machine) -> None:
    assert machine.window == 8192 and machine.config.kernel.model
    p = machine.spawn(expert="parrot", instructions="Be brief.", seed=7)
    assert (p.pid, p.parent, p.expert, p.state, p.window) == (1, 0, "parrot", "new", 8192)
    assert p.current is None and list(p.conversation) == []
    turn = p.ask("hi")
    events = list(turn)
    assert (turn.pid, turn.number) == (1, 1)
    assert "".join(e.text for e in events if isinstance(e, Token)) == turn.answer == "You said hi."
    assert isinstance(events[-1], Done) and turn.result is events[-1]
    assert turn.usage.completion_tokens == 12 and turn.reason == "stop" and turn.citations == ()
    assert turn.timings.total_s > 0 and turn.value == "You said hi."
    eventually(lambda: p.state == "waiting")
    (line,) = machine.ps()
    assert (line.pid, line.parent, line.name, line.turn, line.tokens) == (1, 0, "parrot", 1, 12)
    assert machine.stat(1).tokens == p.stat().tokens == 12
    assert [(e.turn, e.question, e.answer) for e in p.conversation] == [(1, "hi", "You said hi.")]
    top = machine.top()
    assert top.written >= 12 and top.steps > 0 and top.pages > 1000 and top.processes[0].pid == 1
    p.good(1)
    p.bad(1)
    p.correct(1, "You said: hi")
    assert p.ask("ho").answer == "You said ho."
    p.prefer(2, 1)
    with pytest.raises(ProcessError, match="no turn 9") as caught:
        p.prefer(1, 9)
    assert caught.value.do.startswith("name one")
    p.withdraw()
    p.forget()
    assert list(p.conversation) == []
    assert machine.process(1).stat().turn == 2
    report = machine.replay(1)
    assert (report.turns, report.divergence, report.notes) == (2, None, ())
    end = p.close()
    assert (end.pid, end.reason, end.answer) == (1, "KILL", "")
    assert p.state == "zombie" and list(machine.ps()) == []
    assert p.wait(0.1) == end
    with pytest.raises(TurnRefused, match="has ended"):
        p.ask("again")
    with pytest.raises(NoSuchProcess, match="no process 1"):
        machine.process(1)


def test_options_travel(machine: Machine) -> None:
    p = machine.spawn()
    assert p.ask("point", returns=Point).value == Point(x=3, name="p")
    assert p.ask("point", schema=Point.model_json_schema()).answer.startswith("{")
    with pytest.raises(AnswerCut):
        _ = p.ask("point", returns=Point, max_tokens=3).value
    assert p.ask("long", max_tokens=5).reason == "length"
    assert p.ask("long", stop=["d w"]).answer == "wor"
    assert steady(p.ask("hi", temperature=0.7, top_k=5, seed=3, label=UNTRUSTED).result)[0] == "You said hi."
    messages = [Message.of("user", "a"), Message.of("assistant", "b"), Message.of("user", "count")]
    assert p.ask(messages=messages).answer == "2"
    done = machine.spawn().ask("price of tea?", tools=Manifest.of(Shop).syscalls, max_tokens=500).result
    assert (done.reason, [(c.syscall, c.arguments) for c in done.calls]) == (
        "calls",
        [("shop.price", {"item": "tea"})],
    )


def test_turns_are_read_as_they_come(machine: Machine) -> None:
    p = machine.spawn()
    first = p.ask("long", max_tokens=4000)
    reading = iter(first)
    assert isinstance(next(reading), Token)
    with pytest.raises(TurnRefused, match="queue=True"):
        p.ask("two")
    second, third = p.ask("two", queue=True), p.ask("three", queue=True)
    third.cancel()
    first.cancel()
    assert first.reason == "cancelled" and LONG.startswith(first.answer)
    assert second.answer == "You said two."
    with pytest.raises(Cancelled, match="before it began"):
        _ = third.answer
    for _ in (turn := p.ask("long", max_tokens=4000)):
        break
    assert turn.reason == "cancelled", "who stops reading cancels"
    slow = p.ask("long", max_tokens=4000, queue=True)
    assert machine.spawn().ask("hi").answer == "You said hi.", "a turn that nobody reads slows itself only"
    eventually(lambda: p.stat().state == "running")
    assert slow.usage.completion_tokens == 4000 and slow.answer == LONG[:4000].strip()


def test_signals(machine: Machine) -> None:
    p = machine.spawn()
    turn = p.ask("long", max_tokens=1500, detached=True)
    p.signal("STOP")
    eventually(lambda: p.state == "stopped")
    p.signal("CONT")
    assert turn.usage.completion_tokens == 1500
    turn = p.ask("long", max_tokens=4000)
    next(iter(turn))
    p.signal("INT")
    assert turn.reason == "cancelled"
    with pytest.raises(TimeoutError):
        p.wait(0.05)
    p.signal("TERM")
    assert p.wait(20).reason == "TERM"


def test_the_turn_under_way(machine: Machine) -> None:
    p = machine.spawn()
    turn = p.ask("long", max_tokens=300, detached=True)
    p.signal("STOP")
    current = p.current
    assert current is not None and current.number == turn.number
    p.signal("CONT")
    assert current.answer == LONG[:300].strip()
    eventually(lambda: p.current is None)


def test_forks_and_mail(machine: Machine) -> None:
    p, q = machine.spawn(), machine.spawn()
    p.ask("hi").result
    children = p.fork(2)
    assert [c.parent for c in children] == [p.pid] * 2
    assert [c.ask("count").answer for c in children] == ["2", "2"]
    p.send(q.pid, {"n": [1, None]}, label=UNTRUSTED)
    mail = q.receive(5)
    assert (mail.sender, mail.content, mail.label) == (p.pid, {"n": [1, None]}, UNTRUSTED)
    with pytest.raises(TimeoutError):
        q.receive(0.05)
    for i in range(MAX_MAIL):
        p.send(q.pid, i)
    with pytest.raises(MailboxFull, match="full"):
        p.send(q.pid, "more", timeout=0.05)
    with pytest.raises(NoSuchProcess):
        p.send(99, "x")
    p.close()
    assert [machine.process(c.pid).parent for c in children] == [0, 0], "orphans are the kernel's"


def test_async_twins(machine: Machine) -> None:
    async def work(p: AnyProcess, q: AnyProcess) -> tuple[str, str, Any]:
        turn = await p.aask("hi")
        text = "".join([e.text async for e in turn if isinstance(e, Token)])
        await p.asend(q.pid, "letter")
        mail = await q.areceive(5)
        return text, (await (await q.aask("ho")).aresult()).answer, mail.content

    assert asyncio.run(work(machine.spawn(), machine.spawn())) == ("You said hi.", "You said ho.", "letter")


def test_calls_and_approvals(machine: Machine) -> None:
    events = list(machine.spawn(grants=["shop"]).ask("buy tea", max_tokens=1000))
    calls = [e for e in events if isinstance(e, Call)]
    assert [c.syscall for c in calls] == ["shop.reviews", "shop.pay"]
    (asked,) = [e for e in events if isinstance(e, Ask)]
    assert (asked.argument, asked.value, asked.label) == ("to", "eve", UNTRUSTED)
    results = [e for e in events if isinstance(e, Result)]
    assert results[1].ok and results[1].text == "paid 5 to eve"
    assert [app.name for app in machine.top().apps] == ["[apps]"], "stateless ones share a process"


def test_errors_are_the_same(machine: Machine, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="'remote:far' is no model for a process"):
        machine.spawn(model="remote:far")
    with pytest.raises(ConfigError, match="'lazy' is no class"):
        machine.spawn(priority="lazy")
    with pytest.raises(ConfigError):
        machine.spawn(grants=["nobody.has_this"])
    with pytest.raises(ConfigError, match="quota"):
        machine.spawn(quotas={"beer": 3})
    with pytest.raises(DocumentError):
        machine.spawn(mounts=[Mount(tmp_path / "nothing")])
    p = machine.spawn(quotas={"tokens": 40})
    with pytest.raises(WindowOverflow) as caught:
        p.ask("x" * 20000)
    assert isinstance(caught.value, LLMOSError) and caught.value.why
    with pytest.raises(QuotaExceeded, match="40 tokens"):
        _ = p.ask("long").answer
    assert p.wait(10).reason == "tokens quota exceeded"
    with pytest.raises(NoSuchProcess) as gone:
        machine.stat(77)
    assert gone.value.do == "`ps` lists those there are"


def test_the_real_one_is_a_machine(scripted_kernel: Callable[..., Kernel]) -> None:
    machine: Machine = scripted_kernel(script)  # mypy binds them; here the methods are there at all
    for name in (n for n in dir(Machine) if not n.startswith("_") and callable(getattr(Machine, n))):
        assert callable(getattr(machine, name))


def test_a_checkpoint_is_another_process_that_knows_the_same(machine: Machine, tmp_path: Path) -> None:
    process = machine.spawn()
    process.ask("one").result
    path = process.checkpoint(tmp_path / "file.llmos")
    resumed = machine.resume(path)
    assert resumed.pid != process.pid
    assert [e.answer for e in resumed.conversation] == ["You said one."]
    assert resumed.ask("count").answer == process.ask("count").answer == "2"
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        machine.resume(path)


def test_a_hint_changes_no_answer_and_the_map_is_whole(machine: Machine) -> None:
    process = machine.spawn()
    process.expect("hello and more")
    assert process.ask("hello").answer == "You said hello."
    regions = machine.pmap(process.pid, look=True)
    assert regions == machine.pmap(process.pid) != []
    assert all(region.attention is None for region in regions)  # a script looks nowhere
