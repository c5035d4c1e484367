"""`llmos label`: answers to questions, by you and the machine together.

What: shows the labelling instructions, then question after question; the machine checks, drafts or ranks, you write,
    edit or pick. `--machine` is the slider from all of it yours to all of it the machine's.
Invariant: what was labelled is kept at once: give the same command again to go on. What the machine wrote reaches the
    terminal neutralised.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import BadExamples
from llmos.cli import parser as options
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.machine import Machine as Kernel
    from llmos.kernel.learn.labelling import Help, Labels

SHARES = (0, 25, 50, 75, 100)
EXAMPLES = """\
examples:
  llmos label questions.jsonl --instructions how.md --machine 0     # you write
  llmos label questions.jsonl --instructions how.md --machine 25    # you write, the machine checks
  llmos label questions.jsonl --instructions how.md                 # the machine drafts, you keep or edit
  llmos label questions.jsonl --instructions how.md --machine 75    # it drafts several and ranks them, you pick
  llmos label questions.jsonl --instructions how.md --machine 100   # it does all of it

Questions are JSON lines ({"prompt": "..."} or {"messages": [...]}). What is labelled goes to questions.labels.jsonl,
and as data sets to questions.sft.jsonl and questions.pairs.jsonl.
"""
KEYS = "Enter keeps it, - passes over, ? shows the instructions, /quit ends; any other line is the answer"


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "label", "Label questions with the machine's help.", EXAMPLES)
    parser.add_argument("file", metavar="FILE", help="JSON lines with questions")
    parser.add_argument(
        "--instructions", metavar="FILE", required=True, help="what a good answer is, for you and the machine"
    )
    parser.add_argument(
        "--machine", metavar="SHARE", type=int, choices=SHARES, default=50,
        help="how much the machine does: 0, 25 (checks), 50 (drafts), 75 (ranks) or 100",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.connect import connect
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.labelling import Help, Labels, label

    file, told = Path(arguments.file), _instructions(Path(arguments.instructions))
    rows, labels = read_rows(file), Labels(file.with_suffix(".labels.jsonl"))
    share = Help(arguments.machine)
    if share < Help.ALL and not sys.stdin.isatty():
        raise BadExamples(
            "nobody is there to label", why="stdin is no terminal", do="or have it all: --machine 100"
        )
    left = len(rows) - len(labels.done)
    at = Terminal(told)
    at.instructions()
    print(f"{left} of {len(rows)} questions are left" + (f"; {KEYS}" if share < Help.ALL else ""))
    try:
        with ExitStack() as stack:
            kernel = cache(lambda: stack.enter_context(connect(arguments.config, model=arguments.model)))
            for one in label(rows, labels, Drafter(kernel, told), at, share):
                if share == Help.ALL:
                    print(neutralise(f"{one.number + 1}: {one.answer}"))
    except (EOFError, Quit):
        print("kept; give the same command to go on")
    return _said(arguments, file, labels, share)


class Quit(Exception):
    """The person ends."""


class Terminal:
    """Who sits at it."""

    def __init__(self, told: str) -> None:
        self._told = told

    def instructions(self) -> None:
        print(neutralise(f"--- instructions\n{self._told}\n---"))

    def write(self, asked: Sequence[Mapping[str, str]]) -> str | None:
        self._show(asked)
        return self._line("answer> ", None)

    def edit(self, asked: Sequence[Mapping[str, str]], draft: str) -> str | None:
        self._show(asked)
        print(neutralise(f"draft: {draft}"))
        return self._line("keep or answer> ", draft)

    def pick(self, asked: Sequence[Mapping[str, str]], answers: Sequence[str], best: int) -> str | None:
        self._show(asked)
        for n, answer in enumerate(answers, 1):
            print(neutralise(f"{n}{'*' if n - 1 == best else ' '} {answer}"))
        line = self._line(f"1-{len(answers)} or answer> ", answers[best])
        number = int(line) if line and line.isdecimal() else 0
        return answers[number - 1] if 1 <= number <= len(answers) else line

    def revise(self, asked: Sequence[Mapping[str, str]], answer: str, objection: str) -> str | None:
        print(neutralise(f"the machine objects: {objection}"))
        return self._line("keep or answer> ", answer)

    def _show(self, asked: Sequence[Mapping[str, str]]) -> None:
        print()
        for message in asked:
            print(neutralise(f"{message['role']}: {message['content']}"))

    def _line(self, prompt: str, kept: str | None) -> str | None:
        while True:
            line = input(prompt).strip()
            if line == "?":
                self.instructions()
            elif line == "/quit":
                raise Quit
            elif line == "-":
                return None
            elif line or kept is not None:
                return line or kept


class Drafter:
    """The machine: a process for each question, told what the person is told. It is booted when it is needed."""

    def __init__(self, kernel: Callable[[], Kernel], told: str) -> None:
        self._kernel, self._told = kernel, told

    def draft(self, asked: Sequence[Mapping[str, str]], count: int) -> Sequence[str]:
        question = asked[-1]["content"]
        heat = [0.0, *[0.8] * (count - 1)]
        return [self._ask(question, seed=n, temperature=t, max_tokens=200) for n, t in enumerate(heat)]

    def best(self, asked: Sequence[Mapping[str, str]], answers: Sequence[str]) -> int:
        listed = "\n".join(f"{n}. {answer}" for n, answer in enumerate(answers, 1))
        question = (
            f"Question: {asked[-1]['content']}\n\nAnswers:\n{listed}\n\nWhich follows the instructions best?"
        )
        numbers = {"type": "string", "enum": [str(n) for n in range(1, len(answers) + 1)]}
        return int(json.loads(self._ask(question, schema=numbers, max_tokens=8))) - 1

    def objection(self, asked: Sequence[Mapping[str, str]], answer: str) -> str:
        question = (
            f"Question: {asked[-1]['content']}\nAnswer: {answer}\n\nDoes the answer follow the instructions? "
            "Say OK, or in one sentence what is wrong."
        )
        said = self._ask(question, max_tokens=60)
        return "" if re.match(r"\W*(ok|yes)\b", said, re.IGNORECASE) else said

    def _ask(self, question: str, **options: Any) -> str:
        process = self._kernel().spawn(instructions=self._told)
        try:
            return process.ask(question, **options).answer.strip()
        finally:
            process.close()


def _instructions(path: Path) -> str:
    try:
        told = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadExamples(f"{path} cannot be read", why=str(error), do="name a file of words") from None
    if not told:
        raise BadExamples(f"{path} is empty", do="write down what a good answer is")
    return told


def _said(arguments: argparse.Namespace, file: Path, labels: Labels, share: Help) -> int:
    from llmos.drivers.whole import write_whole
    from llmos.kernel.learn.labelling import conversations, pairs

    made = {
        file.with_suffix(".sft.jsonl"): conversations(labels),
        file.with_suffix(".pairs.jsonl"): pairs(labels),
    }
    for path, rows in made.items():
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    agreed, both = labels.agreement(share)
    counts = [len(rows) for rows in made.values()]
    if arguments.json:
        print(json.dumps({"labelled": len(labels.all), "examples": counts[0], "pairs": counts[1], "agreed": agreed,
                          "both": both, "seconds": labels.seconds(share)}))  # fmt: skip
        return 0
    print(
        f"{counts[0]} examples, {counts[1]} pairs; {labels.seconds(share):.1f} s of yours a question", end=""
    )
    print(f"; you and the machine agreed on {agreed} of {both}" if both else "")
    return 0
