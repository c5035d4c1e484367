"""`llmos journal`: what happened, record by record.

What: the records of the machine's kernel as lines to read or as JSON, whether it runs or not.
Invariant: reading changes nothing; what the model or a document wrote cannot act on the terminal.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from llmos.cli import parser as options
from llmos.drivers.terminal import neutralise

WIDTH = 160  # of a line's text; --json has it whole
EXAMPLES = """\
examples:
  llmos journal
  llmos journal 12
  llmos journal 12 --json | jq 'select(.kind == "intent")'
  llmos journal --follow
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "journal", "Print the journal of this machine's kernel.", EXAMPLES)
    parser.add_argument("pid", metavar="PID", type=options.positive, nargs="?", help="of this process only")
    parser.add_argument("--json", action="store_true", help="print one JSON object a record")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with what is to come")
    options.config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.abi.errors import ConfigError
    from llmos.attach import attach
    from llmos.connect import load_config

    def tell(seq: int, when: float, pid: int, kind: str, body: Mapping[str, Any]) -> None:
        record = {"seq": seq, "time": when, "pid": pid, "kind": kind, **body}
        print(
            json.dumps(record) if arguments.json else line(seq, when, pid, kind, body), flush=arguments.follow
        )

    state = load_config(arguments.config).machine.state
    kernel = attach(state)
    if kernel is not None:
        with kernel:
            kernel.records(tell, arguments.pid, follow=arguments.follow)
        return 0
    if arguments.follow:
        raise ConfigError("no kernel runs", why="so nothing is to come", do="start one: llmos up")
    from llmos.kernel.journal import read
    from llmos.kernel.journal.records import encode

    for record in read(state / "kernel", arguments.pid):
        kind, blob = encode(record.body)
        tell(record.seq, record.time, record.pid, kind, json.loads(blob))
    return 0


def line(seq: int, when: float, pid: int, kind: str, body: Mapping[str, Any]) -> str:
    """A record for a person: the values, long ones by their size."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    words = "  ".join(f"{key}={_short(value)}" for key, value in body.items())
    text = neutralise(words).replace("\n", "\u2424")
    if len(text) > WIDTH:
        text = text[: WIDTH - 1] + "\u2026"
    return f"{seq:>6}  {clock}  {pid:>4}  {kind:<9}  {text}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, list) and len(value) > 8 and all(isinstance(v, int) for v in value):
        return f"[{len(value)} tokens]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=not sys.stdout.isatty())
