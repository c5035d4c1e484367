"""Turns that think, over a model that draws among answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.think import Held
from llmos.abi import wire
from llmos.abi.errors import ConfigError, TurnRefused
from llmos.abi.events import Done, Token
from llmos.attach import attach
from llmos.kernel.gate import Gate
from llmos.kernel.journal.records import Asked, Considered, Finished, Sampled, Started
from llmos.kernel.kernel import Kernel
from llmos.kernel.think import BestOf, Judge, Revise, SelfConsistency, Think, Tree
from tests.kernel.think.conftest import let_go

Make = Callable[..., Kernel]
QUESTION = "What is 6 times 7?"


def split(_: str) -> list[str]:
    """The plain answer is wrong; most answers are right."""
    return ["It is 40.", "It is 42.", "That is 42.", "So 42.", "Well, 42."]


def always(answer: str) -> Callable[[str], list[str]]:
    return lambda _: [answer]


def test_an_easy_question_costs_its_plain_answer(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(always("It is 4."))
    plain = kernel.spawn().ask("What is 2+2?")
    turn = kernel.spawn().ask("What is 2+2?", think="64x")
    assert turn.answer == plain.answer == "It is 4."
    assert turn.usage.thinking_tokens == plain.usage.completion_tokens
    assert turn.usage.completion_tokens == plain.usage.completion_tokens
    assert turn.tree is not None and (turn.tree.strategy, len(turn.tree.thoughts)) == ("plain", 1)
    assert turn.confidence == 1.0
    assert plain.confidence is None and plain.tree is None and plain.usage.thinking_tokens == 0
    assert let_go(kernel)


def test_what_most_answers_come_to_is_told_and_agreement_stops_early(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split)
    process = kernel.spawn()
    turn = process.ask(QUESTION, think=SelfConsistency(budget="200x"))
    tokens = "".join(e.text for e in turn if isinstance(e, Token))
    assert turn.answer == tokens.strip() and "42" in turn.answer
    tree = turn.tree
    assert tree is not None and tree.why == "the answers agree"
    assert 5 < len(tree.thoughts) < 60 and tree.tokens < 60 * 10
    assert tree.tokens == turn.usage.thinking_tokens == process.ledger.tokens
    (chosen,) = [t for t in tree.thoughts if t.state == "chosen"]
    assert chosen.answer == "42" and tree.thoughts[0].answer == "40"
    assert turn.confidence is not None and 0.5 < turn.confidence < 1
    assert process.conversation[-1].answer == turn.answer
    assert let_go(kernel)


def test_the_same_seed_thinks_the_same(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split)

    def thoughts(seed: int) -> list[str]:
        turn = kernel.spawn().ask(QUESTION, think=SelfConsistency(budget=300, sure=1.0), seed=seed)
        assert turn.tree is not None
        return [t.text for t in turn.tree.thoughts]

    assert thoughts(1) == thoughts(1) != thoughts(2)


@pytest.mark.parametrize("think", [60, 200, "1x", "4x"])
@pytest.mark.parametrize("strategy", [SelfConsistency, Tree, Revise, Think])
def test_the_budget_is_respected(drawing_kernel: Make, strategy: type[Think], think: str | int) -> None:
    kernel = drawing_kernel(
        lambda _: [f"{word} it is {n}." for word in ("Well", "So", "Perhaps") for n in range(40, 60)]
    )
    turn = kernel.spawn().ask(QUESTION, think=strategy(budget=think))
    assert turn.tree is not None and turn.answer
    plain = turn.tree.thoughts[0].tokens
    limit = think if isinstance(think, int) else int(think[:-1]) * plain
    assert turn.tree.tokens <= max(limit, plain)
    if think == "1x":
        assert len(turn.tree.thoughts) == 1
    assert let_go(kernel)


def test_the_deadline_ends_what_would_go_on_for_ever(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(lambda _: [f"{n} " + "and so on " * 700 for n in range(20)], step_s=0.02)
    turn = kernel.spawn().ask("Count.", think="2s", max_tokens=6000)
    assert 0 < len(turn.answer) < 6000 and turn.reason == "length"
    assert turn.timings.total_s < 60  # the whole would take two minutes
    assert let_go(kernel)


def test_a_time_is_used_and_kept(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split, step_s=0.002)
    turn = kernel.spawn().ask(QUESTION, think=SelfConsistency(budget="3s", sure=1.0))
    assert turn.tree is not None and turn.tree.why == "the budget is used up" and len(turn.tree.thoughts) > 3
    assert "42" in turn.answer


def test_one_can_stop_it_and_has_the_best_so_far(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split, step_s=0.002)
    process = kernel.spawn()
    turn = process.ask(QUESTION, think=SelfConsistency(budget="10m", sure=1.0), detached=True)
    end = time.monotonic() + 60
    while process.ledger.tokens < 200:
        assert time.monotonic() < end
        time.sleep(0.01)
    turn.cancel()
    assert turn.reason == "cancelled" and turn.tree is not None and turn.tree.why == "it was stopped"
    assert turn.answer
    assert let_go(kernel)


def test_the_model_judges_itself(drawing_kernel: Make) -> None:
    def replies(window: str) -> list[str]:
        asked = window.rpartition("<|im_start|>user")[2] if "<|im_start|>user" in window else window
        if "correct?" in asked:
            return ["y"] * 9 + ["n"] if "Paris" in window else ["n"] * 9 + ["y"]
        return ["Rome.", "Paris.", "Oslo."]

    kernel = drawing_kernel(replies)
    turn = kernel.spawn().ask("Which capital?", think=BestOf(budget="60x", verifier=Judge()))
    assert turn.answer == "Paris."


def test_a_typed_answer_is_thought_about_in_words(drawing_kernel: Make) -> None:
    def replies(window: str) -> list[str]:
        aside, then = (
            "Let me think step by step.\nIt is 6 * 7.",
            "\n\nThe answer, in the form that was asked for:\n42",
        )
        return ["40", aside + then, *[aside] * 30]

    kernel = drawing_kernel(replies)
    turn = kernel.spawn().ask(QUESTION, returns=int, think=SelfConsistency(budget=2000))
    assert turn.value == 42 and turn.answer == "42"
    assert turn.usage.completion_tokens == 2
    assert turn.tree is not None and turn.tree.thoughts[0].answer == "40"


def test_what_cannot_be_thought_about_is_refused(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split)
    process = kernel.spawn()
    with pytest.raises(ConfigError, match="no budget"):
        process.ask(QUESTION, think="soon")
    with pytest.raises(TurnRefused, match="thought about"):
        process.ask("Once upon", raw=True, think="4x")
    assert process.ask(QUESTION).answer == "It is 40.", "a refused question leaves the process free"


def test_a_quota_ends_thinking_and_the_answer_is_told(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split)
    process = kernel.spawn(quotas={"tokens": 120})
    turn = process.ask(QUESTION, think=SelfConsistency(budget="500x", sure=1.0))
    assert turn.answer and turn.usage.thinking_tokens <= 130
    assert let_go(kernel)


def test_an_answer_that_did_not_fit_its_limit_says_so(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(always("word " * 60))
    turn = kernel.spawn().ask("Say something.", think="8x", max_tokens=20)
    assert turn.reason == "length" and turn.usage.completion_tokens == 20
    assert let_go(kernel)


def test_it_is_journalled_before_it_is_told_and_crosses_a_socket(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(split)
    process = kernel.spawn()
    turn = process.ask(QUESTION, think="40x")
    done = turn.result
    kinds = [type(r.body) for r in kernel.journal.records(process.pid)]
    kinds = [k for k in kinds if k in (Asked, Started, Considered, Sampled, Finished)]
    assert kinds == [Asked, Started, Considered, Sampled, Finished]
    back = wire.load_event(wire.dump_event(done))
    assert isinstance(back, Done) and back == done and back.tree is not None
    replayed = kernel.replay(process.pid)
    assert replayed.divergence is None and "thought about" in replayed.notes[0]


def test_a_turn_that_was_cut_off_while_it_thought_thinks_again(drawing_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "state"
    kernel = drawing_kernel(split, state=state, step_s=0.005)
    process = kernel.spawn()
    process.ask(QUESTION, think=SelfConsistency(budget=3000, sure=1.0), detached=True)
    end = time.monotonic() + 60
    while process.ledger.tokens < 60:
        assert time.monotonic() < end
        time.sleep(0.01)
    kernel.close()
    again = drawing_kernel(split, state=state)
    process = again.process(process.pid)
    done = process.current.result if process.current is not None else None
    assert len(process.conversation) == 1 and "42" in process.conversation[-1].answer
    assert done is None or "42" in done.answer
    considered = [r for r in again.journal.records(process.pid) if isinstance(r.body, Considered)]
    assert len(considered) == 1


def test_a_turn_that_was_cut_off_while_it_told_tells_the_rest(drawing_kernel: Make, tmp_path: Path) -> None:
    state, tail = tmp_path / "state", " and so on" * 50

    def replies(_: str) -> list[str]:
        return [f"It is {n}.{tail} 42" for n in range(9)]

    kernel = drawing_kernel(replies, state=state)
    process = kernel.spawn()
    turn = process.ask(QUESTION, think="6x", seed=5)  # nobody reads: more than may stand unread
    end = time.monotonic() + 60
    while not any(isinstance(r.body, Sampled) for r in kernel.journal.records(process.pid)):
        assert time.monotonic() < end
        time.sleep(0.01)
    (chosen,) = [r.body for r in kernel.journal.records(process.pid) if isinstance(r.body, Considered)]
    kernel.close()
    del turn
    again = drawing_kernel(replies, state=state)
    process = again.process(process.pid)
    if process.current is not None:
        assert process.current.answer
    words = again.tokenizer.decode(chosen.tokens)
    assert process.conversation[-1].answer == words
    assert len([r for r in again.journal.records(process.pid) if isinstance(r.body, Considered)]) == 1


def test_the_next_question_reads_the_chosen_answer_only(drawing_kernel: Make) -> None:
    seen: list[str] = []

    def replies(window: str) -> list[str]:
        seen.append(window)
        return split(window)

    kernel = drawing_kernel(replies)
    process = kernel.spawn()
    answer = process.ask(QUESTION, think="40x").answer
    process.ask("And now?").result
    assert answer in seen[-1] and seen[-1].count("It is 40.") == 0


def test_branches_share_a_budget_and_are_cut_alike(drawing_kernel: Make) -> None:
    """What is written hangs on the words alone: one step at a time or many, alone or beside others."""
    said = [f"{n} " + "goes on " * n for n in range(12)]

    def run(others: int) -> list[tuple[str, int, str]]:
        kernel = drawing_kernel(lambda _: said, step_s=0.001)
        beside = [kernel.spawn(seed=90 + n).ask("Go.", temperature=1.0, detached=True) for n in range(others)]
        turn = kernel.spawn().ask("Go on.", think=SelfConsistency(budget=300, sure=1.0), seed=4)
        assert turn.tree is not None and turn.tree.tokens <= 300
        assert all(other.answer for other in beside)
        return [(t.text, t.tokens, t.state) for t in turn.tree.thoughts]

    assert run(0) == run(5)


def test_it_is_the_same_from_another_process(drawing_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "machine"
    kernel = drawing_kernel(split, state=state / "kernel")
    here = kernel.spawn().ask(QUESTION, think="40x", seed=7).result
    with Gate(kernel):
        client = attach(state)
        assert client is not None
        with client:
            process = client.spawn()
            there = process.ask(QUESTION, think="40x", seed=7).result
            assert there.answer == here.answer and there.confidence == here.confidence
            assert there.tree is not None and here.tree is not None
            assert [t.text for t in there.tree.thoughts] == [t.text for t in here.tree.thoughts]
            with pytest.raises(ConfigError, match="no budget"):
                process.ask(QUESTION, think="soon")
            way = Tree(budget=300, branch=2)
            assert process.ask(QUESTION, think=way).tree is not None


def test_forks_of_a_long_window_share_its_pages(drawing_kernel: Make) -> None:
    kernel = drawing_kernel(
        lambda _: [f"{word} it is {n}." for word in ("Well", "So") for n in range(40, 60)]
    )
    watch = Held()
    watch.engine, kernel.engine._trace = kernel.engine, watch
    text = " ".join(f"Item {n} costs {n * 7 % 90} dollars." for n in range(80))
    turn = kernel.spawn().ask(f"{text} What do they cost?", think=SelfConsistency(budget="33x", sure=1.0))
    assert turn.usage.prompt_tokens > 1900 and turn.tree is not None and len(turn.tree.thoughts) > 16
    assert watch.copies > 10 * turn.usage.prompt_tokens / 16, "ten branches and more stood side by side"
    assert watch.distinct <= 0.12 * watch.copies
    assert let_go(kernel)


def test_a_real_decoder_thinks_the_same_alone_and_beside_others(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()

    def thoughts(others: int) -> list[tuple[str, int]]:
        beside = [kernel.spawn().ask(f"{n} and so on", max_tokens=20, detached=True) for n in range(others)]
        way = Tree(budget=160, branch=2, beam=2, length=12, hopeless=0.0)
        turn = kernel.spawn().ask("What comes next?", think=way, max_tokens=24, seed=3)
        assert turn.tree is not None and turn.tree.tokens <= 160 and turn.confidence is not None
        assert all(other.result for other in beside)
        return [(t.text, t.tokens) for t in turn.tree.thoughts]

    alone = thoughts(0)
    assert len(alone) > 3 and alone == thoughts(3)
    assert let_go(kernel)
