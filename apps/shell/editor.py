"""The line that is being typed, on a terminal.

What: prompt_toolkit's line editor with history, completion, large pastes put aside, and above it what is being said
    just now, and a line about what goes on.
Invariant: a key is never waited for by the model, nor the model by a key: lines are carried out on a thread, output
    goes above the line. What was typed before something was asked is no answer to it.
Interface: `Editor(history)`: `run(shell) -> exit code`; for `Drawn`: `write`, `redraw`, `confirm`.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_session
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import History
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.keys import Keys
from prompt_toolkit.patch_stdout import StdoutProxy

from llmos.apps.shell import history as kept
from llmos.apps.shell.completion import Words
from llmos.apps.shell.drawn import Drawn
from llmos.apps.shell.shell import Leave
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.apps.shell.shell import Shell

PROMPT = "› "
REST_S = 0.4  # in which nothing is typed, before the kernel is told what stands there
BESIDE = 4  # rows of a terminal that are not for what is being said
LONG, MANY = 2000, 12  # characters and lines of a paste that is put aside


@dataclass(slots=True, eq=False)
class _Question:
    """Something the person has to say yes to. `armed`: the line is empty and stands for the answer."""

    text: str
    armed: bool = False
    yes: bool = False
    answered: threading.Event = field(default_factory=threading.Event)


class Editor:
    """Of one shell on one terminal."""

    def __init__(self, history: Path | None) -> None:
        os.environ.setdefault(
            "PROMPT_TOOLKIT_NO_CPR", "1"
        )  # no questions to a terminal that may be slow or deaf
        get_app_session().output  # noqa: B018 - of the terminal, before `run` puts something in the place of stdout
        self.face = Drawn(self)
        self._shell: Shell | None = None
        self._pastes: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._working = False
        self._question: _Question | None = None
        self._asking = threading.Lock()
        self._stash = ""
        self._leaving = False
        self._proxy: StdoutProxy | None = None
        self._session: PromptSession[str] = PromptSession(
            self._message,
            history=_Kept(history),
            key_bindings=self._keys(),
            complete_while_typing=False,
            complete_in_thread=True,
            completer=Words(lambda: self._shell),
            enable_history_search=True,
            erase_when_done=True,
            mouse_support=False,
        )
        self._session.app.min_redraw_interval = 0.05
        self._typed = threading.Event()
        self._session.default_buffer.on_text_changed += lambda _: self._typed.set()

    def run(self, shell: Shell) -> int:
        """Read lines until the person leaves, or the shell ends."""
        self._shell = shell
        threading.Thread(target=self._work, args=(shell,), name="llmos-lines", daemon=True).start()
        threading.Thread(target=self._foresee, args=(shell,), name="llmos-ahead", daemon=True).start()
        self._proxy = StdoutProxy(sleep_between_writes=0.02, raw=True)
        out, err = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self._proxy
        warned = False
        try:
            while not self._leaving:
                try:
                    text = self._session.prompt(default=self._unstashed(), pre_run=self._begun)
                except KeyboardInterrupt:  # SIGINT from outside: the key is bound
                    self._interrupted()
                    continue
                except EOFError:
                    left = 0 if self._leaving or warned else shell.questions_left()
                    if not left:
                        break
                    warned = True
                    shell.say(
                        f"{left} still answering, and end with this kernel (`llmos up` keeps them): Ctrl-D again leaves"
                    )
                    continue
                self._entered(shell, text)
        finally:
            self._leaving = shell.leaving = True
            self._answer(False)
            self._lines.put(None)
            self._typed.set()
            self._proxy.close()
            sys.stdout, sys.stderr = out, err
        return 0

    def leave(self) -> None:
        """End `run`. Any thread."""
        self._leaving = True
        self._in_loop(self._leave)

    def _begun(self) -> None:
        """In the editor's loop, as a line begins: what came between two lines is done now."""
        self._arm()
        if self._leaving:
            self._leave()

    def _leave(self) -> None:
        app = self._session.app
        if app.future is not None and not app.future.done():
            app.exit(exception=EOFError)

    # -- for the face --------------------------------------------------------------------------------------------

    def write(self, text: str) -> None:
        """Put painted lines above the line that is typed."""
        (self._proxy or sys.stdout).write(text)

    def redraw(self) -> None:
        """Something that is shown beside the line has changed."""
        self._session.app.invalidate()

    def confirm(self, lines: Sequence[str], question: str) -> bool:
        """Ask for a yes; waits. What was typed meanwhile is put aside, and given back afterwards."""
        with self._asking:
            if self._leaving:
                return False
            self.write("".join(f"{line}\n" for line in lines))
            asked = self._question = _Question(question)
            self._in_loop(self._arm)
            asked.answered.wait()
            return asked.yes

    def dismiss(self) -> None:
        """Nobody wants to know any more what the person is asked. Any thread."""
        if self._question is not None:
            self._answer(False)
            self._in_loop(lambda: self._session.app.exit(result=""))

    # -- lines ---------------------------------------------------------------------------------------------------

    def _entered(self, shell: Shell, text: str) -> None:
        asked = self._question
        if asked is not None and asked.armed:
            self.write(f"{asked.text}{neutralise(text)}\n")
            self._answer(text.strip().lower() in ("y", "yes"))
            return
        if text.strip():
            self.write("\x1b[1m" * self.face.colour + PROMPT + "\x1b[0m" * self.face.colour)
            self.write(neutralise(kept.clean(text)).replace("\n", "\n  ") + "\n")
        for number, paste in enumerate(self._pastes, 1):
            text = text.replace(_placeholder(number, paste), paste)
        self._pastes.clear()
        self._lines.put(kept.clean(text))

    def _work(self, shell: Shell) -> None:
        """The thread that carries lines out."""
        while (line := self._lines.get()) is not None and not self._leaving:
            self._working = True
            try:
                shell.line(line)
            except Leave:
                self.leave()
            except BaseException as error:  # whatever a line does, the next one is read
                shell.complain(error)
            finally:
                self._working = False
                shell.link.task = ""
                self.redraw()

    def _foresee(self, shell: Shell) -> None:
        """The thread that tells what is being typed, whenever the fingers rest."""
        while self._typed.wait() and not self._leaving:
            while self._typed.is_set() and not self._leaving:
                self._typed.clear()
                time.sleep(REST_S)
            text = self._session.default_buffer.text
            if text.strip() and self._question is None:
                shell.expect(text)

    def _answer(self, yes: bool) -> None:
        asked, self._question = self._question, None
        if asked is not None:
            asked.yes = yes
            asked.answered.set()

    def _arm(self) -> None:
        """In the editor's loop: from here on the line is the answer to what is asked."""
        asked = self._question
        if asked is not None and not asked.armed:
            buffer = self._session.default_buffer
            self._stash = buffer.text
            buffer.reset()
            asked.armed = True
            self.redraw()

    def _unstashed(self) -> str:
        text = "" if self._question is not None else self._stash
        if text:
            self._stash = ""
        return text

    def _interrupted(self) -> None:
        shell = self._shell
        assert shell is not None
        if self._question is not None:
            self.dismiss()
        elif not (shell.interrupt() or self._working):
            if self._session.default_buffer.text:
                self._session.default_buffer.reset()
                self._pastes.clear()
            else:
                shell.say("(Ctrl-C stops an answer; Ctrl-D or /quit leaves)")

    def _in_loop(self, work: Any) -> None:
        loop = self._session.app.loop
        if loop is not None and self._session.app.is_running:
            with suppress(RuntimeError):  # it has just ended: the next line begins with `_arm`
                loop.call_soon_threadsafe(work)

    # -- what is seen --------------------------------------------------------------------------------------------

    def _message(self) -> ANSI:
        rows = shutil.get_terminal_size((80, 24)).lines
        above = self.face.above(rows - BESIDE)
        asked = self._question
        prompt = asked.text if asked is not None and asked.armed else PROMPT
        state = self._state() if rows >= BESIDE else ""
        dim = "\x1b[2m{}\x1b[0m" if self.face.colour else "{}"
        return ANSI("\n".join([*above, *([dim.format(state)] if state else []), prompt]))

    def _state(self) -> str:
        """What goes on beside the line, where something does."""
        shell = self._shell
        if shell is None:
            return ""
        link = shell.link
        parts = []
        if link.state != "ready":
            parts.append(
                {"loading": "the model is loading", "lost": "the kernel has gone"}.get(link.state, link.state)
            )
        if link.task:
            parts.append(link.task)
        job = shell.job
        if job is not None and job.busy:
            parts.append(f"process {job.pid} is answering, Ctrl-C stops it")
        others = [other for other in list(shell.jobs.values()) if other is not job]
        if others:
            busy = sum(other.busy for other in others)
            parts.append(f"{len(others)} in the background" + (f", {busy} answering" if busy else ""))
        return neutralise(" · ".join(parts))[: self.face.width - 1]

    # -- keys ----------------------------------------------------------------------------------------------------

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def _(event: Any) -> None:
            self._interrupted()

        @keys.add("c-z")
        def _(event: Any) -> None:
            self._lines.put("/bg")

        @keys.add("escape", "enter")
        def _(event: Any) -> None:
            event.current_buffer.insert_text("\n")

        @keys.add(Keys.BracketedPaste)
        def _(event: Any) -> None:
            text = event.data.replace("\r\n", "\n").replace("\r", "\n")
            if len(text) > LONG or text.count("\n") > MANY:
                self._pastes.append(text)
                text = _placeholder(len(self._pastes), text)
            event.current_buffer.insert_text(text)

        return keys


def _placeholder(number: int, paste: str) -> str:
    return f"[paste {number}: {len(paste):,} characters]"


class _Kept(History):
    """The history file, as prompt_toolkit takes it: the newest first."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        return [] if self._path is None else reversed(kept.load(self._path))

    def store_string(self, string: str) -> None:
        if self._path is not None:
            kept.append(self._path, string)
