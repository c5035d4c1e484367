"""Pictures for the documentation: `python docs/make_screens.py [NAME ...]`.

What: runs `llmos shell`, or a plain shell in which `llmos` is a command, in a real terminal (tmux), types, and draws
    what stands on the screen as SVG.
Invariant: every letter of a picture was printed by the program; nothing is drawn by hand. State and documents of a run
    are its own.
Interface: the names of `SCENES` (in `llmos shell`) and `COMMANDS` (at a prompt); needs tmux, and the default model on
    this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent
COLUMNS, ROWS = 92, 30
SHELL, PROMPT = f"{sys.executable} -m llmos shell --max-tokens 200", "bash --rcfile rc"
SECONDS = 400  # until something that must appear is taken to be missing
HANDBOOK = {
    "leave.md": "# Leave\n\nEveryone has 30 days of leave a year. Up to 5 days may be carried over until 31 March.\n\n"
    "Leave is asked for two weeks ahead, by mail to the office.\n",
    "notice.md": "# Notice\n\nThe notice period is three months to the end of a quarter. In the first six months it is "
    "two weeks.\n",
    "travel.md": "# Travel\n\nTrains are booked in second class. A night in a hotel may cost 120 euros.\n",
}
SCENES: dict[str, list[tuple[str, str]]] = {  # what is typed, and what has to appear before the next
    "shell": [
        ("How long is the notice period? Look at @handbook", "first token"),
        ("/grant calculator.evaluate", "may call calculator"),
        ("What is 17 % of 2340?", "1 syscalls"),
        ("/ps", "PPID"),
    ],
    "why": [
        ("/mount handbook mine", "mounted"),
        ("What may a night in a hotel cost?", "first token"),
        ("/pmap", "SOURCE"),
        ("/why", "Without"),
    ],
    "jobs": [
        (
            "Write a Python function that returns the prime numbers below n, and a table of the first five.",
            "first token",
        ),
        ("/fork 2 Say it in one sentence.", "forked"),
        ("/jobs", "agent"),
        ("/next", "other tokens"),
    ],
}
COMMANDS: dict[str, list[tuple[str, str]]] = {
    "experts": [
        (
            'llmos expert new handbook --describe "Answers from the handbook." --knowledge handbook/ --yes',
            "wrote",
        ),
        ('llmos expert run ./handbook.yaml "How long is the notice period?"', "first token"),
        ('llmos expert run ./handbook.yaml "Who won the football match?"', "first token"),
        ("llmos expert list", "researcher"),
    ],
    "expert-test": [
        ("llmos expert test librarian --only 1 --only 4 --only 9 --only 16", "passed"),
    ],
}


def main(names: list[str]) -> None:
    for name in names or [*SCENES, *COMMANDS]:
        with tempfile.TemporaryDirectory() as folder:
            if name in SCENES:
                screen, start = play(SCENES[name], Path(folder), SHELL, "›")
            else:
                screen, start = play(COMMANDS[name], Path(folder), PROMPT, "$")
        path = DOCS / "screens" / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn(screen, "llmos shell" if name in SCENES else "llmos"), encoding="utf-8")
        size = path.stat().st_size
        sys.stdout.write(f"{path.relative_to(DOCS.parent)}: {size:,} bytes; prompt after {start:.2f} s\n")


def play(scene: list[tuple[str, str]], folder: Path, command: str, prompt: str) -> tuple[str, float]:
    """What stands on the screen at the end, with its colours, and the seconds until the prompt stood."""
    (folder / "handbook").mkdir()
    for name, text in HANDBOOK.items():
        (folder / "handbook" / name).write_text(text, encoding="utf-8")
    (folder / "rc").write_text(f'PS1="$ "\nllmos() {{ {sys.executable} -m llmos "$@"; }}\n', encoding="utf-8")
    terminal = Tmux(folder, command)
    try:
        began = time.monotonic()
        terminal.sees(prompt)
        start = time.monotonic() - began
        for line, wanted in scene:
            seen = terminal.screen().count(wanted)
            terminal.types(line)
            terminal.sees(wanted, seen + (wanted in line))
            if prompt == "$":
                terminal.rests(prompt)
        time.sleep(2)  # what is under way settles
        return terminal.screen(colours=True), start
    finally:
        terminal.close()


class Tmux:
    """A terminal that nobody looks at, with a command in it."""

    def __init__(self, folder: Path, command: str) -> None:
        self._socket = str(folder / "tmux")
        environment = {
            **os.environ, "LLMOS_STATE": str(folder / "state"), "COLORTERM": "truecolor", "TMUX": "",
            "PYTHONPATH": str(DOCS.parent),
        }  # fmt: skip
        command = f"cd {folder} && exec {command}"
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, command, env=environment)

    def types(self, line: str) -> None:
        """A line, and Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def screen(self, *, colours: bool = False) -> str:
        """What stands there; with all that has scrolled away where nothing is to be drawn."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else ["-S", "-"]))

    def sees(self, wanted: str, times: int = 0) -> None:
        """Wait until it stands there more than so many times."""
        end = time.monotonic() + SECONDS
        while self.screen().count(wanted) <= times:
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted!r} did not appear:\n{self.screen()}")
            time.sleep(0.02)

    def rests(self, prompt: str) -> None:
        """Wait until the last line is a prompt again."""
        end = time.monotonic() + SECONDS
        while self.screen().rstrip().rpartition("\n")[2].strip() != prompt:
            if time.monotonic() > end:
                raise TimeoutError(f"no prompt came back:\n{self.screen()}")
            time.sleep(0.02)

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-S", self._socket, *arguments],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def drawn(screen: str, title: str) -> str:
    """The screen as SVG, without the fonts that a browser would fetch."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(screen.rstrip()), soft_wrap=True)
    svg = console.export_svg(title=title, unique_id="llmos")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    main(sys.argv[1:])
