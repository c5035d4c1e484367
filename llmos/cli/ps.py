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

if TYPE_CHECKING:
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
    from llmos.apps.shell.top import lines

    with running(arguments) as kernel:
        now = kernel.top()
    if arguments.json:
        value = {"processes": [asdict(p) for p in now.processes], "apps": [asdict(a) for a in now.apps]}
        print(json.dumps(value, ensure_ascii=sys.stdout.isatty()))
        return 0
    print("\n".join(lines(now)))
    return 0


def top(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.apps.shell.top import head, lines

    with running(arguments) as kernel:
        before, live = kernel.top(), sys.stdout.isatty()
        if not live:
            print("\n".join([*head(before, before), *lines(before)]))
            return 0
        while True:
            time.sleep(EVERY_S)
            now = kernel.top()
            # Home, then each line to its end, then what is left of the screen: nothing flickers.
            drawn = [line + "\x1b[K" for line in [*head(now, before), *lines(now)]]
            sys.stdout.write("\x1b[H" + "\n".join(drawn) + "\n\x1b[J")
            sys.stdout.flush()
            before = now
