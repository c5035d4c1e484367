"""`llmos learn`: train models and adapters, on this machine.

What: the actions and their options; what each does is in `llmos.cli.learn_actions`.
Invariant: before a run begins it says what it will take; a run that was stopped or killed goes on where it stopped when
    the same command is given again.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse

from llmos.cli import learn_night, learn_plan, learn_rl, learn_scaling
from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos learn pretrain books/ --out tiny/           # a model from nothing
  llmos ask --model tiny/ --raw "Once upon a time"
  llmos learn sft chats.jsonl --model smollm2-135m --out helper/
  llmos ask --model smollm2-135m --adapter helper/adapter "..."
  llmos learn dpo pairs.jsonl --start helper/adapter --out better/
  llmos learn rl --domain arithmetic --model smollm2-135m --imitate 400 --out sums/   # it improves on itself
  llmos learn eval held-out.jsonl --adapter better/adapter
  llmos learn harvest --expert librarian --out marked.jsonl   # what was marked by /fix, /pick, /good
  llmos learn scan marked.jsonl
  llmos learn night --expert librarian              # all of it: live behind all gates, or not at all
  llmos learn plan --params 70e9 --tokens 2e12 --device a100 --count 6000

Data are JSON lines: {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]},
{"prompt": "...", "completion": "..."}, or pairs {"prompt": "...", "chosen": "...", "rejected": "..."}.
docs/learning.md goes through all of it.
"""

ACTIONS = (
    ("pretrain", "a small model from nothing, on your documents"),
    ("sft", "teach an adapter what the assistant says in conversations"),
    ("dpo", "teach an adapter which of two answers is better"),
    ("rl", "improve on its own answers, where they can be checked"),
    ("eval", "how well a model, with or without an adapter, foretells conversations or documents"),
    *learn_night.ACTIONS,
    ("scaling", "how loss depends on size and text: a grid of small models foretells a larger one"),
    ("plan", "what training a model of any size takes: days, memory, money"),
)


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "learn", "Train models and adapters, on this machine.", EXAMPLES)
    made = options.actions(parser, ACTIONS)
    learn_plan.add(made.pop("plan"))
    learn_scaling.add(made.pop("scaling"))
    learn_rl.add(made.pop("rl"))
    learn_night.add(made)
    for name, action in made.items():
        action.add_argument("--json", action="store_true", help="print one JSON object at the end")
        action.add_argument(
            "data",
            metavar="FILE",
            nargs="+",
            help="documents or folders" if name == "pretrain" else "JSON lines",
        )
        action.add_argument(
            "--window", metavar="N", type=options.positive, default=512, help="tokens of the longest"
        )
        if name != "eval":
            _training(action)
        if name != "pretrain":
            options.common(action)
    made["pretrain"].add_argument(
        "--depth", metavar="N", type=options.positive, default=6, help="layers; the width follows"
    )
    made["pretrain"].add_argument(
        "--vocab", metavar="N", type=options.positive, default=8192, help="tokens it knows"
    )
    for name in ("sft", "dpo"):
        made[name].add_argument(
            "--rank", metavar="R", type=options.positive, default=16, help="of the adapter"
        )
        made[name].add_argument("--start", metavar="ADAPTER", help="go on from this adapter")
        made[name].add_argument(
            "--keep",
            choices=("int8", "bf16", "f32"),
            default="int8",
            help="what the frozen weights are kept as",
        )
    made["dpo"].add_argument(
        "--beta", metavar="B", type=options.rate, default=0.1, help="how far it may move (default 0.1)"
    )
    made["eval"].add_argument("--adapter", metavar="ADAPTER", help="with this adapter")
    parser.set_defaults(run=run)


def _training(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--out", metavar="FOLDER", required=True, help="where the result and its checkpoints go"
    )
    action.add_argument("--epochs", metavar="E", type=options.rate, help="how often the data is gone through")
    action.add_argument("--steps", metavar="N", type=options.positive, help="so many steps instead")
    action.add_argument("--batch", metavar="N", type=options.positive, help="tokens that a step learns from")
    action.add_argument("--rate", metavar="R", type=options.rate, help="highest learning rate")
    action.add_argument(
        "--seed", metavar="N", type=options.seed, default=0, help="of the data's order and the start"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    if arguments.action == "plan":
        return learn_plan.run(arguments)
    if arguments.action == "rl":
        return learn_rl.run(arguments)
    if arguments.action == "scaling":
        return learn_scaling.run(arguments)
    if arguments.action in dict(learn_night.ACTIONS):
        return learn_night.run(arguments)
    from llmos.cli import learn_actions

    name = {"eval": "evaluate"}.get(arguments.action, arguments.action)
    done: int = getattr(learn_actions, name)(arguments)
    return done
