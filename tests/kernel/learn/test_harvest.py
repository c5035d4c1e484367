"""What people marked becomes rows; what they did not mark, or may not be learnt from, never does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.errors import BadExamples
from llmos.abi.labels import UNTRUSTED
from llmos.abi.mount import Mount
from llmos.kernel.engine.scripted import byte_tokenizer, chat_template
from llmos.kernel.grounding import question_text
from llmos.kernel.journal.records import Finished
from llmos.kernel.kernel import Kernel
from llmos.kernel.learn import harvest as module
from llmos.kernel.learn.data import read_rows
from llmos.kernel.learn.harvest import Consent, Harvest, harvest, journals, write
from llmos.kernel.prompt import ChatPrompt
from llmos.testing import call

Make = Callable[..., Kernel]
SHOP = {"shop": {"app": "tests.kernel.shop:Shop"}}


def script(window: str) -> str:
    question, _, rest = window.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")
    if question == "shop" and rest.count("<|im_start|>assistant") == 1:
        return call("shop.price", item="tea")
    if question == "two":
        return "right" if "<|im_start|>user\nthe first" in window else "left"
    return f"You said {question}."


def of(folder: Path, **consent: Any) -> Harvest:
    tokenizer = byte_tokenizer()
    prompt = ChatPrompt(tokenizer, chat_template())
    return harvest([folder], prompt, tokenizer, Consent(**consent))


def test_only_what_was_marked_is_a_row(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(script, state=tmp_path) as kernel:
        p = kernel.spawn(instructions="Be short.", expert="librarian")
        for question in ("one", "two", "three", "four"):
            p.ask(question).result
        p.correct(2, "You said it twice.")
        p.good(3)
        p.bad(4)
    found = of(tmp_path)
    correct, good = found.rows
    assert (
        correct.right == "You said it twice." and correct.wrong == "left" and good.right == "You said three."
    )
    assert [m["content"] for m in correct.asked] == ["Be short.", "one", "You said one.", "two"]
    assert (correct.pid, correct.turn, correct.expert, correct.mark) == (p.pid, 2, "librarian", "correct")
    assert found.bad == 1 and not found.left_out
    assert of(tmp_path, expert="librarian").rows == found.rows and not of(tmp_path, expert="another").rows
    files = write(found, tmp_path / "rows.jsonl")
    (first, _) = read_rows(files[0])
    assert first.fields["provenance"]["instead_of"] == "left" and len(files) == 1
    assert "T" in first.fields["provenance"]["when"] and first.fields["provenance"]["label"] == [2, None]


def test_a_mark_may_be_taken_back_and_left_out(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(script, state=tmp_path) as kernel:
        p = kernel.spawn()
        p.ask("one").result
        p.good(1)
        p.bad(1)
        p.ask("other").result
        p.correct(2, "Another.")
    assert [row.turn for row in of(tmp_path).rows] == [2]
    assert not of(tmp_path, left_out={(p.pid, 2)}).rows and not of(tmp_path, left_out={(p.pid, 0)}).rows
    assert of(tmp_path, left_out={(p.pid, 0)}).left_out == (
        (f"turn 2 of process {p.pid}", "its user left it out"),
    )


def test_a_mark_of_a_turn_that_was_never_answered_is_told(
    scripted_kernel: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted_kernel(script, state=tmp_path) as kernel:
        p = kernel.spawn(expert="librarian")
        assert p.ask("one").answer
        p.correct(1, "Another.")
    records = [r for r in module.read(tmp_path) if not isinstance(r.body, Finished)]  # killed before it began
    monkeypatch.setattr(
        module, "read", lambda folder, kinds: [r for r in records if isinstance(r.body, kinds)]
    )
    found = of(tmp_path, expert="librarian")
    assert not found.rows
    assert found.left_out == (
        (f"turn 1 of process {p.pid}", "the journal does not hold the turn (any more)"),
    )
    assert not of(tmp_path, expert="another").left_out


def test_a_fork_picked_over_another_is_a_pair(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(script, state=tmp_path) as kernel:
        p = kernel.spawn()
        p.ask("hello").result
        q, r, s = p.fork(3)
        q.ask("the first").result
        asked = [x.ask("two") for x in (q, r, s)]
        assert [turn.answer for turn in asked] == ["right", "left", "left"]
        q.prefer(3, 2, of=r.pid)
        q.prefer(3, 2, of=s.pid)
        r.good(1)  # a turn that it has from its parent
    found = of(tmp_path)
    (pair,) = found.pairs
    assert (pair.right, pair.wrong) == ("right", "left")
    assert [row.right for row in found.examples] == ["You said hello."]
    (file, pairs) = write(found, tmp_path / "rows.jsonl")
    assert pairs.name == "rows.pairs.jsonl" and read_rows(pairs)[0].fields["chosen"] == "right"
    assert len(read_rows(file)) == 1


def test_untrusted_words_are_never_a_target(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("The gate opens at nine.")
    (tmp_path / "docs/b.md").write_text("The gate opens at ten.")

    def says(window: str) -> str:
        return "It opens at nine."

    state = tmp_path / "state"
    with scripted_kernel(says, state=state) as kernel:
        shared = kernel.spawn([Mount(tmp_path / "docs")])
        shared.ask("When does the gate open?").result
        shared.good(1)
        mine = kernel.spawn([Mount(tmp_path / "docs", "mine")])
        mine.ask("When does the gate open?").result
        mine.good(1)
        told = kernel.spawn()
        told.ask("Say it", label=UNTRUSTED).result
        told.good(1)
        private = kernel.spawn([Mount(tmp_path / "docs", "mine", frozenset({"me"}))])
        private.ask("When does it open?").result
        private.correct(1, "At nine.")
        again = kernel.spawn([Mount(tmp_path / "docs")])
        again.ask("When does the gate open then?").result
        again.correct(1, "At nine, the sign says.")
    found = of(state)
    assert [row.pid for row in found.rows] == [mine.pid, again.pid]
    reasons = dict(found.left_out)
    assert reasons[f"turn 1 of process {shared.pid}"] == "its answer rests on untrusted words"
    assert reasons[f"turn 1 of process {told.pid}"] == "its answer rests on untrusted words"
    assert reasons[f"turn 1 of process {private.pid}"] == "it read what only me may read"
    assert private.pid in [row.pid for row in of(state, readers=frozenset({"me"})).rows]
    asked = found.rows[-1].asked[-1]["content"]
    assert asked.endswith(question_text("When does the gate open then?")) and "The gate opens at" in asked


def test_rows_are_laid_out_as_the_window_was(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(script, apps=SHOP, state=tmp_path) as kernel:
        p = kernel.spawn(grants=["shop"], instructions="Sell.")
        p.ask("hi").result
        p.correct(1, "Good day!")
        p.ask("shop").result
        p.correct(2, "Tea costs much.")
        layout = p.view.lay_out  # the window as the kernel makes it, of the same question
        window = kernel.tokenizer.decode(_first(kernel))
        assert layout is not None
    found = of(tmp_path)
    (row,) = found.rows
    tokenizer, template = byte_tokenizer(), chat_template()
    pieces = template.render(row.asked, add_generation_prompt=True)
    assert tokenizer.decode([t for ids in tokenizer.encode_pieces(pieces) for t in ids]) == window
    assert found.left_out[0][1].startswith("its answer rests on results of calls")


def _first(kernel: Kernel) -> Sequence[int]:
    from llmos.kernel.journal.records import Started

    started = next(r.body for r in kernel.journal.records() if isinstance(r.body, Started))
    return started.window


def test_contradictions_are_named(scripted_kernel: Make, tmp_path: Path) -> None:
    with scripted_kernel(script, state=tmp_path) as kernel:
        for answer in ("Monday.", "monday", "Friday."):
            p = kernel.spawn()
            p.ask("Which day?").result
            p.correct(1, answer)
    found = of(tmp_path)
    assert [row.right for row in found.rows] == ["Friday."]
    assert len(found.contradictions) == 1 and "'monday', then 'Friday.'" in found.contradictions[0]
    with pytest.raises(BadExamples, match="contradict each other"):
        of(tmp_path, contradictions="error")


def test_nothing_marked_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "old", "completion": "row"}))
    assert write(Harvest(), path) == () and not path.exists()


def test_private_kernels_count_too(scripted_kernel: Make, tmp_path: Path) -> None:
    state = tmp_path / "machine"
    for place, answer in ((state / "kernel", "One."), (state / "private/abc", "Two.")):
        with scripted_kernel(script, state=place) as kernel:
            p = kernel.spawn()
            p.ask(answer).result
            p.correct(1, answer)
    (state / "private/empty").mkdir()
    tokenizer = byte_tokenizer()
    found = harvest(journals(state), ChatPrompt(tokenizer, chat_template()), tokenizer)
    assert [(row.right, row.journal) for row in found.rows] == [("One.", ""), ("Two.", "abc")]
