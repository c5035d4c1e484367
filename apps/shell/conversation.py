"""The conversation loop.

What: the shell's commands and its loop.
Invariant: see the package; one process for the whole session.
Interface: `Shell.run()`. A new command is a method `_do_NAME` whose docstring is its help.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from llmos.abi.errors import LLMOSError
from llmos.abi.mount import Mount
from llmos.abi.progress import Progress, silent
from llmos.abi.specialist import Specialist
from llmos.apps.shell.history import History
from llmos.apps.shell.pmap import draw
from llmos.apps.shell.transcript import stream
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.machine import Machine

PROMPT = "› "
NOBODY = Specialist()  # in particular


class Shell:
    """One person, one process, many turns.

    Args:
        kernel: one of this process's own, or one that it is attached to.
        mounts: what the process may read from.
        grants: syscalls that it may make.
        expert: who answers, with its own documents, grants and manner.
        max_tokens, seed, temperature: as for `process.ask`, before what the expert says; each turn draws with `seed` +
            its number.
        progress: told about mounting.
        history: the file that keeps what was typed; None keeps nothing.
        out, notes: where answers, and what is about them, go.
    """

    def __init__(
        self,
        kernel: Machine,
        *,
        mounts: Sequence[Mount] = (),
        grants: Sequence[str] = (),
        expert: Specialist = NOBODY,
        max_tokens: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        progress: Progress = silent,
        history: Path | None = None,
        out: TextIO | None = None,
        notes: TextIO | None = None,
    ) -> None:
        self.kernel, self.mounts, self.progress = kernel, list(mounts), progress
        self.options = expert.asked(max_tokens=max_tokens, seed=seed, temperature=temperature)
        self.out, self.notes = out or sys.stdout, notes or sys.stderr
        self.history = history
        self.turns = 0
        self.last = 0  # the number of the last turn
        self.process = expert.spawn(kernel, mounts=self.mounts, grants=grants, progress=progress)

    def run(self) -> int:
        """Reads lines until /quit or the end of the input; returns the exit code."""
        if interactive := sys.stdin.isatty():
            self._say("Ask anything. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
        with History(self.history if interactive else None):
            while True:
                try:
                    line = self._read(interactive)
                except EOFError:
                    return 0
                except KeyboardInterrupt:
                    self._say("")
                    continue
                if line.startswith("/"):
                    if not self._command(line):
                        return 0
                elif line:
                    self._turn(line)

    def _read(self, interactive: bool) -> str:
        """The next line, without its ends; UTF-8 or nothing."""
        line = input(PROMPT) if interactive else input()
        return line.strip().encode(errors="replace").decode()  # a terminal may hand over half a character

    def _turn(self, question: str) -> None:
        turn = None
        try:
            seed = self.options.get("seed", 0) + self.turns
            turn = self.process.ask(question, **{**self.options, "seed": seed})
            self.turns += 1
            self.last = turn.number
            stream(turn, self.out, self.notes)
        except KeyboardInterrupt:
            if turn is not None:
                turn.cancel()
                for _ in turn:  # the tokens that were under way; the process is free after them
                    pass
            self._say("\n(stopped)")
        except LLMOSError as error:
            self._complain(error)

    # --- commands -------------------------------------------------------------------------------------------

    def _command(self, line: str) -> bool:
        """Carries out a line that starts with `/`; False ends the shell."""
        name, _, rest = line[1:].partition(" ")
        if name in ("quit", "exit", "q"):
            return False
        action = getattr(self, f"_do_{name}", None) if name.isidentifier() else None
        if action is None:
            self._say(f"There is no /{neutralise(name)}: /help lists the commands.")
            return True
        try:
            action(rest.strip())
        except LLMOSError as error:
            self._complain(error)
        except KeyboardInterrupt:
            self._say("\n(stopped)")
        return True

    def _do_help(self, _: str) -> None:
        """/help: this list"""
        for name in sorted(dir(self)):
            if name.startswith("_do_"):
                self._say(getattr(self, name).__doc__)
        self._say("/quit: leave (Ctrl-D does too)")

    def _do_mount(self, rest: str) -> None:
        """/mount PATH [mine|shared]: answer from these documents too; without PATH, list what is mounted"""
        if not rest:
            for mount in self.mounts:
                self._say(f"{neutralise(str(mount.path))} ({mount.trust})")
            if not self.mounts:
                self._say("nothing is mounted")
            return
        path, _, last = rest.rpartition(" ")
        if path and last == "mine":
            mount = Mount(Path(path), "mine")
        else:
            mount = Mount(Path(path if path and last == "shared" else rest))
        self.process.mount(mount, self.progress)
        self.mounts.append(mount)
        self._say(f"mounted {neutralise(str(mount.path))} ({mount.trust})")

    def _do_new(self, _: str) -> None:
        """/new: forget this conversation and start another one"""
        self.process.forget()
        self.turns = 0
        self._say("a new conversation")

    def _do_good(self, _: str) -> None:
        """/good: the last answer was good; it is kept to learn from"""
        self.process.good(self.last)
        self._say("noted")

    def _do_bad(self, _: str) -> None:
        """/bad: the last answer was bad"""
        self.process.bad(self.last)
        self._say("noted")

    def _do_fix(self, rest: str) -> None:
        """/fix TEXT: what the last answer should have been"""
        if not rest:
            self._say("write the right answer behind it: /fix The deadline is May 3.")
            return
        self.process.correct(self.last, rest)
        self._say("noted")

    def _do_ps(self, _: str) -> None:
        """/ps: the processes of this kernel"""
        for s in self.kernel.ps():
            self._say(f"{s.pid:>5} {s.state:<8} {neutralise(s.name):<16} {s.tokens:>7} tokens")

    def _do_pmap(self, rest: str) -> None:
        """/pmap [PID]: what stands in the window, as a map"""
        if rest and not rest.isdecimal():
            self._say("usage: /pmap [PID]")
            return
        regions = self.kernel.pmap(int(rest) if rest else self.process.pid)
        colour = self.notes.isatty() and not os.environ.get("NO_COLOR")
        self._say("\n".join(draw(regions, shutil.get_terminal_size((80, 24)).columns, colour=colour)))

    # --- helpers --------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        self.notes.write(text + "\n")
        self.notes.flush()

    def _complain(self, error: LLMOSError) -> None:
        self.out.flush()
        self._say(neutralise("\n".join(part for part in (error.what, error.why, error.do) if part)))
