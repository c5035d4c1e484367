"""Checkpoints: a process in a file, to go on elsewhere or later.

What: how the journal says that a process stands (conversation, questions, the turn under way with its words, seeds and
    calls, letters), and the KV of its window. A grammar is not in it: the turn makes it again from the same words.
Invariant: a file is whole or refused; so is one of other weights or numerics, or of an adapter that is not here. KV is
    only what saves computing: what the file lacks is computed, and it is taken for this process's own tokens only. Who
    resumes gets another pid, and the same words: seeds and path of forks are the old ones. A call whose outcome was
    open is treated as after a crash: what may not be repeated waits for the user. The process that was saved goes on as
    well. Whole results that its window has only the head of stay behind.
Interface: `save(process, path)`, `resume(kernel, path) -> Process`. Believe a file as you would a program: it says
    what the process has heard and what its KV is.
"""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmos.abi.errors import CheckpointError, DiskFull, JournalError, WeightsError
from llmos.drivers.whole import write_whole
from llmos.kernel.engine.sequence import Request, Sequence, Stream
from llmos.kernel.grants import Grant, check
from llmos.kernel.journal.records import (
    Asked,
    Body,
    Finished,
    Forced,
    Parked,
    Record,
    Sampled,
    Sent,
    Signalled,
    Spawned,
)
from llmos.kernel.journal.state import MachineState, ProcessState, RunningTurn, dump, fold_all, load
from llmos.kernel.lastturn import last_turn
from llmos.kernel.layout import Layout, resumed
from llmos.memory.pagefile import Damaged, Page, seal, unseal
from llmos.memory.pages import KEY_BYTES

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process

FORMAT = 1
EVERY = 1 << 30  # pages of a window


def save(process: Process, path: Path) -> Path:
    """Write a checkpoint of a process as it stands, running or not; where it lies.

    Raises:
        CheckpointError: the process has ended, or the file cannot be written.
        DiskFull: there is no room for it; nothing was left.
    """
    kernel, pid = process.kernel, process.pid
    kernel.journal.wait(kernel.appended)
    state = kernel.journal.unfinished().processes.get(pid)
    if state is None or state.ended is not None:
        raise CheckpointError(f"process {pid} has ended", why="there is nothing left to go on with")
    turn = state.turn or last_turn(kernel, process)
    pages = {} if turn is None else _pages(kernel, _keys(kernel, turn))
    about = {
        "format": FORMAT, "llmos": version("llmos"), "weights": kernel.runner.identity,
        "window": 0 if state.turn is None else len(state.turn.tokens),
        "process": json.loads(_dump(state)),
        "read": json.loads(_dump(ProcessState(pid, Spawned(), 0, turn=turn))),  # the window that the pages are of
    }  # fmt: skip
    tensors = {
        "keys": np.frombuffer(b"".join(pages), np.uint8).reshape(len(pages), KEY_BYTES),
        "pages": np.stack(list(pages.values())) if pages else np.empty((0, 0), np.uint8),
    }
    try:
        write_whole(path, seal(tensors, json.dumps(about)), private=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room for the checkpoint {path}", why="the disk is full", do="free some space"
            ) from None
        raise CheckpointError(
            f"the checkpoint {path} cannot be written", why=error.strerror or str(error),
            do="name a file in a folder that you may write to",
        ) from None  # fmt: skip
    return path


def resume(kernel: Kernel, path: Path) -> Process:
    """A process that goes on where that of the checkpoint stood; see `Kernel.resume`."""
    state, pages = _read(kernel, path)
    grants = [Grant.parse(grant) for grant in state.spawned.grants]
    if grants:
        check(grants, kernel.syscalls)
    for key, page in pages.items():
        kernel.pages.put(key, page)
    pid = kernel.table.admit()
    records = [
        Record(kernel.append(pid_of, body), 0.0, pid_of, body) for pid_of, body in _records(pid, state)
    ]
    restored = fold_all(MachineState(), records).processes[pid]
    kernel.journal.wait(records[-1].seq)
    kernel.loop.run(kernel.restore([restored]))
    return kernel.process(pid)


def _read(kernel: Kernel, path: Path) -> tuple[ProcessState, dict[bytes, Page]]:
    """State and pages of a file that fits this kernel; CheckpointError."""
    try:
        tensors, told = unseal(path.read_bytes())
        about: dict[str, Any] = json.loads(told)
        if about["format"] != FORMAT:
            raise CheckpointError(
                f"the checkpoint {path} is of format {about['format']}", why=f"this version reads {FORMAT}",
                do=f"resume it with llmos {about['llmos']}",
            )  # fmt: skip
        weights, window = str(about["weights"]), int(about["window"])
        state, last = _load(about["process"]), _load(about["read"]).turn
        keys, pages = tensors["keys"], tensors["pages"]
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read", why=error.strerror or str(error)
        ) from None
    except (Damaged, JournalError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no whole checkpoint",
            why=str(error),
            do="make another from the process: llmos checkpoint",
        ) from None
    if weights != kernel.runner.identity:
        raise CheckpointError(
            f"the checkpoint {path} is of other weights",
            why=f"it was made with {weights}, and {kernel.runner.identity} runs here",
            do="start the kernel with the model and the `kernel.numerics` that it was made with",
        )
    if window >= kernel.window:
        raise CheckpointError(
            f"the turn in {path} does not fit", why=f"it has {window} tokens, a window here {kernel.window}",
            do="raise `kernel.window` in llmos.yaml",
        )  # fmt: skip
    _check_adapters(kernel, path, state)
    own = set() if last is None else set(_keys(kernel, last))
    size = kernel.engine.swap.page_bytes
    if pages.ndim != 2 or len(keys) != len(pages) or (len(pages) and pages.shape[1] != size):
        raise CheckpointError(f"{path} is no whole checkpoint", why="its pages are not of this model's size")
    # Each in memory of its own: one that stays must not hold that of the others.
    return state, {k.tobytes(): p.copy() for k, p in zip(keys, pages, strict=True) if k.tobytes() in own}


def _check_adapters(kernel: Kernel, path: Path, state: ProcessState) -> None:
    """CheckpointError where this machine lacks an adapter that the process runs with."""
    wanted = [*state.spawned.settings.get("adapters", ())][-1:]
    if state.turn is not None:
        wanted.append(str(state.turn.started.layout.get("adapter", "")))
    for adapter in filter(None, wanted):
        try:
            kernel.adapters.get(adapter)
        except WeightsError as error:
            raise CheckpointError(
                f"the process in {path} runs with an adapter that is not here", why=str(error),
                do=f"have it here first (`llmos ask --adapter PATH` keeps it): version {adapter[:12]}",
            ) from None  # fmt: skip


def _dump(state: ProcessState) -> bytes:
    return dump(MachineState(0, state.pid, {state.pid: state}))


def _load(told: Any) -> ProcessState:
    (state,) = load(json.dumps(told).encode()).processes.values()
    return state


def _records(pid: int, state: ProcessState) -> Iterator[tuple[int, Body]]:
    """What the journal of another machine has to say for a process to stand like this: (pid, record)."""
    yield pid, replace(state.spawned, parent=0, forked=False)
    for e in state.conversation:
        yield pid, Asked(e.turn, e.question, e.asked)
        yield pid, Finished(e.turn, e.answer, "stop", e.label)
    used = max([e.turn for e in state.conversation] + [a.turn for a in state.asked], default=0)
    if state.turns > used:
        yield pid, Asked(state.turns, "")
        yield pid, Finished(state.turns, "", "cancelled")
    for asked in state.asked:
        yield pid, asked
    for letter in state.mailbox:
        yield 0, Sent(pid, letter.content, letter.label)
    if state.turn is not None:
        yield from ((pid, body) for body in _turn_records(state.turn))
    if state.ending:
        yield pid, Signalled("TERM")
    if state.stopped and not any(c.parked for c in (state.turn.calls if state.turn else ())):
        yield pid, Signalled("STOP")


def _turn_records(turn: RunningTurn) -> Iterator[Body]:
    number, position = turn.started.turn, len(turn.started.window)
    yield turn.started
    for run in turn.runs:
        if run.origin == "sampled":
            yield Sampled(number, position, run.tokens)
        else:
            yield Forced(number, position, run.tokens, run.call, run.label)
        position += len(run.tokens)
    if turn.considered is not None:
        yield turn.considered
    for call in turn.calls:
        yield call.intent
        if call.result is not None:
            yield call.result
    for call in turn.calls:
        if call.parked:
            yield Parked(number, call.intent.call, call.parked)
    if turn.interrupted:
        yield Signalled("INT")


# -- the KV of a window ------------------------------------------------------------------------------------------


def _keys(kernel: Kernel, turn: RunningTurn) -> list[bytes]:
    """Of the full pages of a turn's window, in order."""
    layout, known = resumed(
        Layout.load(turn.started.window, turn.started.layout, kernel.tokenizer), turn.runs, kernel.tokenizer
    )
    adapter = kernel.adapters.get(layout.adapter)
    request = Request(tokens=layout.tokens, max_tokens=1, labels=layout.labels, adapter=adapter)
    sequence = Sequence(request, Stream(), kernel.engine.pool, 0)
    sequence.tokens += known
    return sequence.wanted(EVERY)


def _pages(kernel: Kernel, keys: list[bytes]) -> dict[bytes, Page]:
    """These pages in order, from pool, host memory or disk, up to the first that is nowhere."""
    found: dict[bytes, Page] = {}
    while some := _more(kernel, keys[len(found) :]):
        found |= some
    return found


def _more(kernel: Kernel, keys: list[bytes]) -> dict[bytes, Page]:
    """The first of these pages, those that lie in one place."""
    if some := kernel.engine.run(lambda: kernel.engine.swap.copies(keys)):
        return some
    done = threading.Event()

    def then(fetched: dict[bytes, Page], lost: int) -> None:
        some.update(fetched)
        done.set()

    kernel.pages.fetch(keys, then)
    done.wait()
    return some
