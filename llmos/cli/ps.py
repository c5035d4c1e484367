"""`llmos ps` and `llmos top`: what runs on this machine's kernel.

What: processes and the apps that work for them, once or again and again.
Invariant: reading changes nothing. Where stdout is no terminal, `top` prints one shot.
Interface: `add`; `running(arguments)` for the other verbs that need a running kernel.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmos.cli import parser as options
from llmos.drivers.terminal import table

if TYPE_CHECKING:
    from llmos.abi.machine import Top
    from llmos.attach import RemoteKernel

EVERY_S = 1.0
PS = """\
examples:
  llmos ps
  llmos ps --json | jq '.processes[] | select(.state == "stopped")'

Apps stand in brackets, with the process that they work for as their parent (0: for all).
"""
TOP = """\
examples:
  llmos top
  llmos top | head -3

Ctrl-C leaves.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verbs."""
    parser = options.verb(verbs, "ps", "List the processes of the running kernel.", PS)
    parser.add_argument("--json", action="store_true", help="print one JSON object: processes, apps")
    options.config(parser)
    parser.set_defaults(run=ps)
    parser = options.verb(verbs, "top", "Watch the running kernel.", TOP)
    options.config(parser)
    parser.set_defaults(run=top)


def running(arguments: argparse.Namespace) -> RemoteKernel:
    """The kernel that runs on this machine.

    Raises:
        ConfigError: none does.
    """
    from llmos.abi.errors import ConfigError
    from llmos.attach import attach
    from llmos.connect import load_config

    state = load_config(arguments.config).machine.state
    kernel = attach(state)
    if kernel is None:
        raise ConfigError("no kernel runs", why=f"nobody listens in {state}", do="start one: llmos up")
    return kernel


def ps(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    with running(arguments) as kernel:
        now = kernel.top()
    if arguments.json:
        value = {"processes": [asdict(p) for p in now.processes], "apps": [asdict(a) for a in now.apps]}
        print(json.dumps(value, ensure_ascii=sys.stdout.isatty()))
        return 0
    print("\n".join(_lines(now)))
    return 0


def top(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    with running(arguments) as kernel:
        before, live = kernel.top(), sys.stdout.isatty()
        if not live:
            print("\n".join([*_head(before, before), *_lines(before)]))
            return 0
        while True:
            time.sleep(EVERY_S)
            now = kernel.top()
            # Home, then each line to its end, then what is left of the screen: nothing flickers.
            lines = [line + "\x1b[K" for line in [*_head(now, before), *_lines(now)]]
            sys.stdout.write("\x1b[H" + "\n".join(lines) + "\n\x1b[J")
            sys.stdout.flush()
            before = now


def _head(now: Top, before: Top) -> list[str]:
    took = now.seconds - before.seconds or now.seconds or 1.0
    since = before if now is not before else None
    written = now.written - (since.written if since else 0)
    computed = now.computed - (since.computed if since else 0)
    busy = sum(p.state in ("ready", "running") for p in now.processes)
    return [
        f"{len(now.processes)} processes, {busy} at work, {len(now.apps)} apps, up {now.seconds:.0f} s",
        f"{written / took:.1f} tokens/s written, {computed / took:.1f} computed, "
        f"{now.pages_held:,} of {now.pages:,} pages held, {now.preemptions} pre-emptions",
        "",
    ]


def _lines(now: Top) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("PID", "PARENT", "NAME", "STATE", "CLASS", "TURNS", "TOKENS", "CALLS", "PAGES", "SECONDS")
    ]
    for p in now.processes:
        numbers = (p.turn, p.tokens, p.syscalls, p.pages)
        rows.append(
            (str(p.pid), str(p.parent), p.name, p.state, p.priority, *map(str, numbers), f"{p.seconds:.0f}")
        )
    for a in now.apps:
        rows.append(("-", str(a.agent), a.name, a.state, "-", "-", "-", str(a.calls), "-", "-"))
    return table(rows)
