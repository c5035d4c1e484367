"""Turns of a model that was measured: they call or answer in words as the question says, with what was said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Call, PageIn, Result
from llmos.abi.labels import UNTRUSTED
from llmos.abi.manifest import Syscall
from llmos.kernel import choice
from llmos.kernel.calling import MAX_FAILED
from llmos.kernel.choice import Choice
from llmos.kernel.kernel import Kernel
from llmos.kernel.prompt import Message, Part
from llmos.kernel.telling import AGAIN, TELL
from llmos.testing import call
from tests.kernel.pace import slowed

Make = Callable[..., Kernel]
FIND = Syscall(
    name="shop.find", tool="find", description="Find an item in the shop.",
    parameters={
        "type": "object", "additionalProperties": False, "required": ["item"],
        "properties": {"item": {"type": "string"}, "limit": {"type": "integer"}, "price": {"type": "number"}},
    },
    effect="none", retry="safe", returns="user", deadline=1.0,
)  # fmt: skip
RELEVANT, OTHER = "Find me the item Green Tea in the shop", "Who wrote Faust?"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Choice(opening=0.3, name=4.0, description=4.0, number=0.0, threshold=1.9, words=1.9)
    monkeypatch.setitem(choice._CHOICES, "scripted", weights)


def caller(window: str) -> str:
    return call("shop.find", item="Tea", limit=10)


def asked(kernel: Kernel, question: str, **options: Any) -> Any:
    return kernel.spawn().ask(question, tools=[FIND], max_tokens=200, **options).result


@pytest.mark.usefixtures("measured")
def test_a_question_that_fits_is_called_with_what_was_said(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(caller)
    for _ in range(2):  # a turn is a function of its window
        (made,) = asked(kernel, RELEVANT).calls
        assert (made.syscall, made.arguments) == ("shop.find", {"item": "Green Tea"})


@pytest.mark.usefixtures("measured")
def test_a_question_that_does_not_fit_is_answered_in_words(scripted_kernel: Make) -> None:
    done = asked(scripted_kernel(caller), OTHER)
    assert done.reason in ("stop", "length") and not done.calls
    assert "<tool_call" not in done.answer


@pytest.mark.usefixtures("measured")
def test_who_must_call_calls_whatever_was_asked(scripted_kernel: Make) -> None:
    (made,) = asked(scripted_kernel(caller), OTHER, tool_choice="required").calls
    assert made.arguments == {"item": "Tea"}


@pytest.mark.usefixtures("measured")
def test_pages_of_the_choice_are_not_counted_as_found(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(caller)
    assert asked(kernel, RELEVANT).usage.cached_tokens == 0
    assert asked(kernel, RELEVANT).usage.cached_tokens > 0


def test_a_model_that_nobody_measured_is_free(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(caller)
    for question in (RELEVANT, OTHER):
        (made,) = asked(kernel, question).calls
        assert made.arguments == {"item": "Tea", "limit": 10}


@pytest.mark.usefixtures("measured")
def test_what_earlier_answers_and_results_said_counts(scripted_kernel: Make) -> None:
    said = iter(["You may see 10 of them."])

    def script(window: str) -> str:
        return next(said, None) or caller(window)

    process = scripted_kernel(script).spawn()
    assert process.ask("How many may I see?").answer == "You may see 10 of them."
    (made,) = process.ask(RELEVANT, tools=[FIND], max_tokens=200).result.calls
    assert made.arguments == {"item": "Green Tea", "limit": 10}


@pytest.mark.usefixtures("measured")
def test_a_turn_that_has_its_results_answers_in_words(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(
        lambda window: call("shop.price", item="tea"), apps={"shop": {"app": "tests.kernel.shop:Shop"}}
    )
    turn = kernel.spawn(grants=["shop"]).ask(
        "What is the price of an item called tea in the shop?", max_tokens=200
    )
    assert [type(e).__name__ for e in turn if isinstance(e, Call | Result)] == ["Call", "Result"]
    assert turn.result.usage.syscalls == 1


@pytest.mark.usefixtures("measured")
def test_a_turn_calls_on_what_the_question_still_speaks_of(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        if "is great!" in window:
            return "It costs 300 and is said to be great."
        return call("shop.reviews", item="tea") if "300" in window else call("shop.price", item="tea")

    kernel = scripted_kernel(script, apps={"shop": {"app": "tests.kernel.shop:Shop"}})
    turn = kernel.spawn(grants=["shop"]).ask(
        "What is the price in cents of an item called tea, and what reviews do strangers say of it?",
        max_tokens=300,
    )
    calls = [e.syscall for e in turn if isinstance(e, Call)]
    assert calls == ["shop.price", "shop.reviews"]
    assert turn.answer == "It costs 300 and is said to be great."


@pytest.mark.usefixtures("measured")
def test_how_often_is_for_the_model_to_write(scripted_kernel: Make) -> None:
    """Both of two calls of one answer are made. Behind results the same syscall is not offered again: nobody but the
    question's words could ask for it, and "pay twice the price" means one payment."""
    pay = call("shop.pay", to="bob", cents=5)
    scripts = {2: f"{pay}\n{pay}", 1: pay}
    for times, written in scripts.items():
        kernel = scripted_kernel(
            lambda _, written=written: written, apps={"shop": {"app": "tests.kernel.shop:Shop"}}
        )
        question = "In the shop, pay somebody called bob twice, 5 cents each time."
        turn = kernel.spawn(grants=["shop"]).ask(question, max_tokens=400)
        assert [e.ok for e in turn if isinstance(e, Result)] == [True] * times


@pytest.mark.usefixtures("measured")
def test_what_an_answer_in_words_stands_on_is_looked_up_once(
    scripted_kernel: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "poets.txt").write_text("Goethe wrote Faust, in Weimar.\n")
    kernel = scripted_kernel(lambda _: "Goethe [1].", apps={"shop": {"app": "tests.kernel.shop:Shop"}})
    process = kernel.spawn(grants=["shop"], mounts=[tmp_path / "poets.txt"])
    search, looked = kernel.library.search, list[str]()

    def spy(question: str, *more: Any) -> Any:
        looked.append(question)
        return search(question, *more)

    monkeypatch.setattr(kernel.library, "search", spy)
    turn = process.ask(OTHER, max_tokens=200)
    assert len([e for e in turn if isinstance(e, PageIn)]) == 1
    assert "shop.price" not in "".join(p.text for p in kernel.passed(process.pid)), (
        "it was laid out for words"
    )
    assert looked == [OTHER]


@pytest.mark.usefixtures("measured")
def test_a_window_for_words_has_no_syscall_table(scripted_kernel: Make, tmp_path: Path) -> None:
    """And keeps none when the turn goes on after a crash."""
    read: list[str] = []

    def script(window: str) -> str:
        read.append(window)
        return "Goethe. " * 500

    shop: dict[str, Any] = {"apps": {"shop": {"app": "tests.kernel.shop:Shop"}}, "state": tmp_path / "state"}
    kernel = slowed(scripted_kernel(script, **shop))
    process = kernel.spawn(grants=["shop"])
    events = iter(process.ask(OTHER, max_tokens=4000, detached=True))
    next(events)  # and thousands to come
    assert "shop.price" in read[0] and "shop.price" not in read[-1] and OTHER in read[-1]
    process.signal("STOP")
    kernel.close()
    read.clear()
    again = scripted_kernel(script, **shop)
    resumed = again.process(process.pid)
    current = resumed.current
    assert current is not None, "it stands where it stood"
    resumed.signal("CONT")
    assert current.answer.startswith("Goethe.") and "shop.price" not in "".join(read)
    assert again.replay(process.pid).divergence is None, "and comes again"


@pytest.mark.usefixtures("measured")
def test_the_model_is_told_to_tell_the_last_result(scripted_kernel: Make) -> None:
    windows: list[str] = []

    def script(window: str) -> str:
        windows.append(window)
        return "It is 300." if "300" in window else call("shop.price", item="tea")

    kernel = scripted_kernel(script, apps={"shop": {"app": "tests.kernel.shop:Shop"}})
    turn = kernel.spawn(grants=["shop"]).ask("What is the price of an item called tea?", max_tokens=200)
    assert turn.answer == "It is 300."
    told = TELL.strip()
    assert told in windows[-1] and windows[-1].index("300") < windows[-1].index(told)
    assert told not in turn.answer


def tries(scripted_kernel: Make, *written: str) -> tuple[list[Result], str]:
    """What came of the calls of a turn whose model writes one of these after each result, and what it read last."""
    windows: list[str] = []

    def script(window: str) -> str:
        windows.append(window)
        return written[min(window.count("<|im_start|>tool"), len(written) - 1)]

    kernel = scripted_kernel(script, apps={"shop": {"app": "tests.kernel.shop:Shop"}})
    process = kernel.spawn(grants=["shop"])
    turn = process.ask("What is the price of an item called tea in the shop?", max_tokens=900)
    results = [e for e in turn if isinstance(e, Result)]
    assert turn.result.usage.syscalls == len(results)
    assert kernel.replay(process.pid).divergence is None, "the window alone decides it"
    return results, max(windows, key=len)


WRONG, RIGHT = call("shop.price", item="unicorn"), call("shop.price", item="tea")


@pytest.mark.usefixtures("measured")
def test_behind_an_error_another_call_is_made(scripted_kernel: Make) -> None:
    results, window = tries(scripted_kernel, WRONG, RIGHT, "It costs 3.")
    assert [(r.ok, r.text == "300") for r in results] == [(False, False), (True, True)]
    assert window.index("no unicorns") < window.index(AGAIN.strip()) < window.index(TELL.strip())


@pytest.mark.usefixtures("measured")
def test_behind_an_error_something_else_may_be_looked_up_first(scripted_kernel: Make) -> None:
    results, _ = tries(scripted_kernel, WRONG, call("shop.picture"), RIGHT, "It costs 3.")
    assert [r.syscall for r in results] == ["shop.price", "shop.picture", "shop.price"] and results[2].ok


@pytest.mark.usefixtures("measured")
def test_a_call_that_failed_is_not_made_again(scripted_kernel: Make) -> None:
    results, window = tries(scripted_kernel, WRONG, WRONG, "There are none.")
    assert [r.ok for r in results] == [False, False] and "not made again" in results[1].text
    assert window.index("not made again") < window.index(TELL.strip()), (
        "what is the same the next time is told"
    )


@pytest.mark.usefixtures("measured")
def test_calls_that_fail_come_to_an_end(scripted_kernel: Make) -> None:
    wrong = [call("shop.price", item=f"{colour} unicorn") for colour in ("red", "grey", "blue", "pink")]
    results, window = tries(scripted_kernel, *wrong)
    assert [r.ok for r in results] == [False] * (MAX_FAILED + 1)
    assert window.count(AGAIN.strip()) == MAX_FAILED and TELL.strip() in window


@pytest.mark.usefixtures("measured")
def test_what_was_to_be_paid_is_not_tried_again(scripted_kernel: Make) -> None:
    results, window = tries(scripted_kernel, call("shop.pay", to="nobody", cents=3), RIGHT)
    assert results[0].syscall == "shop.pay" and not results[0].ok and AGAIN.strip() not in window


@pytest.mark.usefixtures("measured")
def test_what_was_surely_not_paid_is_tried_again(scripted_kernel: Make) -> None:
    nothing, something = (call("shop.pay", to="bob", cents=cents) for cents in (0, 5))
    results, window = tries(scripted_kernel, nothing, something, "Paid.")
    assert [r.ok for r in results[:2]] == [False, True] and '"BadArguments"' in results[0].text
    assert AGAIN.strip() in window


@pytest.mark.usefixtures("measured")
def test_the_syscall_that_an_error_names_is_called(scripted_kernel: Make) -> None:
    results, _ = tries(
        scripted_kernel, call("shop.price", item="secret"), call("shop.reviews", item="tea"), "Great."
    )
    assert [r.syscall for r in results[:2]] == ["shop.price", "shop.reviews"]
    results, _ = tries(scripted_kernel, call("shop.price", item="secret"), RIGHT, "It costs 3.")
    assert [r.syscall for r in results[:2]] == ["shop.price", "shop.reviews"], "and nothing else"


def answered(scripted_kernel: Make, said: str, **arguments: Any) -> str:
    """The answer of a turn whose model calls, and then says this."""
    kernel = scripted_kernel(
        lambda window: said if TELL.strip() in window else call("shop.price", **arguments),
        apps={"shop": {"app": "tests.kernel.shop:Shop"}},
    )
    process = kernel.spawn(grants=["shop.price"])
    answer: str = process.ask("What is the price of an item called tea in the shop?", max_tokens=900).answer
    assert kernel.replay(process.pid).divergence is None, "the window alone decides it"
    return answer


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("It costs 300 cents.", "It costs 300 cents."),
        ("It costs 3.", "It costs 3.\n\n> 300"),
        ("Tea has a price in the shop.", "Tea has a price in the shop.\n\n> 300"),
    ],
)
def test_an_answer_holds_the_result(scripted_kernel: Make, said: str, answer: str) -> None:
    assert answered(scripted_kernel, said, item="tea") == answer


@pytest.mark.usefixtures("measured")
def test_an_answer_does_not_hide_that_its_calls_failed(scripted_kernel: Make) -> None:
    told = answered(scripted_kernel, "It costs 300 cents.", item="unicorn")
    assert told.startswith("I could not do it: ") and "no unicorns" in told and "300" not in told


TALK = [Message.of("user", "I like Green Tea."), Message.of("assistant", "So do I.")]


@pytest.mark.usefixtures("measured")
def test_a_conversation_is_judged_by_its_last_question(scripted_kernel: Make) -> None:
    kernel = scripted_kernel(caller)
    find = Message.of("user", "Find me the item Tea in the shop, 10 of them")
    (made,) = asked(kernel, "", messages=[*TALK, find]).calls
    assert made.arguments == {"item": "Tea", "limit": 10}
    assert not asked(kernel, "", messages=[find, TALK[1], Message.of("user", OTHER)]).calls
    (made,) = asked(kernel, "", messages=[*TALK, Message.of("user", "Find me the item in the shop")]).calls
    assert made.arguments == {"item": "Tea"}, "a limit that nobody named is left out"


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("parts", [(), (Part("assistant", ""),)])
def test_a_conversation_that_has_its_results_is_answered_in_words(
    scripted_kernel: Make, parts: tuple[Part, ...]
) -> None:
    made = Call(1, "shop.find", {"item": "Tea"})
    result = Message("tool", (Part("result", "Green Tea, 3 EUR", UNTRUSTED),))
    messages = [Message.of("user", RELEVANT), Message("assistant", parts, (made,)), result]
    done = asked(scripted_kernel(lambda window: "It is there."), "", messages=messages)
    assert (done.answer, done.calls) == ("It is there.", ())
