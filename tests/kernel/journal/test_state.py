"""The fold: pure, total, the same in any portions; and the stories that a boot must get right."""

from __future__ import annotations

import copy
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.labels import UNTRUSTED
from llmos.kernel.journal.records import (
    Approval,
    Asked,
    Body,
    Exceeded,
    Exited,
    Finished,
    Forced,
    Forgot,
    Intent,
    Mounted,
    Parked,
    Reaped,
    Received,
    Record,
    Result,
    Sampled,
    Sent,
    Signalled,
    Spawned,
    Started,
)
from llmos.kernel.journal.state import MachineState, ProcessState, dump, fold, fold_all, load
from tests.kernel.journal.records import histories


@given(histories, st.integers(0, 40))
def test_pure_total_and_the_same_in_any_portions(history: list[Record], cut: int) -> None:
    one_by_one = MachineState()
    for record in history:
        before = copy.deepcopy(one_by_one)
        after = fold(one_by_one, record)
        assert one_by_one == before  # the old state is as it was
        one_by_one = after
    assert fold_all(fold_all(MachineState(), history[:cut]), history[cut:]) == one_by_one
    assert load(dump(one_by_one)) == one_by_one
    assert one_by_one.seq == len(history)


@given(histories)
def test_what_holds_in_every_state(history: list[Record]) -> None:
    state = fold_all(MachineState(), history)
    for pid, process in state.processes.items():
        assert process.pid == pid <= state.pids
        assert process.parent == 0 or process.parent in state.processes
        if process.ended is not None:
            assert process.turn is None and not process.mailbox and not process.asked
        if process.turn:
            assert process.turn.started.turn <= process.turns
            assert all(call.intent.turn == process.turn.started.turn for call in process.turn.calls)


@given(st.lists(st.tuples(st.integers(0, 30), st.lists(st.integers(0, 9), max_size=5)), max_size=20))
def test_tokens_are_those_of_a_list_that_is_written_over(writes: list[tuple[int, list[int]]]) -> None:
    expected, holed, bodies = [100, 101], False, [Spawned(), Started(1, (100, 101))]
    for position, tokens in writes:
        bodies.append(Sampled(1, position, tuple(tokens)))
        if 2 <= position <= len(expected):
            expected[position:] = tokens
        else:
            holed = True
    process = one(*bodies)
    assert process.turn and process.turn.tokens == tuple(expected)
    assert bool(process.stopped) == holed


def story(*bodies: Body | tuple[int, Body]) -> MachineState:
    entries = [body if isinstance(body, tuple) else (1, body) for body in bodies]
    return fold_all(MachineState(), [Record(i, 0.0, pid, body) for i, (pid, body) in enumerate(entries, 1)])


def one(*bodies: Body | tuple[int, Body]) -> ProcessState:
    return story(*bodies).processes[1]


ASKED = (Spawned(), Asked(1, "how much?"), Started(1, (7, 8)))
CALL = Intent(1, 1, "rates.rate", {"base": "EUR"}, "key-1", "keyed")


def test_a_turn_from_question_to_answer() -> None:
    running = one(*ASKED, Sampled(1, 2, (5,)), Sampled(1, 3, (6, 7)), Asked(2, "and now?"))
    assert running.turn and running.turn.tokens == (7, 8, 5, 6, 7) and len(running.turn.runs) == 1
    assert [a.turn for a in running.asked] == [1, 2]
    done = one(*ASKED, Sampled(1, 2, (5,)), Asked(2, "and now?"), Finished(1, "12", "stop", UNTRUSTED))
    assert done.turn is None and [a.turn for a in done.asked] == [2] and done.turns == 2
    assert [(e.question, e.answer, e.label) for e in done.conversation] == [("how much?", "12", UNTRUSTED)]
    assert one(*ASKED, Finished(1, "12", "stop"), Forgot()).conversation == ()
    assert one(*ASKED, Finished(1, "", "cancelled")).conversation == ()


def test_what_is_mounted_later_is_part_of_how_the_process_was_made() -> None:
    handbook = {"path": "handbook", "trust": "mine", "readers": ["staff"]}
    process = one(Spawned(settings={"instructions": "Be brief."}), Mounted((handbook,)))
    assert process.spawned.settings == {"instructions": "Be brief.", "mounts": [handbook]}


def test_a_call_is_open_until_its_result_is_in_the_window() -> None:
    asked = one(*ASKED, Sampled(1, 2, (5,)), CALL)
    assert asked.turn and asked.turn.calls[0].result is None
    answered = one(*ASKED, Sampled(1, 2, (5,)), CALL, Result(1, 1, 1.1))
    assert answered.turn and answered.turn.calls[0].result == Result(1, 1, 1.1)
    entered = one(*ASKED, Sampled(1, 2, (5,)), CALL, Result(1, 1, 1.1), Forced(1, 3, (4, 4), 1, UNTRUSTED))
    assert entered.turn and entered.turn.calls == () and entered.turn.runs[-1].label == UNTRUSTED
    parked = one(*ASKED, CALL, Parked(1, 1, "the kernel stopped in the middle of it"))
    assert parked.turn and parked.turn.calls[0].parked and "parked" in parked.stopped
    assert one(*ASKED, CALL, Parked(1, 1, "?"), Signalled("CONT")).stopped == ""


def test_the_last_word_on_a_value_counts() -> None:
    said = partial(Approval, 1, 1, "to", syscall="shop.pay")
    assert one(*ASKED, said("eve", True), Finished(1, "", "stop")).approved == (said("eve", True),)
    assert one(*ASKED, said("eve", True), said("bob", False)).approved == (said("eve", True),)
    assert one(*ASKED, said("eve", True), said("eve", False)).approved == ()
    assert one(*ASKED, said(1, True), said(2, True), said(1, False)).approved == (said(2, True),)
    assert len(one(*ASKED, said(1, True), said(True, True), said(1.0, True)).approved) == 3
    assert one(*ASKED, Approval(1, 1, "to", "eve", True)).approved == (), "nobody knows for which syscall"


def test_signals() -> None:
    interrupted = one(*ASKED, Signalled("INT"))
    assert interrupted.turn and interrupted.turn.interrupted
    assert (
        one(*ASKED, Signalled("STOP")).stopped
        and not one(*ASKED, Signalled("STOP"), Signalled("CONT")).stopped
    )
    assert one(*ASKED, Signalled("TERM")).ending and one(*ASKED, Signalled("KILL")).ended == "killed"


def test_ends_and_orphans() -> None:
    family = story(Spawned(), (2, Spawned(parent=1)), (3, Spawned(parent=2)), (2, Exited("done")))
    assert family.processes[2].ended == "done" and family.processes[3].parent == 0
    assert set(story(Spawned(), Exited("done"), Reaped()).processes) == set()
    assert set(story(Spawned(), Reaped()).processes) == {1}  # who lives cannot be reaped
    assert story(Spawned(), Exited(), Reaped(), (2, Spawned())).pids == 2
    assert one(Spawned(), Exceeded("tokens", 100, 101)).ended == "tokens quota exceeded: 101 of 100"
    assert one(Spawned(), Exited("done"), Signalled("KILL")).ended == "done"


def test_a_fork_starts_where_its_parent_stands() -> None:
    state = story(
        *ASKED, Sampled(1, 2, (5,)), (2, Spawned(parent=1, forked=True, path=(0,))), Sampled(1, 3, (6,))
    )
    parent, child = state.processes[1], state.processes[2]
    assert (
        child.turn and parent.turn and child.turn.tokens == (7, 8, 5) and parent.turn.tokens == (7, 8, 5, 6)
    )
    assert child.asked == parent.asked
    assert story(*ASKED, (2, Spawned(parent=1))).processes[2].turn is None


def test_mail_waits_until_it_is_received() -> None:
    sent = story(Spawned(), (2, Spawned()), (2, Sent(1, {"n": 1})), (2, Sent(1, {"n": 2})))
    assert [mail.number for mail in sent.processes[1].mailbox] == [3, 4]
    got = fold(sent, Record(5, 0.0, 1, Received(3)))
    assert [(mail.number, mail.sender) for mail in got.processes[1].mailbox] == [(4, 2)]
    assert story(Spawned(), Exited(), (2, Spawned()), (2, Sent(1, "x"))).processes[1].mailbox == ()
