"""`llmos export`: a model as two files that need neither llmos nor a network.

What: writes the parameters and the short program that runs them.
Invariant: each file appears whole or not at all.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar

EXAMPLES = """\
examples:
  llmos export --two-files small/ --model smollm2-135m
  python small/answer.py "What is an operating system?"

The program needs Python and numpy. In f32 it says what the kernel says with `numerics: f32`.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(
        verbs, "export", "Write a model as two files: its parameters, and a short program.", EXAMPLES
    )
    parser.add_argument(
        "--two-files", metavar="DIR", type=Path, required=True, help="the folder that they go to"
    )
    parser.add_argument(
        "--type",
        choices=("f32", "f16"),
        default="f32",
        help="of the numbers: f16 takes half the room, and changes a token now and then (default f32)",
    )
    parser.add_argument(
        "--positions",
        metavar="N",
        type=options.positive,
        default=4096,
        help="tokens of a question and its answer together (default 4096)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.connect import load_config
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.learn.export import export

    config = load_config(arguments.config, model=arguments.model)
    bar = Bar(sys.stderr)
    weights = open_weights(find(config.kernel.model, progress=bar, cache=config.machine.cache))
    files = export(
        weights, arguments.two_files, kind=arguments.type, positions=arguments.positions, progress=bar
    )
    bar.close()
    if arguments.json:
        print(json.dumps({"model": config.kernel.model, "files": [str(file) for file in files]}))
        return 0
    for file in files:
        print(f"{file}: {file.stat().st_size:,} bytes")
    return 0
