"""From a model's call to its result: real app processes, the real monitor, a scripted model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from llmos.abi.errors import AnswerCut, ConfigError, QuotaExceeded
from llmos.abi.events import Ask, Call, Event, Result
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity
from llmos.abi.manifest import Manifest
from llmos.kernel.journal.records import Approval, Intent
from llmos.kernel.journal.records import Result as ResultRecord
from llmos.kernel.kernel import Kernel
from llmos.kernel.prompt import Message, Part
from llmos.kernel.system import SYSTEM
from llmos.testing import call
from tests.kernel.shop import Shop

Make = Callable[..., Kernel]
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def after(window: str) -> str:
    """What stands in the window behind the last question."""
    return window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[2]


def results(events: list[Event]) -> list[Result]:
    return [e for e in events if isinstance(e, Result)]


def shopper(*turns: str) -> Callable[[str], str]:
    """Makes one call after the other, then says what it has read."""

    def script(window: str) -> str:
        done = after(window).count("<|im_start|>tool") + after(window).count("<tool_response>")
        done = len(re.findall(r"<\|im_start\|>assistant", after(window))) - 1
        return turns[done] if done < len(turns) else "I read: " + after(window)[-60:].replace("<|", "(")

    return script


def run(kernel: Kernel, question: str = "go", **spawn: object) -> tuple[list[Event], str]:
    process = kernel.spawn(grants=["shop"], **spawn)  # type: ignore[arg-type]
    turn = process.ask(question, max_tokens=2000)
    events = list(turn)
    return events, turn.answer


def test_syscalls_stand_in_the_same_order_at_every_boot(scripted_kernel: Make) -> None:
    """A window that is laid out anew has the pages of the one before."""
    kernel = scripted_kernel(lambda _: "", apps={"warehouse": SHOP["shop"], **SHOP})
    first = [Manifest.of(app).app for app in SYSTEM]  # the kernel's own
    own = list(kernel.apps.manifests)[len(first) :]
    assert own == sorted(own) and {"shop", "calculator", "files"} <= set(own)


def test_a_call_runs_and_its_result_is_read(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(shopper("Let me see. " + call("shop.price", item="tea")), apps=SHOP)
    events, answer = run(kernel)
    assert [(e.syscall, e.arguments) for e in events if isinstance(e, Call)] == [
        ("shop.price", {"item": "tea"})
    ]
    (result,) = results(events)
    assert (result.ok, result.text, result.label) == (True, "300", USER)
    assert "300" in answer
    assert "".join(e.text for e in events if hasattr(e, "logprob")).startswith("Let me see. I read:"), (
        "no JSON"
    )
    assert [p.name for p in kernel.apps.ps()] == ["[apps]"]


def test_several_calls_come_back_in_order(scripted_kernel: Make) -> None:
    three = "\n".join(call("shop.price", item="x" * n) for n in (3, 1, 2))
    events, _ = run(scripted_kernel(shopper(three), apps=SHOP))
    assert [r.text for r in sorted(results(events), key=lambda r: r.number)] == ["300", "100", "200"]


@pytest.mark.parametrize("between", ["\n", None], ids=["in one answer", "one after the other"])
def test_a_call_that_is_written_twice_is_made_twice(scripted_kernel: Make, between: str | None) -> None:
    """The same words are no reason to do it once: each call has a key of its own."""
    pay = call("shop.pay", to="bob", cents=5)
    script = shopper(pay, pay) if between is None else shopper(between.join([pay, pay]))
    kernel = scripted_kernel(script, apps=SHOP)
    events, _ = run(kernel, "pay bob 5 cents, and then 5 more")
    assert [r.text for r in results(events)] == ["paid 5 to bob"] * 2
    (notes,) = kernel.state.rglob("notes")
    assert notes.read_text().splitlines() == ["paid bob 5"] * 2
    assert len(list(kernel.state.rglob("paid-*"))) == 2


@pytest.mark.parametrize(
    ("made", "kind", "words"),
    [
        (call("shop.price", item="unicorn"), "AppFailed", "no unicorns"),
        (call("shop.price", item="crash"), "AppUnavailable", ""),
        (call("shop.sleep", seconds=30), "DeadlineExceeded", ""),
    ],
)
def test_what_goes_wrong_in_an_app_is_a_result(
    scripted_kernel: Make, made: str, kind: str, words: str
) -> None:
    kernel = scripted_kernel(shopper(made, call("shop.price", item="tea")), apps=SHOP)
    events, answer = run(kernel)
    bad, good = results(events)
    error = json.loads(bad.text)["error"]
    assert not bad.ok and error["type"] == kind and words in error["message"]
    assert good.text == "300" and "300" in answer, "the app is there again"


def test_what_was_not_granted_cannot_even_be_written(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(shopper(call("shop.pay", to="me", cents=5)), apps=SHOP)
    process = kernel.spawn(grants=["shop.price"])
    events = list(process.ask("go", max_tokens=300))
    assert all(e.syscall == "shop.price" for e in events if isinstance(e, Call))
    plain = kernel.spawn()
    assert not [e for e in plain.ask("go", max_tokens=300) if isinstance(e, Call)]


def test_a_grant_binds_arguments(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(shopper(call("shop.pay", to="eve", cents=5)), apps=SHOP)
    process = kernel.spawn(grants=["shop.pay(to=bob)"])
    (result,) = results(list(process.ask("go", max_tokens=500)))
    assert not result.ok and "CallDenied" in result.text


def tainted(pay_to: str) -> Callable[[str], str]:
    return shopper(call("shop.reviews", item="tea"), call("shop.pay", to=pay_to, cents=500))


def test_a_fooled_model_cannot_pay(scripted_kernel: Make) -> None:
    """The review says whom to pay, the model believes it; nobody approves, nothing is paid."""
    kernel = scripted_kernel(tainted("evil@example.org"), apps=SHOP, hosts=("*",))
    events, _ = run(kernel, "buy tea")
    review, payment = results(events)
    assert review.label.integrity == Integrity.UNTRUSTED
    assert not payment.ok and "not approved" in payment.text
    (asked,) = [e for e in events if isinstance(e, Ask)]
    assert (asked.argument, asked.value) == ("to", "evil@example.org")
    assert not list(kernel.state.rglob("paid-*"))


def test_what_the_user_said_needs_no_approval(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(tainted("bob@example.org"), apps=SHOP, hosts=("*",))
    events, _ = run(kernel, "read the reviews of tea and pay bob@example.org")
    assert not [e for e in events if isinstance(e, Ask)]
    assert results(events)[1].text == "paid 500 to bob@example.org"


def test_an_approval_is_for_the_value_and_is_journalled(scripted_kernel: Make) -> None:
    asked: list[object] = []

    def yes(doubt: Ask) -> bool:
        asked.append(doubt.value)
        return doubt.value == "eve"

    script = shopper(
        call("shop.reviews", item="tea"), call("shop.pay", to="eve", cents=1), call("shop.pay", to="eve", cents=2),
        call("shop.pay", to="mallory", cents=3),
    )  # fmt: skip
    kernel = scripted_kernel(script, apps=SHOP, ask=yes)
    events, _ = run(kernel, "look at tea")
    assert asked == ["eve", "mallory"]
    assert [r.ok for r in results(events)] == [True, True, True, False]
    approvals = [r.body for r in kernel.journal.records(kinds=[Approval])]
    assert [(a.value, a.allowed) for a in approvals if isinstance(a, Approval)] == [
        ("eve", True),
        ("mallory", False),
    ]


def test_an_approval_outlives_a_boot_and_can_be_withdrawn(scripted_kernel: Make, tmp_path: Path) -> None:
    asked: list[object] = []

    def yes(doubt: Ask) -> bool:
        asked.append(doubt.value)
        return True

    def questions(kernel: Kernel) -> list[object]:
        asked.clear()
        assert all(r.ok for r in results(list(kernel.process(1).ask("look at tea", max_tokens=2000))))
        return list(asked)

    def booted(to: str) -> Kernel:
        return scripted_kernel(tainted(to), apps=SHOP, ask=yes, state=tmp_path / "state")

    with booted("eve") as kernel:
        kernel.spawn(grants=["shop"])
        assert questions(kernel) == ["eve"] and questions(kernel) == []
    with booted("mallory") as kernel:
        assert questions(kernel) == ["mallory"], "another value is another question"
    with booted("eve") as kernel:
        assert questions(kernel) == [], "the journal knows it"
        kernel.process(1).withdraw("shop.price")
        assert questions(kernel) == [], "of another syscall"
        kernel.process(1).withdraw()
    with booted("eve") as kernel:
        assert questions(kernel) == ["eve"], "withdrawn is withdrawn, also after a boot"


def test_a_child_has_nobody_s_approval(scripted_kernel: Make) -> None:
    asked: list[object] = []

    def yes(doubt: Ask) -> bool:
        asked.append(doubt.value)
        return True

    kernel = scripted_kernel(tainted("eve"), apps=SHOP, ask=yes)
    process = kernel.spawn(grants=["shop"])
    list(process.ask("look at tea", max_tokens=2000))
    (child,) = process.fork()
    list(child.ask("look at tea", max_tokens=2000))
    assert asked == ["eve", "eve"]


def test_intent_is_durable_before_the_app_runs_and_result_before_it_is_read(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(shopper(call("shop.price", item="tea")), apps=SHOP)
    for event in (turn := kernel.spawn(grants=["shop"]).ask("go", max_tokens=400)):
        kinds = [type(r.body) for r in kernel.journal.records(turn.pid)]
        if isinstance(event, Result):
            assert kinds.index(Intent) < kinds.index(ResultRecord)


def test_a_long_result_is_read_piece_by_piece(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        rest = after(window)
        if "results.read, call 1" not in rest:
            return call("shop.catalogue", pages=20)
        if "item 1999" not in rest:
            done = len(re.findall(r"<\|im_start\|>assistant", rest)) - 1
            return call("results.read", number=1, start=17000 + 1000 * done)
        return "The last is item 1999."

    kernel = scripted_kernel(script, apps=SHOP, window=16384)
    process = kernel.spawn(grants=["shop", "results"])
    turn = process.ask("what is last?", max_tokens=4000)
    events = list(turn)
    assert turn.answer == "The last is item 1999."
    assert len(results(events)[0].text) > 15000, "all of it is kept"


def test_an_app_may_ask_the_model_back(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        if "How many cats?" in window:
            return "7"
        return "There are seven." if "assistant" in after(window)[25:] else call("shop.advise", on="cats")

    kernel = scripted_kernel(script, apps=SHOP)
    process = kernel.spawn(grants=["shop"])
    events = list(process.ask("count the cats", max_tokens=400))
    assert results(events)[0].text == "7"
    assert process.ledger.tokens > len("There are seven."), "the question was charged to the caller"


def test_labels_follow_a_call_into_the_window(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(shopper(call("shop.reviews", item="tea")), apps=SHOP)
    process = kernel.spawn(grants=["shop"])
    list(process.ask("tea?", max_tokens=400))
    assert process.conversation[-1].label.integrity == Integrity.UNTRUSTED
    clean = kernel.spawn(grants=["shop"])
    list(clean.ask("what does it cost?", label=STORE, max_tokens=400))
    assert clean.conversation[-1].label.integrity == UNTRUSTED.integrity


def worker(window: str) -> str:
    """A boss that has two children count, and waits for them."""
    question = re.split(r"<\|im_end|\n\nFunctions", window.rpartition("<|im_start|>user\n")[2])[0]
    if question.startswith("count"):
        return f"{len(question)} letters"
    rest = after(window)
    steps = [call("proc.spawn", task="count a"), call("proc.fork", task="count bb")]
    pids = [int(p) for p in re.findall(r"<\|im_start\|>tool\n(\d+)<", rest)]
    done = len(re.findall(r"<\|im_start\|>assistant", rest)) - 1
    steps += [call("proc.wait", pid=p) for p in pids]
    return steps[done] if done < len(steps) else "They said: " + ", ".join(re.findall(r"\d+ letters", rest))


def test_a_model_at_the_controls(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(worker)
    boss = kernel.spawn(grants=["proc"])
    turn = boss.ask("go", max_tokens=1500)
    events = list(turn)
    assert turn.answer == "They said: 7 letters, 8 letters", [r.text for r in results(events)]


def test_a_process_commands_its_own_only(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(
        shopper(call("proc.kill", pid=1), call("proc.spawn", task="x", grants=["shop"])), apps=SHOP
    )
    other = kernel.spawn()
    assert other.pid == 1
    process = kernel.spawn(grants=["proc"])
    kill, spawn = results(list(process.ask("go", max_tokens=800)))
    assert "NoSuchProcess" in kill.text and other.exit is None
    assert "CallDenied" in spawn.text


def test_a_typed_answer_after_a_call(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        return '{"cents": 300}' if "300" in after(window) else call("shop.price", item="tea")

    kernel = scripted_kernel(script, apps=SHOP)
    turn = kernel.spawn(grants=["shop"]).ask("price of tea?", returns=dict[str, int], max_tokens=500)
    assert turn.value == {"cents": 300}
    cut = kernel.spawn().ask("price?", returns=dict[str, int], max_tokens=3)
    with pytest.raises(AnswerCut, match="max_tokens"):
        _ = cut.value


def test_a_quota_of_calls(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(lambda window: call("shop.price", item="tea"), apps=SHOP)
    process = kernel.spawn(grants=["shop"], quotas={"syscalls": 3})
    seen: list[Event] = []
    with pytest.raises(QuotaExceeded, match="3 syscalls"):
        seen.extend(process.ask("go", max_tokens=3000))
    assert process.wait(10).reason == "syscalls quota exceeded"
    assert len(list(kernel.journal.records(process.pid, kinds=[Intent]))) == 3


def test_calls_that_the_asker_carries_out(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(
        lambda window: "Fine." if "300" in window else "Hm. " + call("shop.price", item="tea")
    )
    tools = Manifest.of(Shop).syscalls
    process = kernel.spawn()
    turn = process.ask("price of tea?", tools=tools, max_tokens=500)
    done = turn.result
    assert (done.reason, done.answer) == ("calls", "Hm.")
    assert [(c.syscall, c.arguments) for c in done.calls] == [("shop.price", {"item": "tea"})]
    messages = [
        Message.of("user", "price of tea?"),
        Message("assistant", (Part("assistant", "Hm. "),), done.calls),
        Message("tool", (Part("result", "300", UNTRUSTED),)),
    ]
    assert process.ask(messages=messages, tools=tools).answer == "Fine."
    none = process.ask("price?", tools=tools, tool_choice="none").result
    assert none.reason == "stop" and none.calls == () and "<tool_call>" not in none.answer
    forced = process.ask("hello 300", tools=tools, tool_choice="shop.reviews", max_tokens=300)
    assert forced.reason in ("calls", "length") and all(
        c.syscall == "shop.reviews" for c in forced.result.calls
    )
    with pytest.raises(ConfigError, match="no tool"):
        process.ask("hello", tools=tools, tool_choice="shop.hours")
