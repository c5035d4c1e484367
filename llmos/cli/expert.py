"""`llmos expert`: make, try, share and install experts.

What: the actions and their options; what each does is in `llmos.cli.expert_actions` (one's own) and
    `llmos.cli.expert_sharing` (packs and stores).
Invariant: nothing is granted that nobody agreed to: without a terminal to ask at, only `--yes` agrees.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse

from llmos.cli import ask
from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos expert list
  llmos expert new handbook --knowledge docs/ --trust mine
  llmos expert test ./handbook.yaml
  llmos expert run ./handbook.yaml "How long is the notice period?"
  llmos expert pack ./handbook.yaml
  llmos expert install handbook-0.1.0.expert

`llmos expert ACTION --help` says more about each. docs/experts.md tells what a file may say.
"""

ACTIONS = (
    ("list", "the experts that have a name here"),
    ("info", "all about one: what it is told, what it answers from, what it may call"),
    ("new", "draft an expert file; asks for what is not given"),
    ("edit", "open an expert's file in $EDITOR, and check it"),
    ("validate", "check files: keys, documents, grants"),
    ("schema", "print the JSON schema of expert files, for editors"),
    ("test", "ask an expert its own tests"),
    ("run", "talk with an expert, or ask it one question"),
    ("allow", "agree to what an expert wants to call"),
    ("rm", "take an installed expert away"),
    ("key", "make the key that signs your packs, or show its public half"),
    ("pack", "put an expert into one file, signed"),
    ("publish", "test, pack and put into a store"),
    ("search", "what a store has"),
    ("install", "make a pack an expert of this machine"),
    ("upgrade", "install newer versions from where experts came"),
    ("verify", "check a pack, or an installed expert, against its signature"),
)


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "expert", "Make, try, share and install experts.", EXAMPLES)
    made = options.actions(parser, ACTIONS)
    for name in ("info", "edit", "test", "run", "allow", "pack", "publish"):
        made[name].add_argument("name", metavar="NAME", help="a name from `llmos expert list`, or a file")
    for name in ("list", "info", "validate", "test", "search", "verify"):
        made[name].add_argument("--json", action="store_true", help="print one JSON object")
    for name in ("publish", "search", "install", "upgrade"):
        made[name].add_argument("--store", metavar="FOLDER", help="the store (default: the machine's own)")
    for name in ("install", "upgrade", "allow"):
        made[name].add_argument("--yes", action="store_true", help="agree to what it wants, and say to what")
    _own(made)
    _shared(made)
    for name, action in made.items():
        (options.common if name in ("test", "run", "publish") else options.config)(action)
    parser.set_defaults(run=run)


def _own(made: dict[str, argparse.ArgumentParser]) -> None:
    new = made["new"]
    new.add_argument("name", metavar="NAME", help="a-z, 0-9 and -; what it is called")
    new.add_argument("--describe", metavar="TEXT", default="", help="what it is for, in a sentence")
    new.add_argument("--instructions", metavar="TEXT", default="", help="how it answers")
    new.add_argument(
        "--knowledge", metavar="PATH", action="append", default=[], help="what it answers from; repeatable"
    )
    new.add_argument("--trust", choices=("mine", "shared"), default="shared", help="whose words these are")
    new.add_argument(
        "--grant", metavar="SYSCALL", action="append", default=[], help="what it may call; repeatable"
    )
    new.add_argument("--extends", metavar="NAME", default="", help="an expert that it is built on")
    new.add_argument("--base", metavar="MODEL", default="", help="the model that it is made for")
    new.add_argument("--output", metavar="FILE", help="where the file goes (default: NAME.yaml)")
    new.add_argument("--yes", action="store_true", help="ask nothing")
    made["validate"].add_argument("files", metavar="FILE", nargs="+", help="expert files")
    made["test"].add_argument(
        "--only",
        metavar="N",
        type=options.positive,
        action="append",
        default=[],
        help="this test alone; repeatable",
    )
    run = made["run"]
    run.add_argument("question", metavar="QUESTION", nargs="?", help="without one: a conversation")
    run.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    run.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the streaming answer"
    )
    run.add_argument("--plain", action="store_true", help="draw nothing, as `llmos shell --plain`")
    options.mounts(run)
    options.grants(run)
    options.sampling(run)
    ask.answering(run)
    options.trace(run)


def _shared(made: dict[str, argparse.ArgumentParser]) -> None:
    made["rm"].add_argument("names", metavar="NAME", nargs="+", help="an installed expert")
    made["pack"].add_argument("--output", metavar="FILE", help="where it goes (default: NAME-VERSION.expert)")
    for name in ("pack", "publish"):
        made[name].add_argument("--unsigned", action="store_true", help="without a signature")
    made["publish"].add_argument(
        "--least",
        metavar="SHARE",
        type=share,
        default=1.0,
        help="of its tests that must pass (default 1.0: all)",
    )
    made["search"].add_argument("words", metavar="WORD", nargs="*", help="in its name or description")
    made["install"].add_argument(
        "source", metavar="SOURCE", help="a .expert file, or a store's NAME or NAME@VERSION"
    )
    made["install"].add_argument("--unsigned", action="store_true", help="take a pack that nobody signed")
    made["upgrade"].add_argument(
        "names", metavar="NAME", nargs="*", help="without names: all that are installed"
    )
    made["verify"].add_argument("source", metavar="SOURCE", help="a .expert file, or an installed expert")


def share(text: str) -> float:
    """A number above 0, up to 1, for argparse."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli import expert_actions, expert_sharing

    name = {"list": "list_"}.get(arguments.action, arguments.action)
    module = expert_actions if hasattr(expert_actions, name) else expert_sharing
    done: int = getattr(module, name)(arguments)
    return done
