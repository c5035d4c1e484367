"""`llmos adapter`: which weights experts and processes answer with.

What: lists, gives and takes back adapters, of the kernel that runs; reads one without any.
Invariant: a turn under way ends with the adapter that it began with. What does not fit the model changes nothing.
Interface: `add`, `run`. What an adapter in service is, says `llmos.kernel.adapters`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from llmos.cli import parser as options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmos.abi.machine import AdapterStat

EXAMPLES = """\
examples:
  llmos adapter info adapters/house-style
  llmos adapter use librarian adapters/night-12
  llmos adapter use 7 3fa2b1c09d
  llmos adapter use 7 none
  llmos adapter back librarian
  llmos adapter list

An expert's processes, and those that are spawned of it from then on, answer with what it was given from their next
question on; `back` goes to what stood before. Adapters are LoRA weights as PEFT writes them.
"""

ACTIONS = (
    ("list", "the adapters that are kept, and who runs with them"),
    ("use", "have an expert or a process answer with an adapter"),
    ("back", "go back to what an expert or a process had before"),
    ("info", "what an adapter changes"),
)


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "adapter", "Choose the weights that experts answer with.", EXAMPLES)
    made = options.actions(parser, ACTIONS)
    for name in ("use", "back"):
        made[name].add_argument("target", metavar="WHO", help="an expert's name, or a pid of `llmos ps`")
    made["use"].add_argument(
        "path",
        metavar="ADAPTER",
        help="a folder, a version of `llmos adapter list`, or `none` for the model alone",
    )
    made["info"].add_argument("path", metavar="ADAPTER", help="a folder, or its safetensors file")
    for name in ("list", "info"):
        made[name].add_argument("--json", action="store_true", help="print one JSON object")
    for action in made.values():
        options.config(action)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    return {"list": _list, "use": _use, "back": _back, "info": _info}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from llmos.cli.ps import running

    with running(arguments) as kernel:
        found = kernel.adapters.list()
    if arguments.json:
        print(json.dumps({"adapters": [asdict(stat) for stat in found]}, ensure_ascii=sys.stdout.isatty()))
    elif found:
        print("\n".join(_lines(found)))
    return 0


def _use(arguments: argparse.Namespace) -> int:
    from llmos.cli.ps import running

    with running(arguments) as kernel:
        path = None if arguments.path == "none" else arguments.path
        print(_named(kernel.adapters.use(_target(arguments.target), path)))
    return 0


def _back(arguments: argparse.Namespace) -> int:
    from llmos.cli.ps import running

    with running(arguments) as kernel:
        print(_named(kernel.adapters.back(_target(arguments.target))))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    from llmos.drivers.weights.adapter import read_adapter

    adapter = read_adapter(arguments.path)
    told = {
        "version": adapter.version, "rank": adapter.rank, "alpha": adapter.alpha, "scale": adapter.scale,
        "base": adapter.base, "layers": sum(map(bool, adapter.layers)), "matrices": list(adapter.matrices),
        "bytes": adapter.nbytes,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(told, ensure_ascii=sys.stdout.isatty()))
    else:
        from llmos.drivers.terminal import neutralise

        for name, value in told.items():
            print(f"{name:9} {neutralise(', '.join(value) if isinstance(value, list) else str(value))}")
    return 0


def _target(who: str) -> int | str:
    return int(who) if who.isdecimal() else who


def _named(version: str) -> str:
    return version[:12] or "none: the model alone"


def _lines(found: Sequence[AdapterStat]) -> list[str]:
    from llmos.drivers.terminal import table

    rows = [("VERSION", "RANK", "MB", "BASE", "USED BY")]
    for stat in found:
        base = stat.base if len(stat.base) <= 30 else f"…{stat.base[-29:]}"
        size = f"{stat.size / 1e6:.1f}"
        rows.append((stat.version[:12], str(stat.rank), size, base or "-", ", ".join(stat.used) or "-"))
    return table(rows)
