"""`llmos app`: the apps of this machine.

What: lists what processes can be granted, and serves one of our apps to any MCP client over stdio.
Invariant: `serve` writes nothing but the protocol to stdout; neither verb loads a model or imports jax.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos app list
  llmos app serve calculator        (an MCP server on stdin and stdout)
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "app", "List the apps, or serve one to MCP clients.", EXAMPLES)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="what there is, and which syscalls each has")
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    served = actions.add_parser("serve", help="serve an app over MCP on stdin and stdout")
    served.add_argument("name", metavar="NAME", nargs="+", help="an installed app, or module:Class")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    if arguments.action == "serve":
        from llmos.apps.serve.server import serve

        serve(arguments.name)
        sys.stdout.flush()
        os._exit(0)  # a call that still runs must not keep the process
    from importlib.metadata import entry_points

    from llmos.abi.errors import AppError
    from llmos.abi.loading import GROUP, load
    from llmos.abi.manifest import Manifest

    found: dict[str, object] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        try:
            manifest = Manifest.of(load(entry.name))
            found[entry.name] = {s.name: s.description.partition("\n")[0] for s in manifest.syscalls}
            about = manifest.doc.partition("\n")[0]
        except AppError as error:
            found[entry.name], about = {"error": str(error)}, f"broken: {error}"
        if not arguments.json:
            print(f"{entry.name}: {about}")
            for name, words in found[entry.name].items():  # type: ignore[attr-defined]
                print(f"  {name:<28} {words}")
    if arguments.json:
        print(json.dumps(found))
    return 0
