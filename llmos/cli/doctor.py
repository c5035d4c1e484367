"""`llmos doctor`: what this machine has and lacks, and how to get it.

What: prints what `kernel.doctor` finds, a line each.
Invariant: boots nothing, fetches nothing, imports no jax. Exit code 0 where questions can be answered (a model that
    the first question will fetch counts as there), 1 where something that they need lacks.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, neutralise

EXAMPLES = """\
examples:
  llmos doctor
  llmos doctor --json | jq '.findings[] | select(.ok | not)'
  llmos doctor --deep          # hashes the models in the cache, checks the whole journal
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(
        verbs, "doctor", "Say what this machine has and lacks, and how to get it.", EXAMPLES
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--deep", action="store_true", help="read whole files: models, journal")
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.connect import load_config
    from llmos.kernel.doctor import examine

    config = load_config(arguments.config, model=arguments.model)
    bar = Bar(sys.stderr)
    chapters = examine(config, deep=arguments.deep, progress=bar)
    bar.close()
    wanting = [f for _, findings in chapters for f in findings if f.needed and not f.ok]
    if arguments.json:
        listed = [{"chapter": chapter, **asdict(f)} for chapter, findings in chapters for f in findings]
        print(json.dumps({"ok": not wanting, "findings": listed}, ensure_ascii=sys.stdout.isatty()))
        return 1 if wanting else 0
    for chapter, findings in chapters:
        print(f"{chapter}:")
        for f in findings:
            print(neutralise(f"  {'ok   ' if f.ok else 'lacks'} {f.part:<16} {f.says}"))
            if not f.ok and f.do:
                print(neutralise(f"        {'':<15} get it: {f.do}"))
    names = ", ".join(f.part for f in wanting)
    print(
        f"\nThis machine cannot answer yet: {names}." if wanting else "\nThis machine can answer questions."
    )
    return 1 if wanting else 0
