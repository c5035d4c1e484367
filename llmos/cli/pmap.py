"""`llmos pmap PID`: what stands in a process's window.

What: the window as a map, a cell for each stretch of tokens, and a line for each origin with its pages and label.
Invariant: reading changes nothing. What documents call themselves cannot touch the terminal.
Interface: `add`; how it is drawn is shared with the shell: `llmos.apps.shell.pmap`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING

from llmos.cli import parser as options

if TYPE_CHECKING:
    from llmos.abi.machine import Region

EXAMPLES = """\
examples:
  llmos pmap 3
  llmos pmap 3 --json | jq '.regions[] | select(.kind == "knowledge") | .source'

Letters are kinds: s(ystem), u(ser), a(ssistant), c(all table), r(esult), k(nowledge).
ATTENTION is where the last answer looked, as one layer of the model tells.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "pmap", "Draw the window of a process.", EXAMPLES)
    parser.add_argument("pid", metavar="PID", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object: regions")
    options.config(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.apps.shell.pmap import draw
    from llmos.cli.ps import running

    with running(arguments) as kernel:
        regions = kernel.pmap(arguments.pid, look=True)
    if arguments.json:
        print(
            json.dumps({"regions": [_plain(region) for region in regions]}, ensure_ascii=sys.stdout.isatty())
        )
        return 0
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print("\n".join(draw(regions, shutil.get_terminal_size((80, 24)).columns, colour=colour)))
    return 0


def _plain(region: Region) -> dict[str, object]:
    label = region.label
    return {
        "kind": region.kind, "source": region.source, "start": region.start, "tokens": region.tokens,
        "pages": list(region.pages), "integrity": label.integrity.name,
        "readers": None if label.readers is None else sorted(label.readers), "attention": region.attention,
    }  # fmt: skip
