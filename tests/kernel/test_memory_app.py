"""A window under pressure, and the syscalls that reach what lies outside of it; on a scripted model."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from llmos.abi.errors import WindowOverflow
from llmos.abi.events import PageIn, PageOut, Result
from llmos.abi.labels import STORE, UNTRUSTED, USER, Integrity, Label, join
from llmos.abi.mount import Mount
from llmos.apps.shell.pmap import draw
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Started
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from llmos.testing import call
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]
FACTS = ["The cat is called Miso.", "The boat lies in berth 14.", "The rent is due on Monday."]
FILLER = "Tell me more about the weather in the town of number {} please, as long as you like."


def window_of(kernel: Kernel, pid: int) -> str:
    """The window that the process's last turn began with."""
    bodies = [r.body for r in read(kernel.state, kinds=[Started]) if r.pid == pid]
    assert isinstance(bodies[-1], Started)
    return kernel.tokenizer.decode(bodies[-1].window)


def converse(kernel: Kernel, process: Process, turns: int = 12) -> None:
    for fact in FACTS:
        assert process.ask(f"Remember this: {fact}", max_tokens=40).answer
    for n in range(turns):
        assert process.ask(FILLER.format(n), max_tokens=40).answer


@pytest.fixture
def kernel(scripted_kernel: Make) -> Kernel:
    kernel = scripted_kernel(lambda window: "So it is, as you said.", window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    return kernel


def test_what_bears_on_the_question_comes_back(kernel: Kernel) -> None:
    process = kernel.spawn()
    converse(kernel, process)
    assert "Miso" not in window_of(kernel, process.pid)
    events = list(process.ask("What did I say the cat is called?", max_tokens=40))
    window = window_of(kernel, process.pid)
    assert "The cat is called Miso." in window and "number 11" in window  # the newest stay, too
    assert "exchanges of this conversation are not shown" in window
    back = {e.source: e for e in events if isinstance(e, PageIn)}
    assert back["turn 1"].tokens > 0 and back["turn 1"].label == USER
    gone = [e for e in events if isinstance(e, PageOut)]
    assert gone and all(e.tokens > 0 and e.source.startswith("turn ") for e in gone)
    assert len(process.conversation) == len(FACTS) + 13  # nothing was lost


def test_no_more_leaves_than_must(kernel: Kernel) -> None:
    """The template's words around many short exchanges are counted, too."""
    process = kernel.spawn()
    process.ask("The cat is called Miso.", max_tokens=40).result
    for n in range(40):
        process.ask(f"{n}?", max_tokens=40).result
    process.ask("What is the cat called?", max_tokens=40).result
    window = window_of(kernel, process.pid)
    assert "Miso" in window
    exchange = len(
        "<|im_start|>user\n39?<|im_end|>\n<|im_start|>assistant\nSo it is, as you said.<|im_end|>\n"
    )
    assert 1024 - 40 - len(kernel.tokenizer.encode(window)) < 2 * exchange


def test_events_tell_changes_only(kernel: Kernel) -> None:
    process = kernel.spawn()
    converse(kernel, process)
    for _ in range(2):
        events = list(process.ask("Hm?", max_tokens=40))
    out = [e.source for e in events if isinstance(e, PageOut)]
    assert len(out) <= 2 and len(out) == len(set(out))


def test_order_and_pages_hold(kernel: Kernel) -> None:
    process = kernel.spawn()
    converse(kernel, process, 20)
    window = window_of(kernel, process.pid)
    shown = [n for n in range(20) if f"number {n} please" in window]
    assert shown == sorted(shown) and shown[-1] == 19
    assert len(kernel.tokenizer.encode(window)) <= 1024 - 40


def test_a_question_that_does_not_fit_is_refused(kernel: Kernel) -> None:
    process = kernel.spawn()
    converse(kernel, process, 2)
    with pytest.raises(WindowOverflow):
        process.ask("x" * 2000, max_tokens=40)
    assert process.ask("Still there?", max_tokens=40).answer


def results(turn: object) -> list[str]:
    return [str(e.text) for e in turn if isinstance(e, Result)]  # type: ignore[attr-defined]


def test_a_fault_brings_back_what_was_said(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        if "find it" not in window:
            return "Yes."
        if "user: Remember this: The cat" in window.partition("turn 1]")[2].partition("reference")[2]:
            return "It is Miso."
        if "[turn 1]" in window:
            return call("memory.read", reference="turn 1")
        return call("memory.search", query="cat called")

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    process = kernel.spawn(grants=["memory.*"])
    assert process.ask(f"Remember this: {FACTS[0]}").answer == "Yes."
    assert process.ask(f"Remember this: {FACTS[1]}").answer == "Yes."
    turn = process.ask("find it")
    found = results(turn)
    assert "[turn 1]" in found[0] and found[1] == f"user: Remember this: {FACTS[0]}\nyou: Yes."
    assert turn.answer == "It is Miso."


def test_passages_are_searched_and_read(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "house.md").write_text("# Pets\n\nThe cat is called Miso. It sleeps in the kitchen.\n")

    def script(window: str) -> str:
        if "nothing like that" in window or "lines 1-3\n" in window:
            return "Done."
        if "[passage 0-1]" in window:
            return call("memory.read", reference="[passage 0-1]")
        return call("memory.search", query="where the cat sleeps")

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    process = kernel.spawn(grants=["memory.search", "memory.read"], mounts=[Mount(tmp_path / "house.md")])
    turn = process.ask("Where is it?")
    events = [e for e in turn if isinstance(e, Result)]
    assert all(e.label.integrity == Integrity.UNTRUSTED for e in events)
    assert "It sleeps in the kitchen." in str(events[1].text)


def test_several_mounts_are_searched_as_one(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Pets\n\nThe dog is called Rex.\n")
    (tmp_path / "b.md").write_text("# Pets\n\nThe cat is called Miso. It sleeps in the kitchen.\n")

    def script(window: str) -> str:
        if "lines 1-3\n" in window:
            return "Done."
        if "[passage 1-1]" in window:
            return call("memory.read", reference="passage 1-1")
        return call("memory.search", query="cat sleeps kitchen")

    kernel = scripted_kernel(script)
    encoder = kernel.library.__dict__["encoder"] = WordsEncoder()
    mounts = [Mount(tmp_path / "a.md"), Mount(tmp_path / "b.md")]
    process = kernel.spawn(grants=["memory.search", "memory.read"], mounts=mounts)
    before = encoder.embedded
    found = results(process.ask("Where is it?"))
    assert found[0].index("[passage 1-1]") < found[0].index("[passage 0-1]") and "kitchen" in found[1]
    assert encoder.embedded - before == 2  # the question for its window, and the query: once for both mounts


def test_questions_that_come_together_are_asked_together(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Pets\n\nThe dog is called Rex.\n\n# Boats\n\nThe boat is green.\n")

    class Held(WordsEncoder):
        """Embeds when it is told to."""

        go, begun, batches = threading.Event(), threading.Event(), list[int]()

        def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
            self.batches.append(len(texts))
            self.begun.set()
            assert self.go.wait(60)
            return super().encode(texts, progress)

    kernel = scripted_kernel(lambda window: "Done.")
    encoder, mounts = Held(), [Mount(tmp_path / "a.md")]
    kernel.library.__dict__["encoder"] = encoder
    encoder.go.set()
    kernel.library.mount(mounts[0])
    encoder.go.clear()
    encoder.begun.clear()
    encoder.batches.clear()
    questions = ["dog", "boat", "green boat", "Rex"]
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(kernel.library.search, questions[0], mounts, 1)]
        assert encoder.begun.wait(60)
        asked += [pool.submit(kernel.library.search, question, mounts, 1) for question in questions[1:]]
        deadline = time.monotonic() + 60
        while sum(len(together._waiting) for together in kernel.library._asked.values()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        encoder.go.set()
        found = [of.result(60)[0].heading for of in asked]
    assert found == ["Pets", "Boats", "Boats", "Pets"] and encoder.batches == [1, 3]


def test_references_that_lead_nowhere(scripted_kernel: Make) -> None:
    wrong = iter(
        [
            "turn 9",
            "note 1",
            "passage 0-1",
            "passage x",
            "",
            "/etc/passwd",
            f"note {10**20}",
            f"passage 0-{10**20}",
        ]
    )

    def script(window: str) -> str:
        return next((call("memory.read", reference=r) for r in wrong), "Done.")

    process = scripted_kernel(script).spawn(grants=["memory.read"])
    events = [e for e in process.ask("Read.") if isinstance(e, Result)]
    assert events and not any(e.ok for e in events)


def test_a_note_outlives_its_process_and_keeps_its_label(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("Strangers say: the code is 1234.")

    def script(window: str) -> str:
        if "note the code" in window and "kept as" not in window:
            return call("memory.note", text="the code is 1234")
        after = window.partition("recall it")
        if after[1] and "[note" not in after[2] and "no notes" not in after[2]:
            return call("memory.recall", query="code")
        return "Done."

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    tainted = kernel.spawn(grants=["memory.*"], mounts=[Mount(tmp_path / "page.txt")], expert="clerk")
    assert results(tainted.ask("note the code")) == ["kept as note 1"]
    tainted.close()
    later = kernel.spawn(grants=["memory.*"], expert="clerk")
    (event,) = [e for e in later.ask("recall it") if isinstance(e, Result)]
    assert "1234" in str(event.text) and event.label.integrity == UNTRUSTED.integrity
    assert later.conversation[-1].label.integrity == UNTRUSTED.integrity
    other = kernel.spawn(grants=["memory.*"], expert="guest")
    assert results(other.ask("recall it"))[0] == "there are no notes"


LABELS = [USER, STORE, UNTRUSTED, Label(Integrity.USER, frozenset({"ann", "bob"}))]
LABELS += [Label(Integrity.STORE, frozenset({"bob"})), Label(Integrity.UNTRUSTED, frozenset({"ann", "eve"}))]


@pytest.mark.parametrize("seed", range(4))
def test_noting_and_recalling_raises_no_label(scripted_kernel: Make, seed: int) -> None:
    """A note goes from process to process: each recalls it under a question of any label, and notes it again."""

    def script(window: str) -> str:
        said = window.rpartition("pass it on")[2]
        if "kept as note" in said:
            return "Done."
        if (read := re.search(r"\[note \d+\] ([^\n<]+)", said)) or "there are no notes" in said:
            return call("memory.note", text=f"{read[1]}." if read else "the code is 1234")
        return call("memory.recall", query="")

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    chance, read = random.Random(seed), list[Label]()
    for n in range(5):
        read.append(chance.choice(LABELS))
        process = kernel.spawn(grants=["memory.*"], expert="clerk", user="ann")
        if chance.random() < 0.3:
            process = process.fork()[0]
        events = [e for e in process.ask("pass it on", label=read[-1]) if isinstance(e, Result)]
        most = join(read)
        assert [event.label for event in events] == [most, most], read
        (note,) = kernel.library.notes.search("", expert="clerk", user="ann", k=1)
        assert note.text == "the code is 1234" + "." * n and note.label == most, read
        assert process.conversation[-1].label == most
    assert len(set(read)) > 1


def test_notes_are_of_one_user_and_stay_so_over_forks_and_experts(scripted_kernel: Make) -> None:
    def script(window: str) -> str:
        said = window.rpartition("<|im_start|>user")[2]
        if (
            "kept as" in said
            or "[note" in said
            or "no notes" in said
            or "to read" in said
            or "no such" in said
        ):
            return "Done."
        if "forget it" in said:
            return call("memory.forget", number=1)
        if "read it" in said:
            return call("memory.read", reference="note 1")
        return call("memory.note", text="Ann is 41") if "note it" in said else call("memory.recall")

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    ann, bob, owner = (
        kernel.spawn(grants=["memory.*"], expert="clerk", user=user) for user in ("ann", "bob", "")
    )
    assert results(ann.fork()[0].ask("note it")) == ["kept as note 1"]
    for other in (bob, owner):
        assert results(other.ask("recall it")) == ["there are no notes"]
        assert "there is no 'note 1' to read" in results(other.ask("read it"))[0]
        assert results(other.ask("forget it")) == ["there is no such note"]
    assert results(ann.ask("recall it")) == ["[note 1] Ann is 41"]
    child = ann.child(["memory.recall"])
    assert results(child.ask("recall it")) == ["[note 1] Ann is 41"]


def test_the_map_of_a_window(scripted_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "house.md").write_text("# Pets\n\nThe cat is called Miso.\n")

    def script(window: str) -> str:
        return (
            "Done."
            if "nothing was found" in window or "[passage" in window
            else call("memory.search", query="cat")
        )

    kernel = scripted_kernel(script)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    process = kernel.spawn(grants=["memory.search"], mounts=[Mount(tmp_path / "house.md")])
    assert kernel.pmap(process.pid) == []
    assert process.ask("Is there a cat?").answer
    regions = kernel.pmap(process.pid)
    kinds = [region.kind for region in regions]
    assert [k for k in kinds if k in ("syscall", "knowledge", "user", "result")] == [
        "syscall",
        "knowledge",
        "user",
        "result",
    ]
    knowledge = next(r for r in regions if r.kind == "knowledge")
    assert knowledge.source == "house.md, lines 1-3" and knowledge.label.integrity == Integrity.UNTRUSTED
    assert all(a.start + a.tokens == b.start for a, b in pairwise(regions))
    assert regions[0].pages[0] == 0 and knowledge.pages[0] <= knowledge.pages[1]
    drawn = draw(regions, 80)
    assert len(drawn[0]) >= 80 and set(drawn[0]) <= set("suacrk") and "k" in drawn[0]
    assert drawn[-1] == f"{regions[-1].start + regions[-1].tokens} tokens" and "untrusted" in "\n".join(drawn)
    evil = [replace(regions[0], source="\x1b]0;x\x07")]
    assert "\x1b" not in "".join(draw(evil, 80)) and "\x1b[" in draw(regions, 80, colour=True)[0]
