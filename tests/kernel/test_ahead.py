"""What a question will need is brought before it is asked; a hint changes nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from llmos.kernel.journal import read
from llmos.kernel.kernel import Kernel
from llmos.kernel.process import Process
from tests.memory.words_encoder import WordsEncoder

Make = Callable[..., Kernel]
BRIEF = "You are the clerk of a small harbour, and you know every boat that lies there by its name."


def brought(process: Process) -> None:
    """Wait until what was expected is there."""
    stream, end = process.ahead._stream, time.monotonic() + 60
    assert stream is not None
    while stream.finished is None:
        assert time.monotonic() < end, "it was not brought"
        time.sleep(0.005)


def cached(kernel: Kernel, question: str, hint: str | None, **more: object) -> tuple[int, str]:
    """Tokens that were there when a new process was asked, and its answer."""
    process = kernel.spawn(instructions=f"{BRIEF} ({question}{hint})", **more)  # type: ignore[arg-type]
    if hint is not None:
        process.expect(hint)
        brought(process)
    turn = process.ask(question, max_tokens=8)
    return turn.usage.cached_tokens, turn.answer


def test_what_stands_before_a_question_is_there_when_it_is_asked(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    assert (
        cached(kernel, "Which boat?", None)[0] < 16 < len(BRIEF) - 16 <= cached(kernel, "Which boat?", "")[0]
    )
    assert kernel.engine.pool.leaked == 0


def test_passages_too(tiny_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "berths.md").write_text("# Berths\n\nThe boat called Miso lies in berth 14.\n")
    kernel = tiny_kernel(window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    mounts = [tmp_path / "berths.md"]
    without, _ = cached(kernel, "Where is the boat called Miso?", None, mounts=mounts)
    head, _ = cached(kernel, "Where is the boat called Miso?", "", mounts=mounts)
    whole, _ = cached(
        kernel, "Where is the boat called Miso?", "Where is the boat called Miso", mounts=mounts
    )
    assert without < 16 < head < whole - 32


def test_a_wrong_hint_changes_no_word_and_leaves_no_record(tiny_kernel: Make) -> None:
    kernel = tiny_kernel()
    plain = kernel.spawn(seed=3)
    said = [plain.ask(q, max_tokens=12, temperature=1.0).answer for q in ("One?", "Two?")]
    hinted = kernel.spawn(seed=3)
    kernel.journal.wait(kernel.appended)
    records = len(list(read(kernel.state)))
    for hint in ("something else", "One", "x" * 10_000):  # the last does not even fit
        hinted.expect(hint)
    assert hinted.conversation == [] and hinted.questions.count == 0
    kernel.journal.wait(kernel.appended)
    assert len(list(read(kernel.state))) == records
    again = []
    for question in ("One?", "Two?"):
        hinted.expect("Something else, and longer than what will be asked")
        again.append(hinted.ask(question, max_tokens=12, temperature=1.0).answer)
    assert again == said


def test_asking_ends_it_and_nobody_waits_for_it(tiny_kernel: Make) -> None:
    kernel = tiny_kernel(window=1024)
    process = kernel.spawn(instructions=BRIEF * 3)
    process.expect("")
    stream = process.ahead._stream
    assert stream is not None
    process.signal("STOP")
    turn = process.ask("Which boat?", max_tokens=24)
    assert stream.cancelled or stream.finished is not None
    process.expect("And then?")  # while a turn runs nothing is expected
    assert process.ahead._stream is None
    process.signal("CONT")
    assert turn.usage.completion_tokens > 0
    process.close()
    process.expect("Anybody?")
    assert process.ahead._stream is None


def test_pages_come_back_from_disk_before_they_are_asked_for(tiny_kernel: Make, tmp_path: Path) -> None:
    memory = {"ram": 0, "swap": "64MiB"}
    state = tmp_path / "state"
    first = tiny_kernel(state=state, **memory)
    pid = first.spawn(instructions=BRIEF).pid
    _ = first.process(pid).ask("Which boat?", max_tokens=8).answer
    first.close()
    second = tiny_kernel(state=state, **memory)
    process = second.process(pid)
    process.expect("")
    brought(process)
    assert second.engine.swap.faults > 4
    turn = process.ask("And the other?", max_tokens=8)
    assert turn.usage.cached_tokens > len(BRIEF) and turn.usage.faults == 0


def test_a_question_that_waits_has_its_passages_computed(tiny_kernel: Make, tmp_path: Path) -> None:
    for n in range(6):
        (tmp_path / f"berth{n}.md").write_text(
            f"# Berth {n}\n\nIn berth {n} lies a boat of {n + 3} metres.\n"
        )
    kernel = tiny_kernel(window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()
    blender = kernel.engine._blender
    assert blender is not None
    process = kernel.spawn(mounts=[tmp_path], fidelity="blend")
    process.ahead.expect("How long is the boat in berth 4?", queued=True)
    brought(process)
    ahead = blender.computed
    assert ahead > 0
    _ = process.ask("How long is the boat in berth 4?", max_tokens=8).answer
    assert blender.computed == ahead
    exact = kernel.spawn(mounts=[tmp_path])
    exact.ahead.expect("How long is the boat in berth 4?", queued=True)
    assert exact.ahead._stream is None  # what stands before it is being computed by the turn before it


def test_queued_questions_are_answered_as_ever(tiny_kernel: Make, tmp_path: Path) -> None:
    (tmp_path / "berth.md").write_text("# Berth\n\nIn berth 4 lies a boat of 7 metres.\n")
    kernel = tiny_kernel(window=1024)
    kernel.library.__dict__["encoder"] = WordsEncoder()

    def said(queue: bool) -> list[str]:
        process = kernel.spawn(mounts=[tmp_path], fidelity="blend")
        turns = []
        for n in range(3):
            turns.append(process.ask(f"Which boat is number {n}?", max_tokens=8, queue=queue))
            if not queue:
                _ = turns[-1].answer
        return [turn.answer for turn in turns]

    assert said(queue=True) == said(queue=False)
