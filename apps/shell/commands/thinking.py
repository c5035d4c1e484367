"""Thinking before answering: `/think`, `/tree`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmos.abi.errors import TurnRefused
from llmos.apps.shell.commands import command, wrong
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.events import Thought, ThoughtTree
    from llmos.apps.shell.shell import Shell

SHOWN = 24  # branches of one that are drawn


@command("BUDGET [QUESTION] | off")
def think(shell: Shell, rest: str) -> None:
    """think before answering: a time (30s), so many plain answers (8x), or tokens (4000); this QUESTION, or all"""
    budget, _, question = rest.partition(" ")
    job = shell.foreground()
    if budget in ("", "off"):
        if not budget:
            raise wrong("think")
        job.options.pop("think", None)
        shell.say("answers come at once")
        return
    from llmos.kernel.think.budget import Budget

    Budget.of(budget)
    before = job.options.get("think")
    job.options["think"] = budget
    if not question.strip():
        shell.say(f"every answer is thought about ({budget}); /think off ends that, /tree shows how")
        return
    try:
        shell.ask(question.strip())
    finally:
        job.options.pop("think")
        if before is not None:
            job.options["think"] = before


@command("[all | json]")
def tree(shell: Shell, rest: str) -> None:
    """how the last answer was come to: its branches, what they are worth, and why it stopped (all: each of them)"""
    done = shell.foreground().last
    if done is None or done.tree is None:
        raise TurnRefused("the last answer was not thought about", do="/think 8x QUESTION")
    if rest == "json":
        shell.say(
            neutralise(json.dumps({"confidence": done.confidence, **asdict(done.tree)}, ensure_ascii=False))
        )
        return
    shell.say(
        *lines_of(done.tree, done.confidence, shell.face.width, shown=1 << 30 if rest == "all" else SHOWN)
    )


def lines_of(tree: ThoughtTree, confidence: float | None, width: int, *, shown: int = SHOWN) -> list[str]:
    """The tree as lines: a branch each, below the one that it goes on from."""
    sure = "" if confidence is None else f", {confidence:.0%} sure"
    lines = [f"{tree.strategy}: {tree.why}{sure} · {tree.tokens} tokens · {tree.seconds:.1f} s"]
    below: dict[int, list[Thought]] = {}
    known = {t.number for t in tree.thoughts}
    for thought in tree.thoughts:
        below.setdefault(thought.parent if thought.parent in known else 0, []).append(thought)
    waiting = [(t, 0) for t in reversed(below.get(0, []))]
    while waiting and len(lines) <= shown:
        thought, depth = waiting.pop()
        lines.append(_line(thought, depth, width))
        waiting += [(t, depth + 1) for t in reversed(below.get(thought.number, []))]
    if waiting:
        lines.append(f"  … {len(tree.thoughts) - shown} branches more; /tree all shows them")
    return lines


def _line(thought: Thought, depth: int, width: int) -> str:
    mark = {"chosen": "●", "kept": "○", "dropped": "×"}[thought.state]
    worth = "" if thought.value is None else f" {thought.value:.2f}"
    answer = f" = {thought.answer}" if thought.answer else ""
    note = f" ({thought.note})" if thought.note else ""
    head = f"  {'  ' * min(depth, 12)}{mark} {thought.number}{worth}{answer}{note}: "
    text = " ".join(thought.text.split())
    room = max(width - len(head) - 1, 16)
    return neutralise(head + (text if len(text) <= room else f"{text[: room - 1]}…"))
