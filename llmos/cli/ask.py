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
  llmos ask "What is the mean of the column price in sales.csv?" --grant interpreter --work .
  llmos ask "A train leaves at 9:40 and takes 135 minutes. When does it arrive?" --think 30s
  llmos ask "Write it as we do" --adapter adapters/house-style
  llmos ask "Which day of the week was 1 May 1975?" --expert analyst

What is piped in is added below the question. The answer goes to stdout, citations and the ledger to stderr.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "ask", "Ask one question and stream the answer.", EXAMPLES)
    parser.add_argument("question", metavar="QUESTION", help="what to ask; `-` takes all of it from stdin")
    options.expert(parser)
    answering(parser)
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


def answering(parser: argparse.ArgumentParser) -> None:
    """How one question is answered, beside what all that answer take: also of `llmos expert run`."""
    parser.add_argument(
        "--adapter",
        metavar="PATH",
        help="LoRA weights that the answer comes from: a folder as PEFT writes it",
    )
    parser.add_argument(
        "--think",
        metavar="BUDGET",
        type=budget,
        help="think before answering: for a time (30s, 2m), a multiple of a plain answer (8x), or tokens (4000)",
    )


def budget(text: str) -> str:
    """How long to think, for argparse."""
    from llmos.abi.errors import ConfigError
    from llmos.kernel.think.budget import Budget

    try:
        Budget.of(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from dataclasses import replace

    from llmos.abi.events import Call
    from llmos.apps.shell.approval import at_terminal
    from llmos.apps.shell.transcript import as_json, stream
    from llmos.cli.inputs import full_question, mount_list
    from llmos.cli.who import who
    from llmos.connect import connect

    question = full_question(arguments.question)
    config, expert = who(arguments)
    mounts = mount_list(arguments.mount, arguments.trust, config)
    bar = Bar(sys.stderr)
    with connect(config, progress=bar, asker=at_terminal(config.policy.ask), trace=arguments.trace) as kernel:
        if arguments.adapter is not None:
            expert = replace(expert, adapter=arguments.adapter)
        process = expert.spawn(
            kernel, mounts=mounts, grants=arguments.grant, work=arguments.work, progress=bar
        )
        bar.close()
        how = {
            "max_tokens": arguments.max_tokens,
            "seed": arguments.seed,
            "temperature": arguments.temperature,
            "think": arguments.think,
        }
        turn = process.ask(question, **expert.asked(**how), raw=arguments.raw)
        if arguments.json:
            calls = [event for event in turn if isinstance(event, Call)]
            print(as_json(turn, kernel.config.kernel.model, calls=calls, ascii_only=sys.stdout.isatty()))
        else:
            stream(turn, sys.stdout, sys.stderr)
    return 0
