"""Looking into the model: `/trace`, `/next`, `/why`."""

from __future__ import annotations

import re
from math import exp
from typing import TYPE_CHECKING

from llmos.abi.labels import Label
from llmos.apps.shell.commands import command
from llmos.drivers.terminal import chart, neutralise

if TYPE_CHECKING:
    from llmos.abi.machine import Why
    from llmos.apps.shell.shell import Shell

COUNT = 10
SPECIAL = re.compile(r"<\|?[A-Za-z_/][\w:|/ ]*\|?>")
TINY = 0.02  # of the mean log-probability of a token: less is noise


@command("[all]")
def trace(shell: Shell, rest: str) -> None:
    """the last turn as it passed: special words, calls, results, and where each came from (all: long stretches too)"""
    for one in shell.kernel.passed(shell.foreground().pid):
        region = one.region
        source = f", {region.source}" if region.source else ""
        head = f"── {region.kind}{source} · {region.tokens} tokens · {_trust(region.label)}"
        lines = neutralise(one.text).split("\n")
        if rest != "all" and len(lines) > 12:
            lines = [*lines[:6], f"   … {len(lines) - 10} lines; /trace all shows them …", *lines[-4:]]
        shell.say(_dim(shell, neutralise(head)), *(_special(shell, line) for line in lines))


@command("[TEXT]", name="next")
def next_(shell: Shell, rest: str) -> None:
    """what the model thinks comes next: after TEXT, or without it where the last answer began"""
    pid = 0 if rest else shell.foreground().pid
    rows = shell.kernel.next_distribution(rest, COUNT, pid)
    named = [(repr(token)[1:-1].replace(" ", "␣"), share) for token, share in rows]
    if shell.face.drawn:
        shell.say(*chart(named, width=shell.face.width))
    else:
        shell.say(*(f"{neutralise(name)}: {share:.1%}" for name, share in named))
    left = 1.0 - sum(share for _, share in rows)
    if left >= 0.0005:
        shell.say(f"(all other tokens together {left:.1%})")


@command("[call]")
def why(shell: Shell, rest: str) -> None:
    """what the last answer (or call) stood on: each stretch of the window is masked, and the model looks again"""
    found = shell.kernel.why(shell.foreground().pid, call=rest == "call", progress=shell.check)
    shell.link.task = ""
    shell.say(*lines_of(found, shell.face.width, drawn=shell.face.drawn))


def lines_of(found: Why, width: int, *, drawn: bool = True) -> list[str]:
    """The stretches, the weightiest first, with what a token of the answer loses without each."""
    each = found.logprob / found.tokens
    lines = [f"{found.tokens} tokens, each {exp(each):.0%} likely (geometric mean). Without …"]
    ranked = sorted(found.influences, key=lambda one: one.logprob)
    most = max((found.logprob - one.logprob for one in ranked), default=0.0) or 1.0
    shown = 0
    for one in ranked:
        lost = (found.logprob - one.logprob) / found.tokens
        if abs(lost) < TINY:
            continue
        shown += 1
        bar = "█" * round(10 * max(found.logprob - one.logprob, 0.0) / most) if drawn else ""
        name = one.region.kind + (f", {one.region.source}" if one.region.source else "")
        share = f"{exp(one.logprob / found.tokens):4.0%}"
        head = f"  {share} {bar:<10} " if drawn else f"  {share.strip()} likely without "
        text = " ".join(one.text.split())
        room = max(width - len(head) - len(name) - 4, 12)
        lines.append(neutralise(f"{head}{name}: {text[:room]}"))
    if not shown:
        lines.append("  … any of it, it would have said the same")
    elif shown < len(ranked):
        lines.append(f"  ({len(ranked) - shown} other stretches make no difference)")
    return lines


def _trust(label: Label) -> str:
    readers = "" if label.readers is None else f" for {', '.join(sorted(label.readers)) or 'nobody'}"
    return label.integrity.name.lower() + readers


def _special(shell: Shell, line: str) -> str:
    if not shell.face.colour:
        return f"   {line}"
    return "   " + SPECIAL.sub(lambda match: f"\x1b[35m{match[0]}\x1b[0m", line)


def _dim(shell: Shell, line: str) -> str:
    return f"\x1b[2m{line}\x1b[0m" if shell.face.colour else line
