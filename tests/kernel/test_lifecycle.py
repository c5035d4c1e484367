"""Processes on a scripted model: states, signals, the tree, quotas, mail, queues."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import (
    Cancelled,
    ConfigError,
    MailboxFull,
    NoSuchProcess,
    ProcessError,
    QuotaExceeded,
    TurnRefused,
)
from llmos.abi.events import Done, Token
from llmos.abi.labels import UNTRUSTED
from llmos.abi.limits import MAX_DEPTH, MAX_MAIL
from llmos.abi.mount import Mount
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Feedback
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.testing import call

Make = Callable[..., Kernel]
LONG = "word " * 2000
READERS: list[object] = []


def echo(window: str) -> str:
    """Says back what was asked."""
    question = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    return LONG if question == "long" else f"You said {question}."


@pytest.fixture
def kernel(scripted_kernel: Make) -> Kernel:
    return scripted_kernel(echo)


def begin(process: Process, question: str = "long") -> object:
    """A turn that is under way."""
    turn = process.ask(question, max_tokens=4000)
    iterator = iter(turn)
    while not isinstance(next(iterator), Token):
        pass
    READERS.append(iterator)  # who lets go of a turn half-way cancels it
    return turn


def eventually(check: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def test_a_process_lives_answers_and_is_reaped(kernel: Kernel) -> None:
    p = kernel.spawn(expert="parrot")
    assert p.state == "new"
    assert p.ask("hi").answer == "You said hi."
    eventually(lambda: p.state == "waiting")
    (line,) = kernel.ps()
    assert (line.pid, line.parent, line.name, line.turn) == (p.pid, 0, "parrot", 1)
    assert line.tokens == len("You said hi.")
    end = p.close()
    assert (end.reason, end.answer) == ("KILL", "You said hi.")
    assert p.state == "zombie" and kernel.ps() == []
    with pytest.raises(TurnRefused, match="has ended"):
        p.ask("again")
    with pytest.raises(NoSuchProcess, match="no process"):
        kernel.process(p.pid)


def test_int_stops_the_turn_and_keeps_the_process(kernel: Kernel) -> None:
    p = kernel.spawn()
    turn = begin(p)
    p.signal("INT")
    assert turn.reason == "cancelled" and LONG.startswith(turn.answer)  # type: ignore[attr-defined]
    assert p.ask("on").answer == "You said on."


def test_stop_holds_and_cont_releases(kernel: Kernel) -> None:
    p = kernel.spawn()
    turn = p.ask("long", max_tokens=2000, detached=True)
    p.signal("STOP")
    eventually(lambda: p.state == "stopped")
    time.sleep(0.1)
    before = turn._queue.qsize()
    time.sleep(0.1)
    assert turn._queue.qsize() == before, "it stands still"
    p.signal("CONT")
    assert turn.reason == "length" and turn.usage.completion_tokens == 2000


def test_term_lets_the_turn_finish(kernel: Kernel) -> None:
    p = kernel.spawn()
    turn = begin(p, "one")
    p.signal("TERM")
    assert turn.answer == "You said one."  # type: ignore[attr-defined]
    assert p.wait(10).reason == "TERM"
    idle = kernel.spawn()
    idle.signal("TERM")
    assert idle.wait(10).reason == "TERM"


def test_kill_ends_the_turn_at_once(kernel: Kernel) -> None:
    p = kernel.spawn()
    turn = begin(p)
    p.signal("KILL")
    assert p.wait(10).reason == "KILL"
    assert turn.reason == "cancelled"  # type: ignore[attr-defined]
    assert kernel.engine.pool.leaked == 0


def test_a_second_question_is_refused_or_queued(kernel: Kernel) -> None:
    p = kernel.spawn()
    first = begin(p)
    with pytest.raises(TurnRefused, match="queue=True"):
        p.ask("two")
    second, third = p.ask("two", queue=True), p.ask("three", queue=True)
    third.cancel()
    first.cancel()  # type: ignore[attr-defined]
    assert second.answer == "You said two."
    with pytest.raises(Cancelled, match="before it began"):
        _ = third.answer
    assert p.ask("four", queue=True).answer == "You said four."


def test_questions_in_a_queue_see_the_answers_before_them(scripted_kernel: Make) -> None:
    p = scripted_kernel(lambda window: str(window.count("assistant"))).spawn()
    turns = [p.ask("count", queue=True) for _ in range(4)]
    assert [t.answer for t in turns] == ["1", "2", "3", "4"]


def test_a_turn_that_nobody_reads_slows_its_own_process_only(kernel: Kernel) -> None:
    slow, quick = kernel.spawn(), kernel.spawn()
    turn = slow.ask("long", max_tokens=4000)
    assert quick.ask("hi").answer == "You said hi."
    time.sleep(0.2)
    assert turn._queue.qsize() < 1000
    assert turn.usage.completion_tokens == 4000


def test_who_stops_reading_cancels(kernel: Kernel) -> None:
    p = kernel.spawn()
    for _ in p.ask("long", max_tokens=4000):
        break
    assert p.ask("hi", queue=True).answer == "You said hi."


def test_forks_know_the_conversation_and_go_their_own_way(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: "again" if "first" in window else "first")
    p = kernel.spawn()
    p.ask("hi").answer
    children = p.fork(3)
    assert [c.ask("and now?").answer for c in children] == ["again"] * 3
    assert len({c.path for c in [p, *children]}) == 4
    assert [c.parent for c in children] == [p.pid] * 3
    assert children[0].ask("more", queue=True).usage.cached_tokens > 0
    p.close()
    assert [c.parent for c in children] == [0] * 3, "orphans are the kernel's"


def test_a_parent_reaps_its_child(kernel: Kernel) -> None:
    p = kernel.spawn()
    (child,) = p.fork()
    child.signal("KILL")
    eventually(lambda: child.state == "zombie")
    assert child.pid in {s.pid for s in kernel.ps()}, "a zombie until somebody waits"
    assert child.wait().reason == "KILL"
    assert child.pid not in {s.pid for s in kernel.ps()}


def test_generations_are_bounded(kernel: Kernel) -> None:
    p = kernel.spawn()
    for _ in range(MAX_DEPTH - 1):
        (p,) = p.fork()
    with pytest.raises(ProcessError, match="generation"):
        p.fork()


def test_a_quota_of_tokens_ends_the_process(kernel: Kernel) -> None:
    p = kernel.spawn(quotas={"tokens": 40})
    assert p.ask("hi").usage.completion_tokens == 12
    with pytest.raises(QuotaExceeded, match="40 tokens"):
        _ = p.ask("long").answer
    assert p.wait(10).reason == "tokens quota exceeded"


def test_what_children_use_the_parent_has_used(kernel: Kernel) -> None:
    p = kernel.spawn(quotas={"tokens": 30})
    (child,) = p.fork()
    assert child.ask("hi").answer == "You said hi."
    assert p.ledger.left("tokens") == 18
    with pytest.raises(QuotaExceeded):
        _ = p.ask("long").answer


def test_a_quota_of_seconds_ends_the_process(kernel: Kernel) -> None:
    p = kernel.spawn(quotas={"seconds": 0.2})
    assert p.wait(10).reason == "seconds quota exceeded"


def test_a_quota_of_pages_bounds_the_window(kernel: Kernel) -> None:
    p = kernel.spawn(quotas={"pages": 16})
    for _ in range(8):
        assert p.ask("hi").usage.pages <= 16
    assert p.state == "waiting", "what was said before leaves the window, and ends nobody"


@pytest.mark.parametrize("queued", [False, True])
def test_a_question_beyond_the_quota_of_pages_ends_the_process(kernel: Kernel, queued: bool) -> None:
    p = kernel.spawn(quotas={"pages": 16})
    if queued:
        p.signal("STOP")
        p.ask("hi", detached=True)
    with pytest.raises(QuotaExceeded, match="16 pages"):
        turn = p.ask("why? " * 200, queue=queued)
        p.signal("CONT")
        _ = turn.answer
    assert p.wait(10).reason == "pages quota exceeded"


def test_an_answer_beyond_the_quota_of_pages_ends_the_process(kernel: Kernel) -> None:
    p = kernel.spawn(quotas={"pages": 16})
    with pytest.raises(QuotaExceeded, match="16 pages"):
        _ = p.ask("long").answer
    assert p.wait(10).reason == "pages quota exceeded"
    report = kernel.replay(p.pid)
    assert (report.turns, report.divergence) == (1, None)


def test_results_beyond_the_quota_of_pages_end_the_process(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: call("calculator.evaluate", expression="10**700"))
    p = kernel.spawn(grants=["calculator"], quotas={"pages": 64})
    with pytest.raises(QuotaExceeded, match="64 pages"):
        _ = p.ask("hi").answer
    assert p.wait(10).reason == "pages quota exceeded"


@pytest.mark.parametrize("quotas", [{"tokens": 0}, {"tokens": -1}, {"hours": 1}])
def test_quotas_that_do_not_exist_are_refused(kernel: Kernel, quotas: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="quota"):
        kernel.spawn(quotas=quotas)


def test_a_class_that_does_not_exist_is_refused(kernel: Kernel) -> None:
    with pytest.raises(ConfigError, match="realtime, interactive, batch"):
        kernel.spawn(priority="urgent")


def test_mail_goes_from_process_to_process(kernel: Kernel) -> None:
    a, b = kernel.spawn(), kernel.spawn()
    a.send(b.pid, {"n": 1}, label=UNTRUSTED)
    a.send(b.pid, "two")
    first, second = b.receive(1), b.receive(1)
    assert (first.sender, first.content, first.label) == (a.pid, {"n": 1}, UNTRUSTED)
    assert second.content == "two"
    with pytest.raises(TimeoutError):
        b.receive(0.05)
    with pytest.raises(NoSuchProcess):
        a.send(999, "hello")


def test_a_full_mailbox_holds_its_sender_back(kernel: Kernel) -> None:
    a, b = kernel.spawn(), kernel.spawn()
    for i in range(MAX_MAIL):
        a.send(b.pid, i)
    with pytest.raises(MailboxFull):
        a.send(b.pid, "more", timeout=0.05)
    sender = threading.Thread(target=a.send, args=(b.pid, "late"))
    sender.start()
    assert [b.receive(5).content for _ in range(MAX_MAIL + 1)] == [*range(MAX_MAIL), "late"]
    sender.join()


def test_a_sender_is_told_when_the_receiver_ends(kernel: Kernel) -> None:
    a, b = kernel.spawn(), kernel.spawn()
    for i in range(MAX_MAIL):
        a.send(b.pid, i)
    threading.Timer(0.1, b.close).start()
    with pytest.raises(NoSuchProcess):
        a.send(b.pid, "late", timeout=10)


def test_async_programs(kernel: Kernel) -> None:
    async def program() -> tuple[str, list[str]]:
        a, b = kernel.spawn(), kernel.spawn()
        turn = await a.aask("one")
        done = await turn.aresult()
        texts = [e.text async for e in await b.aask("two") if isinstance(e, Token)]
        return done.answer, texts

    answer, texts = asyncio.run(program())
    assert answer == "You said one." and "".join(texts) == "You said two."


def test_typed_answers(scripted_kernel: Make) -> None:
    p = scripted_kernel(lambda window: '{"nonsense": 1}').spawn()
    value = p.ask("give me numbers", returns=list[int], max_tokens=50)
    assert all(isinstance(e, (Token, Done)) for e in value)
    assert isinstance(p.ask("one", returns=dict[str, int], queue=True).value, dict)


def test_closing_a_kernel_ends_what_runs(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(echo)
    process = kernel.spawn()
    turn = begin(process)
    waiting = process.ask("next", queue=True)
    kernel.close()
    for told in (turn, waiting):
        with pytest.raises(Cancelled):
            _ = told.answer  # type: ignore[attr-defined]
    kernel.close()


def test_many_processes_and_none_is_lost(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(echo)
    processes = [kernel.spawn(priority="batch") for _ in range(200)]
    turns = [p.ask(f"number {p.pid}") for p in processes]
    assert [t.answer for t in turns] == [f"You said number {p.pid}." for p in processes]
    assert kernel.engine.pool.leaked == 0
    assert call("a.b", x=1).startswith("<tool_call>")


def test_what_the_user_thought_outlives_a_private_kernel(scripted_kernel: Make) -> None:
    kernel, other = scripted_kernel(echo), scripted_kernel(echo)
    for k in (kernel, other):
        assert k.spawn().ask("hi").answer
    kernel.process(1).correct(1, "You said nothing.")
    with pytest.raises(ProcessError, match="no turn 7"):
        kernel.process(1).good(7)
    kernel.close()
    other.close()
    assert [r.body.text for r in read(kernel.state, kinds=[Feedback]) if isinstance(r.body, Feedback)] == [
        "You said nothing."
    ]
    assert not other.state.exists()


def test_a_turn_that_nobody_reads_can_be_given_up(kernel: Kernel) -> None:
    p = kernel.spawn()
    turn = p.ask("long", max_tokens=4000)
    eventually(lambda: turn.full)
    turn.cancel()
    assert p.ask("hi", queue=True).answer == "You said hi."


def test_what_was_mounted_later_is_there_after_a_boot(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "house.md").write_text("# Pets\n\nThe cat is called Miso.\n")
    state = tmp_path / "state"
    with scripted_kernel(echo, state=state) as kernel:
        process = kernel.spawn()
        process.mount(Mount(tmp_path / "house.md", "mine"))
        child = process.fork()[0]
    with scripted_kernel(echo, state=state) as kernel:
        for pid in (process.pid, child.pid):
            (mount,) = kernel.process(pid).mounts
            assert mount.path.name == "house.md" and mount.trust == "mine"
