"""`llmos next`: what the model thinks comes next.

What: the distribution of the next token after a text, as a bar chart.
Invariant: shares are of the whole vocabulary; the rest that is not shown is said.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, chart

EXAMPLES = """\
examples:
  llmos next "The cat sat on the"
  llmos next "def fibonacci(" -k 5 --model smollm2-135m
  llmos next "2 + 2 =" --json
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    summary = "Draw the distribution of the next token after a text (no chat template)."
    parser = options.verb(verbs, "next", summary, EXAMPLES)
    parser.add_argument("text", metavar="TEXT", help="the text to continue; quotes keep its spaces")
    parser.add_argument(
        "-k", metavar="N", type=options.positive, default=10, help="how many tokens to show (default 10)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object: model, text, next")
    options.common(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli.inputs import clean_text
    from llmos.connect import connect, load_config

    text = clean_text(arguments.text)
    config = load_config(arguments.config, model=arguments.model)
    bar = Bar(sys.stderr)
    with connect(config, progress=bar) as kernel:
        bar.close()
        rows = kernel.next_distribution(text, arguments.k)
    if arguments.json:
        tokens = [{"token": token, "probability": share} for token, share in rows]
        value = {"model": kernel.config.kernel.model, "text": text, "next": tokens}
        print(json.dumps(value, ensure_ascii=sys.stdout.isatty(), allow_nan=False))
        return 0
    for line in chart([(repr(token)[1:-1].replace(" ", "\u2423"), share) for token, share in rows]):
        print(line)
    rest = 1.0 - sum(share for _, share in rows)
    if rest >= 0.0005:
        print(f"(all other tokens together {rest:.1%})")
    return 0
