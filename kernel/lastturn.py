"""The last turn of a process, as the journal has it.

What: from records to the windows that the model read in a turn, each with the words that it wrote behind it.
Invariant: reads only. What the journal has forgotten is an error, never a guess.
Interface: `last_turn(kernel, process) -> RunningTurn | None`; `bursts(kernel, process) -> list[Burst]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmos.abi.errors import ProcessError
from llmos.kernel.journal.records import Forced, Intent, Record, Sampled, Spawned, Started
from llmos.kernel.journal.state import MachineState, RunningTurn, fold
from llmos.kernel.layout import Layout

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process


@dataclass(frozen=True, slots=True)
class Burst:
    """A window as it stood, and the words that followed: a call, or (the last) the answer."""

    turn: int
    layout: Layout
    tokens: tuple[int, ...]


def last_turn(kernel: Kernel, process: Process) -> RunningTurn | None:
    """The last turn that a process began, or that its parent had when it was forked."""
    born = fold(MachineState(), Record(0, 0.0, process.pid, Spawned()))
    state = born
    for record in kernel.journal.records(process.pid, kinds=[Started, Sampled, Forced, Intent]):
        state = fold(born if isinstance(record.body, Started) else state, record)
    turn = state.processes[process.pid].turn
    if turn is None and process.spawned.forked and process.parent:
        return last_turn(kernel, kernel.process(process.parent))
    return turn


def bursts(kernel: Kernel, process: Process) -> list[Burst]:
    """All that the model wrote in the last turn, in order; the last may still be growing.

    Raises:
        ProcessError: it has had no turn, or the journal does not hold it any more.
    """
    kernel.journal.wait(kernel.appended)
    turn = last_turn(kernel, process)
    if turn is None or not turn.started.layout:
        raise ProcessError(
            f"nothing is known of a turn of process {process.pid}",
            why="it has not been asked anything, or the journal keeps it no more",
            do="ask it something first",
        )
    number, tokenizer = turn.started.turn, kernel.tokenizer
    layout = Layout.load(turn.started.window, turn.started.layout, tokenizer)
    found: list[Burst] = []
    said: tuple[int, ...] = ()
    for run in turn.runs:
        if run.call is None:
            said += run.tokens
        else:
            found.append(Burst(number, layout, said))
            layout, said = layout.after(said, run.tokens, run.label, tokenizer), ()
    live = process.questions.window
    if live is not None and live.tokens == layout.tokens:
        layout = live  # it knows which result came of what
    return [*found, Burst(number, layout, said)]
