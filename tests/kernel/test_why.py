"""What an answer stood on: told again with a stretch of the window masked; on a tiny model, and behind the socket."""

from __future__ import annotations

from collections.abc import Callable
from math import isclose

import pytest

from llmos.abi.errors import ProcessError
from llmos.kernel.engine.sequence import Request
from llmos.kernel.kernel import Kernel
from llmos.kernel.lastturn import bursts
from llmos.kernel.why import Told
from llmos.testing import call

Make = Callable[..., Kernel]
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def test_the_words_get_the_probability_that_they_had(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn(instructions="Speak.")
    turn = process.ask("Say something, please.", max_tokens=24)
    drawn = [e.logprob for e in turn if getattr(e, "logprob", None) is not None]
    why = kernel.why(process.pid)
    assert (why.turn, why.tokens) == (1, 24)
    assert isclose(why.logprob, sum(drawn), abs_tol=1e-4), (
        "told again, the same words are as likely as when drawn"
    )
    assert [one.region.kind for one in why.influences] == [region.kind for region in kernel.pmap(process.pid)]
    asked = next(one for one in why.influences if "Say something" in one.text)
    assert asked.text == "Say something, please.", "the template's frame stays"
    assert asked.logprob != why.logprob


def test_what_is_masked_is_not_read(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn()
    process.ask("Say something, please.", max_tokens=12).result
    (burst,) = bursts(kernel, process)
    why = kernel.why(process.pid)
    (at,) = [n for n, one in enumerate(why.influences) if "Say something" in one.text]
    region = why.influences[at].region
    text = b"Say something, please."
    window = bytes(t if t < 256 else 0 for t in burst.layout.tokens)
    begin = window.index(text, region.start)
    masked = burst.layout.tokens[:begin] + burst.layout.tokens[begin + len(text) :]
    request = Request(tokens=masked, max_tokens=12, grammar=Told(burst.tokens), draft=0)
    slowly = sum(item.logprob or 0.0 for item in kernel.engine.submit(request))
    assert isclose(why.influences[at].logprob, slowly, abs_tol=1e-4), "one word at a time, without hints"


def test_passed_words_and_what_came_next(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    process = kernel.spawn()
    with pytest.raises(ProcessError, match="nothing is known"):
        kernel.why(process.pid)
    process.ask("Hello?", max_tokens=5).result
    passed = kernel.passed(process.pid)
    assert "<|im_start|>user\nHello?" in "".join(p.text for p in passed), "special words are shown"
    assert [p.answer for p in passed].count(True) == 1 and passed[-1].answer
    rows = kernel.next_distribution("", 5, process.pid)
    assert len(rows) == 5 and 0 < sum(share for _, share in rows) <= 1
    assert rows != kernel.next_distribution("x", 5, process.pid)


def test_a_call_stood_on_something_too(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        return "Done." if "tool" in window.rpartition("user\n")[2] else call("shop.price", item="tea")

    kernel = scripted_kernel(script, apps=SHOP)
    process = kernel.spawn(grants=["shop"])
    process.ask("price?", max_tokens=200).result
    assert kernel.why(process.pid).text == "Done."
    why = kernel.why(process.pid, call=True)
    assert "shop.price" in why.text and why.text.startswith("<tool_call>")
    assert "result" not in {one.region.kind for one in why.influences}, "it was written before"
    kinds = [p.region.kind for p in kernel.passed(process.pid)]
    assert kinds[-3:] == ["assistant", "result", "assistant"] or "result" in kinds
