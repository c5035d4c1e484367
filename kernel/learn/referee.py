"""The referee: answers are checked in a process of its own, which may hang or crash.

What: a process that holds a domain and says how good answers are. One that takes too long, dies, raises or says what is
    no reward is a fault: the answer counts 0, and the next is checked by a fresh process.
Invariant: no answer stops a run. Time, processor and memory of a check are bounded. What a check prints is no verdict.
    Questions and verdicts are JSON; a domain is named by its class and its fields, never pickled.
Interface: `Referee(domain, seconds)`, `judge(task, answer) -> Verdict`, `close`; a context manager.
"""

from __future__ import annotations

import json
import math
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO

from llmos.abi.errors import LearningError
from llmos.kernel.learn.domains import Domain, Task, described, restored

SECONDS = 10.0  # of a check; it takes a millisecond, but machines are loaded
STARTING = 120.0  # seconds until a referee is there
ENDING = 20.0  # seconds that it has to end what it began
MEMORY = 2 << 30  # bytes of address space
LONGEST = 16 << 10  # characters of an answer: the question fits the pipe, so that asking never waits


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reward from 0 to 1; what went wrong with the check itself, where something did."""

    reward: float
    fault: str = ""


class Referee:
    """See the module. Not thread-safe."""

    def __init__(self, domain: Domain, seconds: float = SECONDS) -> None:
        self._said, self._seconds = json.dumps(described(domain)), seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = b""

    def __enter__(self) -> Referee:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def judge(self, task: Task, answer: str) -> Verdict:
        """How good an answer is.

        Raises:
            LearningError: no referee can be started.
        """
        if len(answer) > LONGEST:
            return Verdict(0.0, f"the answer has {len(answer)} characters, {LONGEST} are checked")
        process = self._process or self._start()
        line = self._asked(process, {"task": asdict(task), "answer": answer}, self._seconds)
        if line is None:
            process.kill()
            self.close()
            return Verdict(0.0, f"no verdict after {self._seconds:g} s")
        if not line:
            with suppress(subprocess.TimeoutExpired):
                process.wait(self._seconds)
            self.close()
            return Verdict(0.0, f"it ended with {process.returncode}")
        try:
            said = json.loads(line)
            if "fault" in said:
                return Verdict(0.0, str(said["fault"])[:200])
            reward = float(said["reward"])
        except (ValueError, TypeError, KeyError):
            return Verdict(0.0, "it said no reward")
        if not (math.isfinite(reward) and 0 <= reward <= 1):
            return Verdict(0.0, f"it said {reward}, which is not from 0 to 1")
        return Verdict(reward)

    def close(self) -> None:
        """End its process, which may first end what it began. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self._heard = b""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from llmos.kernel.learn.referee import serve; serve()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        said = self._asked(self._process, json.loads(self._said), STARTING)
        if not said or b"ready" not in said:
            self.close()
            raise LearningError(
                "no referee could be started", why=(said or b"it ended, or said nothing").decode(errors="replace"),
                do="the domain's module has to be importable, its fields numbers and words",
            )  # fmt: skip
        return self._process

    def _asked(self, process: subprocess.Popen[bytes], question: object, seconds: float) -> bytes | None:
        """The line that it says to a question; nothing where it has ended, None where it says nothing in time."""
        assert process.stdin is not None and process.stdout is not None
        end = time.monotonic() + seconds
        try:
            process.stdin.write(json.dumps(question, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            process.stdin.flush()
        except OSError:
            return b""
        ready = select.poll()
        ready.register(process.stdout, select.POLLIN)
        while b"\n" not in self._heard:
            left = max(0.0, end - time.monotonic())
            if not ready.poll(1000 * left):
                return None
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                return b""
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line


def serve() -> None:
    """The referee's process: a domain first, then answers, a line each."""
    with os.fdopen(os.dup(1), "w") as out:
        nowhere = os.open(os.devnull, os.O_RDWR)
        questions = os.fdopen(os.dup(0), "rb")
        os.dup2(nowhere, 0)  # whatever a check reads or prints, it is neither a question nor a verdict
        os.dup2(nowhere, 1)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _serve(questions, out)


def _serve(questions: Iterable[bytes], out: IO[str]) -> None:
    lines = iter(questions)

    def say(said: object) -> None:
        print(json.dumps(said), file=out, flush=True)

    try:
        domain = restored(json.loads(next(lines)))
        if (prepare := getattr(domain, "prepare", None)) is not None:
            prepare()  # what its checks stand on takes longer than one of them may
    except Exception as error:  # whatever a domain's module does
        say({"failed": f"{type(error).__name__}: {error}"})
        return
    say("ready")
    for line in lines:
        given = json.loads(line)
        task = Task(given["task"]["question"], int(given["task"]["level"]), tuple(given["task"]["facts"]))
        try:
            said: object = {"reward": float(domain.check(task, given["answer"]))}
        except Exception as error:  # a check that fails is told, and counts as wrong
            said = {"fault": f"{type(error).__name__}: {error}"}
        say(said)
