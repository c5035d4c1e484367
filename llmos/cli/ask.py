"""`llmos ask`: one question, one answer.

What: boots a kernel, spawns a process, streams its turn, prints citations and the ledger.
Invariant: stdout carries the answer and nothing else (with --json: one object and nothing else); all that is
    about the answer goes to stderr.
Interface: `add`, `run`. How a turn is drawn is shared with the shell: `llmos.apps.shell.transcript`.
"""

from __future__ import annotations

import argparse
import sys

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar

EXAMPLES = """\
examples:
  llmos ask "What does chapter 7 forbid?" --mount policy.html
  llmos ask "Summarise my week" --mount ~/notes --trust mine --max-tokens 200
  cat error.log | llmos ask "What went wrong first?"
  llmos ask --raw "Once upon a time" --temperature 0.8 --seed 7
  llmos ask "Who wrote it?" --mount book.pdf --json | jq .citations
  llmos ask "What is 17 % of 2340?" --grant calculator

What is piped in is added below the question. The answer goes to stdout, citations and the ledger to stderr.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "ask", "Ask one question and stream the answer.", EXAMPLES)
    parser.add_argument("question", metavar="QUESTION", help="what to ask; `-` takes all of it from stdin")
    options.mounts(parser)
    options.grants(parser)
    options.sampling(parser)
    parser.add_argument(
        "--raw", action="store_true", help="continue the text as a base model would: no template"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the streaming answer"
    )
    options.common(parser)
    options.trace(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.abi.events import Call
    from llmos.apps.shell.approval import at_terminal
    from llmos.apps.shell.transcript import as_json, stream
    from llmos.cli.inputs import full_question, mount_list
    from llmos.connect import connect, load_config

    question = full_question(arguments.question)
    config = load_config(arguments.config, model=arguments.model)
    mounts = mount_list(arguments.mount, arguments.trust, config)
    bar = Bar(sys.stderr)
    with connect(config, progress=bar, asker=at_terminal(config.policy.ask), trace=arguments.trace) as kernel:
        process = kernel.spawn(mounts=mounts, grants=arguments.grant, progress=bar)
        bar.close()
        turn = process.ask(
            question,
            max_tokens=arguments.max_tokens,
            seed=arguments.seed,
            temperature=arguments.temperature,
            raw=arguments.raw,
        )
        if arguments.json:
            calls = [event for event in turn if isinstance(event, Call)]
            print(as_json(turn, kernel.config.kernel.model, calls=calls, ascii_only=sys.stdout.isatty()))
        else:
            stream(turn, sys.stdout, sys.stderr)
    return 0
