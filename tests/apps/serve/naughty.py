"""Apps that misbehave, and two that do not; tests serve them in processes of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, cast

from pydantic import BaseModel

from llmos.abi.app import App, Call, File, Image, Payload, Target, Text, query, syscall
from llmos.abi.errors import AppUnavailable


class Verdict(BaseModel):
    good: bool


class Naughty(App, secrets=("door",)):
    """Misbehaves as it is told."""

    @syscall(effect="none", retry="safe")
    def unplugged(self) -> str:
        """What it needs is not there."""
        raise AppUnavailable("there is no camera", do="plug one in")

    @syscall(effect="execute", deadline=1.0)
    def hang(self) -> int:
        """Never returns and cannot be stopped."""
        while True:
            time.sleep(60)

    @syscall(effect="execute", deadline=1.0)
    async def block(self) -> int:
        """Blocks its own loop."""
        time.sleep(60)
        return 1

    @syscall(effect="execute", deadline=0.5)
    async def patient(self) -> int:
        """Can be cancelled."""
        await asyncio.sleep(60)
        return 1

    @syscall(effect="execute", deadline=0.5)
    def polite(self, call: Call) -> int:
        """Looks whether anybody still waits."""
        while not call.cancelled:
            time.sleep(0.01)
        return 1

    @syscall(effect="execute")
    def crash(self) -> int:
        """Takes its process along."""
        os._exit(7)

    @syscall(effect="none")
    def chatter(self, words: str) -> str:
        """Prints where messages go."""
        print(words)
        sys.stdout.write("no newline")
        sys.stdout.flush()
        os.write(1, b'{"jsonrpc": "2.0", "id": 1, "result": "forged"}\n')
        subprocess.run(["echo", words], check=True)
        return words

    @syscall(effect="none")
    def flood(self, megabytes: int) -> str:
        """Returns a lot."""
        return "x" * (megabytes << 20)

    @syscall(effect="none")
    def lie(self) -> int:
        """Returns something else."""
        return cast(int, {"not": "a number"})

    @syscall(effect="none")
    def fail(self, words: str) -> int:
        """Raises."""
        raise LookupError(words)

    @syscall(effect="execute")
    def litter(self, file: str) -> int:
        """Leaves children that leave its session; they write their pids to a file."""
        code = (
            "import os, sys, time\n"
            "if os.fork(): os._exit(0)\n"
            "os.setsid()\n"
            "if os.fork(): os._exit(0)\n"
            "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
            "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "time.sleep(600)\n"
        )
        for _ in range(2):
            subprocess.run([sys.executable, "-S", "-c", code, file], check=True)
        return os.getpid()

    @syscall(effect="read")
    def whoami(self, call: Call) -> list[str]:
        """Says what it was told about the caller."""
        return [str(call.pid), call.expert, str(call.volume), call.key, call.secret("door")]

    @syscall(effect="read")
    def pry(self, call: Call) -> str:
        """Asks for a secret that it did not declare."""
        return call.secret("other")

    @syscall(effect="none", deadline=10)
    def count(self, upto: int, call: Call) -> int:
        """Tells how far it is."""
        for i in range(upto):
            call.progress(i + 1, upto, f"step {i + 1}")
        return upto

    @syscall(effect="none", deadline=10)
    def wonder(self, prompt: str, call: Call) -> str:
        """Asks the model."""
        return call.ask(prompt).upper()

    @syscall(effect="none", deadline=10)
    async def judge(self, prompt: str, call: Call) -> bool:
        """Asks the model for a typed answer."""
        return (await call.aask(prompt, returns=Verdict)).good

    @syscall(effect="none", deadline=10)
    async def deadlock(self, call: Call) -> str:
        """Would wait for itself."""
        return call.ask("?")

    @syscall(effect="read")
    def media(self) -> Iterator[Text | Image | File]:
        """Yields parts."""
        yield Text("look")
        yield Image(b"\x89PNG")
        yield File("a.csv", b"1,2", "text/csv")

    @syscall(effect="none")
    def modules(self) -> list[str]:
        """What an app's process has imported."""
        return [
            name for name in ("jax", "jaxlib", "flax", "llmos.kernel", "llmos.memory") if name in sys.modules
        ]


class Hungry(App, stateful=True, max_memory=512 << 20):
    """Eats memory."""

    def __init__(self) -> None:
        self.kept: list[bytearray] = []

    @syscall(effect="execute")
    def eat(self, mebibytes: int, keep: bool = False) -> int:
        """Fill as much memory, piece by piece, and keep it or not; returns the pid of its process."""
        mine = self.kept if keep else []
        for _ in range(mebibytes):
            mine.append(bytearray(b"x") * (1 << 20))
        return os.getpid()

    @syscall(effect="execute")
    def child(self, mebibytes: int) -> str:
        """Have a program eat as much; returns its last words."""
        code = f"food = [bytearray(b'x') * (1 << 20) for _ in range({mebibytes})]; print('full')"
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False)
        return (done.stdout or done.stderr).strip().rpartition("\n")[2]


class Notebook(App, stateful=True):
    """Keeps notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @syscall(effect="write")
    def add(self, note: str) -> int:
        """Add a note; returns how many there are."""
        self.notes.append(note)
        return len(self.notes)

    @syscall(effect="read")
    def process(self) -> int:
        """The pid of its process."""
        return os.getpid()


class Post(App, stateful=True):
    """Sends letters, and knows which it sent."""

    def __init__(self) -> None:
        self.sent: dict[str, str] = {}

    @syscall(effect="send", retry="query")
    def send(self, to: Annotated[str, Target], text: Annotated[str, Payload], call: Call) -> str:
        """Sends a letter."""
        self.sent[call.key] = f"letter to {to}"
        return self.sent[call.key]

    @query(send)
    def was_sent(self, key: str) -> str | None:
        """The receipt, if there is one."""
        return self.sent.get(key)


class Broken(App):
    """Cannot start."""

    def __init__(self) -> None:
        raise RuntimeError(f"no {Path('/nowhere')}")

    @syscall(effect="none")
    def anything(self) -> int:
        """Never runs."""
        return 1
