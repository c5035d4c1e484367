"""What the records amount to: everything that a boot needs to resume every process.

What: `MachineState` (the processes that are not reaped) and the fold that makes it from records.
Invariant: pure and total: a function of the records alone, for any sequence of well-formed records, without
    error. What does not follow from what was before (a process that is not there, tokens after a hole) changes
    nothing, except that a turn with a hole in its tokens stops its process rather than go on from a wrong window.
Interface: `fold(state, record)`, `fold_all(state, records)`, `dump`, `load`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from llmos.abi.errors import JournalError
from llmos.abi.labels import USER, Label
from llmos.kernel.journal.records import (
    Adapted,
    Approval,
    Asked,
    Considered,
    Exceeded,
    Exited,
    Finished,
    Forced,
    Forgot,
    Granted,
    Intent,
    Json,
    Mounted,
    Parked,
    Placed,
    Reaped,
    Received,
    Record,
    Result,
    Sampled,
    Sent,
    Signalled,
    Spawned,
    Started,
    Tokens,
)


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens of one origin at the end of a window; `call` of a syscall's result."""

    origin: Literal["sampled", "forced"]
    tokens: Tokens
    call: int | None = None
    label: Label = USER


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A syscall whose result is not yet in the window. Without `result`, whether it happened is unknown."""

    intent: Intent
    result: Result | None = None
    parked: str = ""


@dataclass(frozen=True, slots=True)
class RunningTurn:
    """A turn that has not finished: its window is `started.window`, then the tokens of `runs`."""

    started: Started
    runs: tuple[Run, ...] = ()
    calls: tuple[OpenCall, ...] = ()
    interrupted: bool = False
    considered: Considered | None = None  # what it will answer, once it has thought

    @property
    def tokens(self) -> Tokens:
        """The window as it stands."""
        return sum((run.tokens for run in self.runs), self.started.window)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A finished turn, as the conversation keeps it."""

    turn: int
    question: str
    answer: str
    label: Label = USER
    asked: Label = USER  # of the question alone


@dataclass(frozen=True, slots=True)
class Mail:
    """Sent and not yet received; `number` is the sequence of the record."""

    number: int
    sender: int
    content: Json
    label: Label = USER


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process. `asked` are the questions that wait, the first of them the running turn's while one runs."""

    pid: int
    spawned: Spawned
    parent: int
    asked: tuple[Asked, ...] = ()
    turn: RunningTurn | None = None
    conversation: tuple[Exchange, ...] = ()
    mailbox: tuple[Mail, ...] = ()
    turns: int = 0  # numbers used so far: the next turn is turns + 1
    calls: int = 0
    approved: tuple[Approval, ...] = ()  # what has been allowed, and not been withdrawn
    stopped: str = ""  # why, where it is
    ending: bool = False  # TERM: no turn after this one
    ended: str | None = None  # the reason, of a zombie


@dataclass(frozen=True, slots=True)
class MachineState:
    """All processes by pid, after record `seq`."""

    seq: int = 0
    pids: int = 0  # the greatest pid ever given
    processes: Mapping[int, ProcessState] = field(default_factory=dict)


def fold(state: MachineState, record: Record) -> MachineState:
    """The state after one more record."""
    return fold_all(state, (record,))


def fold_all(state: MachineState, records: Iterable[Record]) -> MachineState:
    """The state after more records; as `fold` one by one, without a copy of the table for each."""
    processes, pids, seq = dict(state.processes), state.pids, state.seq
    for record in records:
        pids, seq = max(pids, record.pid), record.seq
        _apply(processes, record)
    return MachineState(seq, pids, processes)


def _apply(table: dict[int, ProcessState], record: Record) -> None:
    """What the record does to the table: the rules that concern two processes; the rest is `_step`."""
    pid, body = record.pid, record.body
    process = table.get(pid)
    match body:
        case Spawned():
            if process is None and pid > 0:
                table[pid] = _born(pid, body, table.get(body.parent))
        case Sent():
            if (to := table.get(body.to)) and to.ended is None:
                mail = Mail(record.seq, pid, body.content, body.label)
                table[body.to] = replace(to, mailbox=(*to.mailbox, mail))
        case Reaped():
            if process and process.ended is not None:
                del table[pid]
        case _ if process and process.ended is None:
            table[pid] = process = _step(process, body)
            if process.ended is not None:
                for child in [p for p in table.values() if p.parent == pid]:
                    table[child.pid] = replace(child, parent=0)
        case _:
            pass


def _born(pid: int, body: Spawned, parent: ProcessState | None) -> ProcessState:
    if parent is None or parent.ended is not None:
        return ProcessState(pid, body, parent=0)
    child = ProcessState(pid, body, parent=parent.pid)
    if not body.forked:
        return child
    turn = parent.turn and replace(parent.turn, calls=(), interrupted=False)
    asked = tuple(a for a in parent.asked if turn and a.turn == turn.started.turn)
    return replace(
        child, turn=turn, asked=asked, conversation=parent.conversation, turns=parent.turns, calls=parent.calls
    )  # fmt: skip


def _step(p: ProcessState, body: object) -> ProcessState:
    """One process after one record of its own."""
    match body:
        case Sampled() | Forced() | Considered() | Intent() | Result() | Parked():
            if p.turn and body.turn == p.turn.started.turn:
                return _in_turn(p, p.turn, body)
        case Approval():
            return replace(p, approved=_approved(p.approved, body))
        case Asked():
            return replace(p, asked=(*p.asked, body), turns=max(p.turns, body.turn))
        case Mounted():
            return replace(p, spawned=p.spawned.mounting(body.mounts))
        case Granted():
            return replace(p, spawned=replace(p.spawned, grants=body.grants))
        case Adapted():
            return replace(p, spawned=p.spawned.adapting(body.adapters))
        case Placed():
            return replace(p, spawned=p.spawned.placing(body.reference, body.place))
        case Forgot():
            return replace(p, conversation=tuple(e for e in p.conversation if e.turn < body.since))
        case Signalled():
            return _signalled(p, body.signal)
        case Received():
            return replace(p, mailbox=tuple(mail for mail in p.mailbox if mail.number != body.mail))
        case Exceeded():
            return _end(p, f"{body.quota} quota exceeded: {body.used:g} of {body.limit:g}")
        case Exited():
            return _end(p, body.reason)
        case Started() if p.turn is None:
            return replace(p, turn=RunningTurn(body), turns=max(p.turns, body.turn))
        case Finished() if p.turn is None or body.turn == p.turn.started.turn:
            # Without a running turn: a question that was given up before it started.
            question = next((a for a in p.asked if a.turn == body.turn), None)
            asked = tuple(a for a in p.asked if a.turn != body.turn)
            p = replace(p, asked=asked, turn=None, turns=max(p.turns, body.turn))
            if question is None or not (question.text and body.answer):
                return p
            exchange = Exchange(body.turn, question.text, body.answer, body.label, question.label)
            return replace(p, conversation=(*p.conversation, exchange))
    return p


def _approved(before: tuple[Approval, ...], last: Approval) -> tuple[Approval, ...]:
    """What is allowed behind somebody's last word on a value."""
    others = tuple(a for a in before if _value(a) != _value(last))
    return (*others, last) if last.allowed and last.syscall else others


def _value(approval: Approval) -> tuple[str, str, str]:
    """What was asked about; 1, 1.0 and true are three values."""
    return approval.syscall, approval.argument, json.dumps(approval.value, sort_keys=True)


def _signalled(p: ProcessState, signal: str) -> ProcessState:
    match signal:
        case "KILL":
            return _end(p, "killed")
        case "TERM":
            return replace(p, ending=True)
        case "STOP":
            return replace(p, stopped=p.stopped or "STOP")
        case "CONT":
            return replace(p, stopped="")
    return replace(p, turn=p.turn and replace(p.turn, interrupted=True))


def _end(p: ProcessState, reason: str) -> ProcessState:
    return replace(p, ended=reason, turn=None, asked=(), mailbox=(), stopped="")


def _in_turn(
    p: ProcessState,
    turn: RunningTurn,
    body: Sampled | Forced | Considered | Intent | Result | Parked,
) -> ProcessState:
    calls = turn.calls
    match body:
        case Sampled():
            return _extend(p, turn, body.position, Run("sampled", body.tokens))
        case Forced():
            p = _extend(p, turn, body.position, Run("forced", body.tokens, body.call, body.label))
            if body.call is None or p.turn is None:
                return p
            return replace(
                p, turn=replace(p.turn, calls=tuple(c for c in calls if c.intent.call > body.call))
            )
        case Considered():
            return replace(p, turn=replace(turn, considered=body))
        case Intent():
            calls = (*(c for c in calls if c.intent.call != body.call), OpenCall(body))
            p = replace(p, calls=max(p.calls, body.call))
        case Result():
            calls = tuple(replace(c, result=body) if c.intent.call == body.call else c for c in calls)
        case Parked():
            calls = tuple(replace(c, parked=body.why) if c.intent.call == body.call else c for c in calls)
            p = replace(p, stopped=f"call {body.call} is parked: {body.why}")
    return replace(p, turn=replace(turn, calls=calls))


def _extend(p: ProcessState, turn: RunningTurn, position: int, run: Run) -> ProcessState:
    """Put a run at `position`: at the end, or over what is taken back."""
    runs, start = list(turn.runs), len(turn.started.window)
    end = start + sum(len(r.tokens) for r in runs)
    if not start <= position <= end:
        return replace(
            p, stopped=f"the journal has no tokens {end} to {position} of turn {turn.started.turn}"
        )
    while position < end:
        last = runs.pop()
        end -= len(last.tokens)
        if end < position:
            runs.append(replace(last, tokens=last.tokens[: position - end]))
            break
    if runs and runs[-1].origin == run.origin == "sampled":
        run = replace(run, tokens=runs.pop().tokens + run.tokens)
    return replace(p, turn=replace(turn, runs=(*runs, run)))


@cache
def _adapter() -> TypeAdapter[MachineState]:
    return TypeAdapter(MachineState)


def dump(state: MachineState) -> bytes:
    """The state as JSON."""
    return _adapter().dump_json(state, exclude_defaults=True)


def load(blob: bytes) -> MachineState:
    """What `dump` was given.

    Raises:
        JournalError: the JSON is not a state of this version.
    """
    try:
        return _adapter().validate_json(blob)
    except ValidationError as error:
        raise JournalError(
            "a snapshot is not understood", why=str(error).splitlines()[0],
            do="read this journal with the version of llmos that wrote it",
        ) from None  # fmt: skip
