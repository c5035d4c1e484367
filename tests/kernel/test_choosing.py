"""Who must call chooses among what values in the question ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.abi.events import Call
from llmos.kernel import choice
from llmos.kernel.choice import Choice
from llmos.kernel.kernel import Kernel
from llmos.testing import call


@pytest.mark.parametrize(("question", "made"), [("What is 17*23?", []), ("And how much?", ["shop.price"])])
def test_a_required_call_is_one_that_a_value_asks_for(
    scripted_kernel: Callable[..., Kernel], monkeypatch: pytest.MonkeyPatch, question: str, made: list[str]
) -> None:
    weights = Choice(opening=0.3, name=4.0, description=4.0, number=0.0, threshold=1.9, words=1.9)
    monkeypatch.setitem(choice._CHOICES, "scripted", weights)
    kernel = scripted_kernel(
        lambda window: call("shop.price", item="tea"), apps={"shop": {"app": "tests.kernel.shop:Shop"}}
    )
    turn = kernel.spawn(grants=["shop", "calculator"]).ask(question, tool_choice="required", max_tokens=100)
    assert [event.syscall for event in turn if isinstance(event, Call)] == made
