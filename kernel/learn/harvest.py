"""What people marked in use, as a data set.

What: the journal's marks (`correct`, `prefer`, `good`, `bad`) -> rows to learn from: conversations that end in the
    answer that should have been, and pairs. Each carries its provenance: process, turn, when, whose labels.
Invariant: a turn that nobody marked is no row, and what its user left out is none. Words are a target only where a
    person wrote them or praised them, and nothing untrusted was read for them; a row's other words are never targets.
    What was marked and is no row is told with its reason; contradictions are told, or refused.
Interface: `harvest(folders, prompt, tokenizer, consent)` -> `Harvest`; `journals(state)`, the folders of a machine;
    `Consent`; `write(harvest, path)`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmos.abi.errors import BadExamples, LLMOSError
from llmos.abi.labels import Integrity, Label, dump_label
from llmos.drivers.whole import write_whole
from llmos.kernel.journal import read
from llmos.kernel.journal.records import (
    Asked,
    Body,
    Feedback,
    Finished,
    Forgot,
    Granted,
    Intent,
    Mounted,
    Reaped,
    Record,
    Spawned,
    Started,
)
from llmos.kernel.journal.recovery import DATABASE
from llmos.kernel.journal.state import MachineState, ProcessState, fold
from llmos.kernel.layout import Layout, lay_out
from llmos.kernel.prompt import TOOLS
from llmos.memory.disk import disk_errors

if TYPE_CHECKING:
    from llmos.drivers.weights import Tokenizer
    from llmos.kernel.prompt import ChatPrompt

KINDS: tuple[type[Body], ...] = (
    Spawned, Asked, Started, Intent, Finished, Feedback, Forgot, Mounted, Granted, Reaped,
)  # fmt: skip
"""The records that a harvest needs."""
ROOM = (
    1 << 30
)  # tokens: a row holds all that stood in the window, however long; the window of the course decides
PAIRS = ".pairs.jsonl"
Place = tuple[int, int]  # (pid, turn)
Marks = dict[tuple[int, ...], tuple[Record, Feedback]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Consent:
    """What may be learnt from.

    Args:
        expert: only turns of this one; None: of all.
        left_out: (pid, turn) that are not to be learnt from; turn 0 stands for all of a process.
        praised: whether answers marked good are examples too.
        readers: who will use what is learnt; a turn that not all of them may read is left out. None: everybody.
        contradictions: of two corrections of one question the newest counts, or it is an error.
    """

    expert: str | None = None
    left_out: Collection[Place] = ()
    praised: bool = True
    readers: frozenset[str] | None = None
    contradictions: Literal["newest", "error"] = "newest"


@dataclass(frozen=True, slots=True)
class Said:
    """A row: what was asked (messages), what is to be answered, or the better and the worse answer."""

    asked: tuple[Mapping[str, str], ...]
    right: str
    wrong: str | None  # of a pair, or what was corrected
    mark: str  # correct, good or prefer
    pid: int
    turn: int
    when: float
    expert: str
    label: Label  # of all that the turn read
    journal: str  # "" for the kernel of the machine, else the name of a private one's folder
    same: str = field(repr=False)  # equal of rows that ask the same

    @property
    def place(self) -> str:
        """The turn, for people."""
        return f"turn {self.turn} of process {self.pid}"

    def dump(self, pair: bool = False) -> dict[str, Any]:
        """As a line of a data set."""
        answers = {"chosen": self.right, "rejected": self.wrong} if pair else {"completion": self.right}
        when = datetime.fromtimestamp(self.when, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"mark": self.mark, "pid": self.pid, "turn": self.turn, "when": when}
        told |= {"expert": self.expert, "label": dump_label(self.label), "journal": self.journal}
        if self.wrong is not None and not pair:
            told["instead_of"] = self.wrong
        return {"prompt": list(self.asked), **answers, "provenance": told}


@dataclass(frozen=True, slots=True)
class Harvest:
    """Rows in the order of their marks. `left_out`: (place, reason); `contradictions`: one line each; `bad`: marks that
    say only that an answer was wrong."""

    rows: tuple[Said, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    contradictions: tuple[str, ...] = ()
    bad: int = 0

    @property
    def examples(self) -> tuple[Said, ...]:
        """Conversations that end in the right answer."""
        return tuple(row for row in self.rows if row.mark != "prefer")

    @property
    def pairs(self) -> tuple[Said, ...]:
        """A better and a worse answer to one question."""
        return tuple(row for row in self.rows if row.mark == "prefer")


@dataclass(frozen=True, slots=True)
class _Turn:
    """A finished turn as its process stood when it ended."""

    before: ProcessState
    asked: Asked
    started: Started
    finished: Finished
    called: bool


def journals(state: Path) -> tuple[Path, ...]:
    """The journals under a machine's state folder: its kernel's, and those of private kernels where somebody marked
    something."""
    places = [state / "kernel", *sorted((state / "private").glob("*"))]
    return tuple(place for place in places if (place / DATABASE).exists())


def harvest(
    folders: Sequence[Path], prompt: ChatPrompt, tokenizer: Tokenizer, consent: Consent | None = None
) -> Harvest:
    """What the journals in these folders have to teach.

    Args:
        prompt, tokenizer: of the model that is to learn: rows are laid out as its windows are.

    Raises:
        BadExamples: corrections contradict each other, where `consent` says that this is an error.
        JournalError: a journal cannot be read.
    """
    consent = consent or Consent()
    rows, left_out, bad = list[Said](), list[tuple[str, str]](), 0
    for folder in folders:
        turns, marks, experts = _read(read(folder, kinds=KINDS))
        journal = "" if folder.name == "kernel" else folder.name
        for record, feedback in marks.values():
            if consent.expert is not None and consent.expert != experts.get(record.pid):
                continue
            if feedback.verdict == "bad":
                bad += 1
                continue
            try:
                rows.append(_said(record, feedback, journal, turns, prompt, tokenizer, consent))
            except _LeftOut as reason:
                left_out.append((f"turn {feedback.turn} of process {record.pid}", str(reason)))
    kept, told = _agreed(rows)
    if told and consent.contradictions == "error":
        raise BadExamples(
            f"{len(told)} corrections contradict each other", why=told[0],
            do="correct one of the two turns again, leave one out, or have the newest count",
        )  # fmt: skip
    return Harvest(tuple(kept), tuple(left_out), tuple(told), bad)


def write(found: Harvest, path: Path) -> tuple[Path, ...]:
    """Write the conversations to `path` and the pairs beside it (`PAIRS`), each whole or not at all; the files that
    hold something. Raises DiskFull, VolumeError."""
    files = {
        path: [row.dump() for row in found.examples],
        path.with_name(path.name.removesuffix(".jsonl") + PAIRS): [row.dump(True) for row in found.pairs],
    }
    for file, rows in files.items():
        with disk_errors(file, "data set", "free some space and harvest again"):
            if rows:
                lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                write_whole(file, lines.encode())
            else:
                file.unlink(missing_ok=True)
    return tuple(file for file, rows in files.items() if rows)


class _LeftOut(Exception):
    """Why a mark is no row."""


def _read(
    records: Iterable[Record],
) -> tuple[Callable[[int, int], _Turn | None], Marks, dict[int, str]]:
    """Finished turns by place (a fork's earlier ones are its parent's); of each turn the newest mark, while what it was
    preferred to are marks of their own; processes' experts."""
    state, turns, parents = MachineState(), dict[Place, _Turn](), dict[int, int]()
    experts = dict[int, str]()
    called, marks = set[Place](), Marks()
    for record in records:
        body, pid = record.body, record.pid
        match body:
            case Spawned():
                experts[pid] = body.expert
                if body.forked:
                    parents[pid] = body.parent
            case Intent():
                called.add((pid, body.turn))
            case Feedback():
                place = (pid, body.turn) if body.over is None else (pid, body.turn, body.of, body.over)
                marks.pop(place, None)  # the newest stands last
                marks[place] = record, body
            case Finished():
                before = state.processes.get(pid)
                asked = before and next((a for a in before.asked if a.turn == body.turn), None)
                if before and before.turn and asked:
                    known = (pid, body.turn) in called or (before.parent, body.turn) in called
                    turns[pid, body.turn] = _Turn(before, asked, before.turn.started, body, known)
            case _:
                pass
        state = fold(state, record)

    def turn_of(pid: int, turn: int) -> _Turn | None:
        while (pid, turn) not in turns and pid in parents:
            pid = parents[pid]
        return turns.get((pid, turn))

    return turn_of, marks, experts


def _said(
    record: Record,
    feedback: Feedback,
    journal: str,
    turns: Callable[[int, int], _Turn | None],
    prompt: ChatPrompt,
    tokenizer: Tokenizer,
    consent: Consent,
) -> Said:
    if feedback.verdict == "good" and not consent.praised:
        raise _LeftOut("praised answers are not learnt from")
    turn = _usable(turns(record.pid, feedback.turn), record.pid, feedback.turn, consent)
    asked = _asked(turn, prompt, tokenizer)
    right, wrong = turn.finished.answer, None
    if feedback.verdict == "correct":
        right, wrong = feedback.text, turn.finished.answer or None
        if not right.strip():
            raise _LeftOut("the correction is empty")
    else:
        _own_words(turn)
    if feedback.verdict == "prefer":
        of, over = feedback.of or record.pid, feedback.over or 0
        other = _usable(turns(of, over), of, over, consent)
        _own_words(other)
        if _alike(other.asked.text) != _alike(turn.asked.text):
            raise _LeftOut(f"turn {over} of process {of} was asked something else")
        wrong = other.finished.answer
        if _alike(wrong) == _alike(right):
            raise _LeftOut("both answers are the same")
    return Said(
        asked, right, wrong, feedback.verdict, record.pid, feedback.turn, record.time,
        turn.before.spawned.expert, turn.finished.label, journal, _alike(json.dumps([m["content"] for m in asked])),
    )  # fmt: skip


def _usable(turn: _Turn | None, pid: int, number: int, consent: Consent) -> _Turn:
    if turn is None:
        raise _LeftOut("the journal does not hold the turn (any more)")
    if (pid, number) in consent.left_out or (pid, 0) in consent.left_out:
        raise _LeftOut("its user left it out")
    readers = turn.finished.label.readers
    if readers is not None and (consent.readers is None or not consent.readers <= readers):
        raise _LeftOut(f"it read what only {', '.join(sorted(readers)) or 'nobody'} may read")
    if turn.called:
        raise _LeftOut("its answer rests on results of calls, which are not asked for again")
    if turn.asked.options.get("raw") or not turn.asked.text:
        raise _LeftOut("it was no question of a conversation")
    return turn


def _own_words(turn: _Turn) -> None:
    """The model's own answer is a target only where nothing untrusted was read for it, and it is whole."""
    if min(turn.finished.label.integrity, turn.asked.label.integrity) == Integrity.UNTRUSTED:
        raise _LeftOut("its answer rests on untrusted words")
    if turn.finished.reason != "stop" or not turn.finished.answer.strip():
        raise _LeftOut("its answer was cut")


def _asked(turn: _Turn, prompt: ChatPrompt, tokenizer: Tokenizer) -> tuple[Mapping[str, str], ...]:
    """The messages that stood in the window, by the code that laid it out."""
    settings, shown = turn.before.spawned.settings, None
    table = ""
    if turn.started.layout:
        layout = Layout.load(turn.started.window, turn.started.layout, tokenizer)
        shown = list(layout.passages) if settings.get("mounts") else None
        table = "".join(
            tokenizer.decode(turn.started.window[region.start : region.start + region.tokens])
            for region in layout.map()
            if region.kind == "syscall"
        )
    try:
        laid = lay_out(
            prompt, tokenizer, ROOM, turn.asked.text, label=turn.asked.label,
            instructions=str(settings.get("instructions", "")), passages=shown,
            conversation=turn.before.conversation, blend=settings.get("fidelity") == "blend",
        )  # fmt: skip
    except LLMOSError as error:
        raise _LeftOut(f"its window cannot be laid out again: {error.what}") from None
    messages = [{"role": m.role, "content": m.text} for m in laid.messages]
    if table:
        if messages[0]["role"] == "system":
            messages[0]["content"] += f"\n\n{TOOLS}{table}"
        else:
            messages.insert(0, {"role": "system", "content": TOOLS + table})
    return tuple(messages)


def _agreed(rows: Sequence[Said]) -> tuple[list[Said], list[str]]:
    """One row a question: the newest, and what it contradicts."""
    newest, told = dict[tuple[str, ...], Said](), list[str]()
    for row in sorted(rows, key=lambda row: row.when):
        answers = sorted((_alike(row.right), _alike(row.wrong or ""))) if row.mark == "prefer" else ()
        key = row.same, *answers
        older = newest.pop(key, None)
        if older is not None and _alike(older.right) != _alike(row.right):
            told.append(
                f"{older.place} and {row.place} ask the same: {older.right[:60]!r}, then {row.right[:60]!r}"
            )
        newest[key] = row
    return list(newest.values()), told


def _alike(text: str) -> str:
    """Equal of texts that differ in case, blanks and full stops alone."""
    return re.sub(r"[\s.]+", " ", text.casefold()).strip()
