"""Kills a kernel's journal, again and again, and looks at what is left. `python -m tests.kernel.journal.crashes N`

What: this process forks a child that opens the journal and works (appends, waits, delivers, snapshots, prunes); the
    child is killed -9 by us at a random time, or kills itself at a named point; then the journal is opened and
    compared with what the child had reported over a pipe.
Invariant: the child reports a record before it appends it, and once more when `after` said that it is durable.
    Lost: reported durable and not there. Doubled: there twice, or other than it was appended. Corrupt: the chain
    does not verify, or a loss is told. Each number must be 0.
Interface: `run(folder, crashes, seed) -> Report`, `run_recovery(folder)`; as a program it prints the report as JSON.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmos.kernel.journal import Journal, Retention, chain, journal, owner, recovery, snapshot, store, writer
from llmos.kernel.journal.records import Exited, Reaped, Sampled, Sent, Spawned, Started
from llmos.kernel.journal.state import MachineState, dump, fold_all, load
from tests.kernel.journal.folders import WAL, files, lay, scratch, survey
from tests.kernel.journal.records import conversation

POLICY = Retention(days=0, snapshot_records=150, keep_feedback=False)
POINTS: tuple[tuple[object, str], ...] = (
    (owner.Owner, "__init__"),
    (chain.Head, "__init__"),
    (chain.Head, "write"),
    (chain.os, "pwrite"),
    (chain.os, "fdatasync"),
    (journal, "recover"),
    (recovery, "_install"),
    (store, "migrate"),
    (store.Store, "append"),
    (store.Store, "_commit"),
    (store.Store, "checkpoint"),
    (store.Store, "put_snapshot"),
    (store.Store, "drop_snapshots"),
    (store.Store, "remove"),
    (store.Store, "put_gap"),
    (writer.Writer, "append"),
    (writer.Writer, "_write"),
    (writer.Writer, "_deliver"),
    (writer.Writer, "close"),
    (snapshot, "take"),
    (snapshot, "_forget"),
    (journal.Journal, "snapshot"),
    (journal.Journal, "close"),
)
"""Every function where the journal's state on the disk or in the queue changes; killed before it and after it."""

RECOVERY_POINTS: tuple[tuple[object, str], ...] = (
    (recovery, "_set_aside"),
    (recovery, "_rebuild"),
    (recovery, "_install"),
    (recovery, "sync"),
    (recovery, "examine"),
    (recovery.os, "link"),
    (recovery.shutil, "copy2"),
    (recovery.Path, "rename"),
    (recovery.Path, "unlink"),
    (store.Store, "put"),
    (store.Store, "_commit"),
)
"""Where a start that mends a damaged journal can be cut short."""


@dataclass
class Report:
    crashes: int = 0
    killed_at: Counter[str] = field(default_factory=Counter)
    durable: int = 0
    lost: int = 0
    doubled: int = 0
    corrupt: int = 0
    last: int = 0


def die_at(where: object, name: str, after: bool, hit: int) -> None:
    """From now on, the `hit`-th call of this function is where this process is killed."""
    real: Callable[..., Any] = getattr(where, name)
    left = hit

    @functools.wraps(real)
    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(where, name, dying)


def gist(pid: int, body: Any) -> str:
    """A record in a few bytes: a line of a pipe is whole only while it is short."""
    return f"{pid} {blake2b(repr(body).encode(), digest_size=8).hexdigest()}"


def work(folder: Path, crash: int, rng: random.Random, report: Callable[[str], None]) -> None:
    """What a kernel does: boot, resume what is unfinished, run processes, deliver, keep the log short."""
    with Journal.open(folder, POLICY) as log:
        if log.loss:
            report(f"! {log.loss}")
        for process in list(log.unfinished().processes.values()):
            for body in (Exited("resumed"), Reaped()) if process.ended is None else (Reaped(),):
                log.append(process.pid, body)
        number = 0

        def append(pid: int, body: Any) -> None:
            report(f"a {gist(pid, body)}")
            seq = log.append(pid, body)
            log.after(seq, lambda: report(f"d {seq}"))

        for _ in range(rng.randrange(1, 4)):
            pid = log.unfinished().pids + 1
            append(pid, Spawned(expert=f"crash {crash}"))
            append(pid, Started(1, (1, 2)))
            for i in range(rng.randrange(2, 10)):
                number += 1
                append(pid, Sampled(1, 2 + i, (crash, number)))
                append(pid, Sent(pid, [crash, number, "x" * rng.choice([0, 10, 5000, 50_000])]))
                log.commit()
                if rng.random() < 0.3:
                    log.wait(log._writer.last)
            log.maintain()


def child(
    folder: Path, crash: int, seed: int, pipe: int, point: tuple[object, str, bool, int] | None
) -> None:
    """The process that dies; never returns."""
    try:
        if point:
            die_at(*point)
        work(folder, crash, random.Random(seed), lambda line: os.write(pipe, f"{line}\n".encode()) and None)
        os._exit(0)
    except BaseException as error:
        os.write(pipe, f"! {type(error).__name__}: {error}\n".encode())
        os._exit(1)


def one(folder: Path, crash: int, rng: random.Random) -> tuple[str, list[str]]:
    """Fork, let it die, and return where it died and what it had said."""
    point, name, delay_s = None, "random", rng.uniform(0.001, 0.08)
    if crash % 2:
        where, what = POINTS[crash // 2 % len(POINTS)]
        after = bool(crash // 2 // len(POINTS) % 2)
        point = (where, what, after, int(rng.paretovariate(0.8)))
        name, delay_s = f"{'after' if after else 'before'} {getattr(where, '__name__', '')}.{what}", 60.0
    read, write = os.pipe()
    seed = rng.randrange(1 << 30)
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(folder, crash, seed, write, point)
    os.close(write)
    said, deadline = bytearray(), time.monotonic() + delay_s
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
            continue
        if select.select([read], [], [], min(left, 60))[0]:
            data = os.read(read, 1 << 16)
            if not data:
                break
            said += data
    os.close(read)
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        name = "not killed" if os.WEXITSTATUS(status) == 0 else "failed"
    return name, said.decode().split("\n")[:-1]  # a last line that is cut short was never said


def run(folder: Path, crashes: int, seed: int) -> Report:
    """See the module."""
    report, rng, last, deadline = Report(), random.Random(seed), 0, time.monotonic() + 1 + crashes
    Journal.open(folder, POLICY).close()
    load(dump(MachineState()))  # what a child needs is imported and compiled before it is made
    for attempt in itertools.count():
        if report.crashes == crashes:
            break
        where, lines = one(folder, attempt, rng)
        report.crashes += where != "not killed"
        report.killed_at[where] += 1
        appended = [line[2:] for line in lines if line.startswith("a ")]
        durable = {int(line[2:]) for line in lines if line.startswith("d ")}
        report.durable += len(durable)
        wrong = [line for line in lines if line.startswith("!")]
        with Journal.open(folder, POLICY) as log:
            # Pruned records are gone by the policy; the child prunes what is older than its last two snapshots.
            pruned = max((gap.last for gap in log._writer._store.gaps()), default=0)
            here = list(log.records(after=last))
            if log.loss:
                wrong.append(str(log.loss))
            if report.crashes % 50 == 0 and (loss := log.verify()):
                wrong.append(str(loss))
            state = log.unfinished()
            if not pruned and state != fold_all(MachineState(), log.records()):
                wrong.append("the state is not the fold of the records")
            end = log._writer.last
        numbers = [r.seq for r in here]
        report.corrupt += len(wrong)
        for line in wrong:
            print(line, file=sys.stderr)
        report.lost += len(durable - set(numbers) - set(range(pruned + 1))) + (end < max(durable, default=0))
        # What is there of this child's own records is a beginning of what it appended, in its order.
        mine = [gist(r.pid, r.body) for r in here if not isinstance(r.body, Exited | Reaped)]
        starts = range(len(appended) - len(mine) + 1) if pruned > last else (0,)
        report.doubled += not any(appended[i : i + len(mine)] == mine for i in starts)
        report.doubled += numbers != list(range(max(last, pruned) + 1, end + 1))
        last = end
        if time.monotonic() > deadline:
            raise TimeoutError(f"{report}")
    report.last = last
    with Journal.open(folder, whole=True) as log:
        report.corrupt += log.loss is not None
    return report


def run_recovery(folder: Path) -> Report:
    """A damaged journal, and a start that mends it killed at every point; the next start must make it good."""
    with Journal.open(folder / "original") as log:
        for pid, body in conversation(steps=60):
            seq = log.append(pid, body)
            if pid == 3:
                log.wait(seq)
        state, written = files(folder / "original"), {r.seq: r for r in log.records()}
    at = state[WAL].index(b'"position":33')
    state = {**state, WAL: state[WAL][:at] + b"!" + state[WAL][at + 1 :]}
    report = Report()
    for where, name in RECOVERY_POINTS:
        for after, hit in itertools.product((False, True), (1, 2, 3)):
            copy = lay(folder / "copy", state)
            pid = os.fork()
            if pid == 0:
                die_at(where, name, after, hit)
                with Journal.open(copy):
                    os._exit(0)
            if os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
                report.crashes += 1
                report.killed_at[f"{'after' if after else 'before'} {name}"] += 1
                loss = survey(copy, written, len(written), state)
                report.corrupt += loss is None or loss.records == len(written)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the journal's owner, and look at what is left.")
    parser.add_argument("crashes", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--recovery", action="store_true", help="kill starts that mend a damaged journal instead"
    )
    arguments = parser.parse_args()
    with scratch() as folder:
        report = (
            run_recovery(folder) if arguments.recovery else run(folder, arguments.crashes, arguments.seed)
        )
    print(json.dumps(vars(report)))
    return int(bool(report.lost or report.doubled or report.corrupt))


if __name__ == "__main__":
    sys.exit(main())
