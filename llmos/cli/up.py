"""`llmos up`, `down`, `status`, `logs`: the machine's own kernel.

What: starts it in the background, stops it, says how it is.
Invariant: `up` returns when the kernel can be attached to, `down` when all is written and its process has gone.
Interface: `add`. What a running kernel is made of, is in `llmos.attach.daemon`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import deque
from pathlib import Path

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, neutralise

NOT_RUNNING = 3  # what `status` exits with, as init scripts do
LOOK_S = 0.2  # between two looks at a log's end
LINES = 40

UP = """\
examples:
  llmos up
  llmos up --model smollm2-135m
  llmos up --foreground

While it runs, every verb and every program of yours uses it: the model is loaded once, processes go on when their
terminal has gone, and after a crash or `llmos down` unfinished ones resume at the next start.
"""
DOWN = """\
examples:
  llmos down
  llmos down --now

Without --now the turns that are under way are answered first. What is unfinished goes on at the next `llmos up`.
"""
STATUS = """\
examples:
  llmos status
  llmos status --json

Exits with 0 where a kernel runs, else with 3.
"""
LOGS = """\
examples:
  llmos logs
  llmos logs -f
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verbs."""
    parser = options.verb(verbs, "up", "Start this machine's kernel in the background.", UP)
    parser.add_argument("--foreground", action="store_true", help="stay, and log to this terminal")
    options.common(parser)
    parser.set_defaults(run=up)
    parser = options.verb(verbs, "down", "Stop this machine's kernel.", DOWN)
    parser.add_argument("--now", action="store_true", help="do not wait for the turns that are under way")
    options.config(parser)
    parser.set_defaults(run=down)
    parser = options.verb(verbs, "status", "Say whether a kernel runs, and how it is.", STATUS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.config(parser)
    parser.set_defaults(run=status)
    parser = options.verb(verbs, "logs", "Print what the kernel has logged.", LOGS)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is to come")
    parser.add_argument(
        "-n",
        metavar="N",
        type=options.positive,
        default=LINES,
        help=f"only the last N lines (default {LINES})",
    )
    options.config(parser)
    parser.set_defaults(run=logs)


def up(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.attach import daemon
    from llmos.connect import load_config

    config = load_config(arguments.config, model=arguments.model)
    bar = Bar(sys.stderr)
    if arguments.foreground:
        daemon.foreground(config, bar)
        return 0
    started = daemon.up(config, bar)
    bar.close()
    how = "runs already" if started.already else "runs"
    print(f"the kernel {how}: {started.model}, process {started.pid}")
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.attach import RemoteKernel, daemon
    from llmos.connect import load_config

    def waiting(kernel: RemoteKernel) -> None:
        busy = sum(line.state in ("ready", "running") for line in kernel.ps())
        if busy and not arguments.now:
            print(f"waiting for {busy} to answer; --now does not", file=sys.stderr)

    pid = daemon.down(load_config(arguments.config), now=arguments.now, on_wait=waiting)
    print("no kernel runs" if pid is None else f"the kernel is down (process {pid})")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.attach import attach
    from llmos.connect import load_config

    state = load_config(arguments.config).machine.state
    kernel = attach(state)
    if kernel is None:
        print(json.dumps({"running": False, "state": str(state)}) if arguments.json else "no kernel runs")
        return NOT_RUNNING
    with kernel:
        top = kernel.top()
    states = [line.state for line in top.processes]
    if arguments.json:
        value = {
            "running": True, "pid": kernel.pid, "model": kernel.config.kernel.model, "state": str(state),
            "seconds": top.seconds, "processes": len(states), "busy": _busy(states), "apps": len(top.apps),
            "tokens": top.written, "pages": top.pages, "pages_held": top.pages_held,
        }  # fmt: skip
        print(json.dumps(value))
        return 0
    print(f"{kernel.config.kernel.model} runs as process {kernel.pid} for {_time(top.seconds)}")
    print(f"  processes  {len(states)}, of which {_busy(states)} at work")
    print(f"  tokens     {top.written:,} written")
    print(f"  pages      {top.pages_held:,} of {top.pages:,} held")
    print(f"  state      {neutralise(str(state))}")
    return 0


def logs(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.abi.errors import ConfigError
    from llmos.attach.daemon import log_path
    from llmos.connect import load_config

    path: Path = log_path(load_config(arguments.config).machine.state)
    safe = neutralise if sys.stdout.isatty() else str
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise ConfigError(
            "there is no log", why=f"no kernel has run on {path.parent.parent}", do="llmos up"
        ) from None
    with file:
        sys.stdout.writelines(safe(line) for line in deque(file, arguments.n))
        while arguments.follow:
            sys.stdout.flush()
            time.sleep(LOOK_S)
            if path.exists() and path.stat().st_size < file.tell():  # a new start put the old one aside
                file.seek(0)
            sys.stdout.writelines(safe(line) for line in file)
    return 0


def _busy(states: list[str]) -> int:
    return sum(state in ("ready", "running") for state in states)


def _time(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
