"""Kills a kernel, again and again, until every process has answered. `python -m tests.kernel.crashes N`

What: this process forks a child that boots a kernel with a scripted model on a state folder and works: processes
    answer questions, pay (`keyed`), write mail (`query`), shout (`never`), look at prices (`safe`), send each other
    letters. The child is killed -9 at a random time; then the next boots on what is left.
Invariant: each payment and each mail that was written happens exactly once, a shout at most once, and where nobody
    knows its process stands stopped until it is told to go on. What a reader was shown stays as it was shown. Lost: a
    process that never answers, or other words than were shown. Doubled: a call that took effect twice. Each must be 0.
Interface: `run(folder, crashes, seed) -> Report`; as a program it prints the report as JSON.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import random
import re
import select
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from llmos.abi.app import App, Call, Payload, Target, query, syscall
from llmos.abi.config import Config, MachineConfig, MemoryConfig
from llmos.abi.errors import LLMOSError
from llmos.abi.events import Token
from llmos.kernel import apps as apps_module
from llmos.kernel import grounding as _warm  # noqa: F401  imported before the fork, like everything else
from llmos.kernel.engine import grammar as _grammar  # noqa: F401
from llmos.kernel.engine.scripted import ScriptedRunner, byte_tokenizer, call, chat_template
from llmos.kernel.journal import read
from llmos.kernel.journal.records import Finished, Spawned
from llmos.kernel.kernel import Kernel
from llmos.kernel.system import SYSTEM
from llmos.kernel.systemcall import SystemCall

PROCESSES = 6  # that are at work at once
HUNG_S = 200
IDLE_S = 5.0  # that a kernel may live beyond what it computes
LOOK_S = 0.003  # between two looks at how long a kernel has lived


class Till(App):
    """What can be counted afterwards: each effect is a line of a file."""

    def __init__(self, kernel: Kernel) -> None:
        self._file = kernel.state.parent / "effects"

    def _did(self, what: str) -> None:
        with self._file.open("a") as file:
            file.write(what + "\n")

    def _has(self, what: str) -> bool:
        return self._file.exists() and what in self._file.read_text().splitlines()

    @syscall(effect="read", retry="safe")
    async def price(self, call: Call, item: str) -> int:
        """A price."""
        return len(item)

    @syscall(effect="pay", retry="keyed")
    async def pay(self, call: Call, to: Annotated[str, Target]) -> str:
        """Pay once for each key."""
        if not self._has(f"pay {_key(call)}"):
            self._did(f"pay {_key(call)}")
        return f"paid {to}"

    @syscall(effect="send", retry="query")
    async def mail(self, call: Call, text: Annotated[str, Payload]) -> str:
        """Send a mail, whatever the key."""
        self._did(f"mail {_key(call)}")
        return "mailed"

    @query(mail)
    async def mailed(self, call: Call, key: str) -> str | None:
        """What came of it."""
        return "mailed" if self._has(f"mail {key}") else None

    @syscall(effect="send", retry="never")
    async def shout(self, call: Call, text: Annotated[str, Payload]) -> str:
        """Shout, whatever the key."""
        self._did(f"shout {_key(call)}")
        return "shouted"


def _key(call: object) -> str:
    assert isinstance(call, SystemCall)
    return call.key


def script(window: str) -> str:
    """Talks, makes calls of each kind in some order, the same ones twice, and says what came of them."""
    question = re.split(r"<\|im_end|\n\nFunctions", window.rpartition("<|im_start|>user\n")[2])[0]
    rest = window.rpartition("<|im_start|>user\n")[2]
    read = re.findall(r"<\|im_start\|>tool\n(.*?)<\|im_end", rest, re.DOTALL)
    order = random.Random(question)
    steps = [
        call("till.price", item=question), call("till.pay", to="bob"), "\n".join([call("till.mail", text="hi")] * 2),
        call("till.shout", text="ho"), "\n".join([call("till.pay", to="ann"), call("till.price", item="x")] * 2),
    ]  # fmt: skip
    order.shuffle(steps)
    done, at = 0, 0
    while at < len(steps) and done < len(read):
        done += steps[at].count("<tool_call>")
        at += 1
    words = "so " * order.randrange(3, 30)
    return f"I go on {words}" + steps[at] if at < len(steps) else f"{question} is answered {words}"


@dataclass
class Report:
    """What came of it; `shown` counts the pieces of text that readers saw before their kernel died."""

    crashes: int = 0
    answered: int = 0
    effects: int = 0
    parked: int = 0
    shown: int = 0
    lost: int = 0
    doubled: int = 0
    corrupt: int = 0
    seconds: float = 0.0


def boot(folder: Path) -> Kernel:
    """A kernel on what is there, with the till among its own apps."""
    apps_module.SYSTEM = (*SYSTEM, Till)  # type: ignore[misc]
    config = Config(machine=MachineConfig(state=folder / "machine"), memory=MemoryConfig(ram=1 << 16))
    return Kernel(
        config,
        ScriptedRunner(script, pages=320, window=4992),  # so that windows are swapped, in memory and to disk
        byte_tokenizer(),
        chat_template(),
        state=folder / "kernel",
        asker=lambda _: True,
    )


def work(folder: Path, wanted: int, tell: Callable[[str], None]) -> None:
    """One life of a kernel: go on with what is there and begin what is not, until `wanted` processes have answered."""
    kernel = boot(folder)
    tell("booted")
    if kernel.journal.loss:
        tell(f"loss {kernel.journal.loss}")
    threading.Thread(target=release, args=(kernel, tell), daemon=True).start()
    spawned = max((record.pid for record in kernel.journal.records(kinds=[Spawned])), default=0)
    while len(kernel.ps()) < PROCESSES and spawned < wanted:
        process = kernel.spawn(grants=["till"])
        process.ask(f"number {process.pid}", max_tokens=4000, detached=True)
        spawned = process.pid
    for process in kernel.table:
        if (turn := process.current) is None and not process.conversation:  # it died before it was asked
            turn = process.ask(f"number {process.pid}", max_tokens=4000, detached=True)
        try:
            for event in turn or ():
                if isinstance(event, Token):
                    tell(f"said {process.pid} {event.text}")
        except LLMOSError as error:
            tell(f"error {process.pid} {error}")
        process.close()
    kernel.close()
    if spawned >= wanted:
        tell("finished")


def release(kernel: Kernel, tell: Callable[[str], object]) -> None:
    """Let those go on that stand parked, whenever a turn comes so far: some do a good while after the boot."""
    while True:
        for process in kernel.table:
            if process.state == "stopped":
                tell(f"parked {process.pid}")
                process.signal("CONT")
                while process.state == "stopped":
                    time.sleep(LOOK_S)
        time.sleep(LOOK_S)


def live(folder: Path, wanted: int, life_s: float | None) -> tuple[list[str], bool]:
    """Fork a kernel, kill it `life_s` seconds after its boot (before 0: after its birth): the lines that it told,
    and whether it was killed. Seconds are those that it computes: on a loaded machine it comes as far as on another."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        faulthandler.dump_traceback_later(HUNG_S, exit=True)  # a kernel that hangs has lost its processes
        work(folder, wanted, lambda line: os.write(into, line.encode()[:500] + b"\0") and None)
        os._exit(0)
    os.close(into)
    told, end = b"", None if life_s is None or life_s > 0 else -life_s
    late = time.monotonic() + IDLE_S  # a kernel that has nothing to compute is killed all the same

    def due() -> bool:
        return end is not None and (_computed(pid) >= end or time.monotonic() >= late)

    while True:
        if not select.select([out], [], [], None if end is None else LOOK_S)[0]:
            if due():
                os.kill(pid, signal.SIGKILL)
                end = None
            continue
        if not (more := os.read(out, 1 << 16)):
            break
        if not told and life_s is not None and life_s > 0:
            end, late = _computed(pid) + life_s, time.monotonic() + IDLE_S
        told += more
        if due():
            os.kill(pid, signal.SIGKILL)
            end = None
    os.close(out)
    return told.decode().split("\0")[:-1], os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _computed(pid: int) -> float:
    """Seconds of processor time that a child of ours has had, all threads together."""
    return time.clock_gettime(
        (~pid << 3) | 2
    )  # Linux's number for that clock, as clock_getcpuclockid(3) gives it


def run(folder: Path, crashes: int, seed: int) -> Report:
    """Kill until there were so many crashes, then let the rest be answered, and count."""
    rng, report, began = random.Random(seed), Report(), time.monotonic()
    shown: dict[int, list[str]] = {}
    live(folder, 1, None)  # what apps offer is read once and kept
    while True:
        last = report.crashes >= crashes
        wanted = 0 if last else 1 << 30
        told, killed = live(folder, wanted, None if last else rng.uniform(-0.1, 0.8))
        texts: dict[int, str] = {}
        for line in told:
            kind, _, rest = line.partition(" ")
            if kind == "said":
                pid, _, text = rest.partition(" ")
                texts[int(pid)] = texts.get(int(pid), "") + text
                report.shown += 1
            report.parked += kind == "parked"
            report.corrupt += kind == "loss"
            report.lost += kind == "error"
        for number, text in texts.items():
            shown.setdefault(number, []).append(text)
        report.crashes += killed
        if last:
            break
    _judge(folder, report, shown)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _judge(folder: Path, report: Report, shown: dict[int, list[str]]) -> None:
    effects = Counter((folder / "effects").read_text().splitlines())
    report.effects = len(effects)
    report.doubled = sum(count - 1 for count in effects.values())
    done = {r.pid: r.body for r in read(folder / "kernel", kinds=[Finished]) if isinstance(r.body, Finished)}
    twice = Counter(r.pid for r in read(folder / "kernel", kinds=[Finished]))
    report.doubled += sum(count - 1 for count in twice.values())
    made = Counter(f"{what} {key.split('-')[1]}" for what, key in (line.split() for line in effects))
    for pid in {r.pid for r in read(folder / "kernel", kinds=[Spawned])}:
        body = done.get(pid)
        whole = said(pid)
        report.answered += body is not None
        report.lost += body is None or body.answer != whole[-1].strip()
        report.lost += made[f"pay {pid}"] != 3 or made[f"mail {pid}"] != 2  # a shout may not have been heard
        report.lost += sum(text not in "".join(whole) for text in shown.get(pid, ()))


def said(pid: int) -> list[str]:
    """What the process says between its calls, had nobody killed it."""
    window, words = f"<|im_start|>user\nnumber {pid}<|im_end|>\n<|im_start|>assistant\n", list[str]()
    while "<tool_call>" in (reply := script(window)):
        text, _, calls = reply.partition("<tool_call>")
        words.append(text)
        window += "<|im_start|>tool\nx<|im_end|>\n" * (calls.count("<tool_call>") + 1)
    return [*words, reply]


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a kernel, and look at what its processes did.")
    parser.add_argument("crashes", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), arguments.crashes, arguments.seed)
    print(json.dumps(asdict(report)))
    return int(bool(report.lost or report.doubled or report.corrupt))


if __name__ == "__main__":
    sys.exit(main())
