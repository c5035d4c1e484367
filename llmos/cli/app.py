"""`llmos app`: the apps of this machine, and making one's own.

What: the actions and their options; what each does is in `llmos.cli.app_actions`, a new app's files in
    `llmos.cli.app_new`.
Invariant: nothing here loads a model or imports jax. `serve` writes nothing but the protocol to stdout.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse

from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos app list
  llmos app info calculator
  llmos app new shopping            (a package with an app, its test, and what installs it)
  llmos app test shopping
  llmos app test my_module:MyApp --effects write --examples examples.json
  llmos app grant "files.write(path=out/*)" --expert ./clerk.yaml
  llmos app serve calculator        (an MCP server on stdin and stdout)

docs/apps/sdk.md tells how an app is written.
"""

ACTIONS = (
    ("list", "what there is, and which syscalls each app has"),
    ("info", "all about one app: what its syscalls take, do and promise"),
    ("new", "make a package with an app, its test and its installation"),
    ("test", "put an app through the conformance suite"),
    ("grant", "show what grants let a model do, and give them to an expert"),
    ("serve", "serve an app over MCP on stdin and stdout"),
)


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "app", "List, make, test, grant and serve apps.", EXAMPLES)
    made = options.actions(parser, ACTIONS)
    made["info"].add_argument("name", metavar="NAME", help="an installed app, or module:Class")
    made["new"].add_argument("name", metavar="NAME", help="a-z, 0-9 and _; what processes call it by")
    made["new"].add_argument("--into", metavar="FOLDER", help="where the package goes (default: ./NAME)")
    _tested(made["test"])
    made["grant"].add_argument(
        "grants",
        metavar="GRANT",
        nargs="+",
        help='such as calculator, "files.read" or "files.write(path=out/*)"',
    )
    made["grant"].add_argument("--expert", metavar="FILE", help="add them to this expert file, agreed to")
    made["grant"].add_argument("--yes", action="store_true", help="agree, and say to what")
    made["serve"].add_argument("name", metavar="NAME", nargs="+", help="an installed app, or module:Class")
    for name in ("list", "info", "new", "test", "grant"):
        made[name].add_argument("--json", action="store_true", help="print one JSON object")
    for name in ("list", "grant"):
        options.config(made[name])
    parser.set_defaults(run=run)


def _tested(test: argparse.ArgumentParser) -> None:
    test.add_argument("name", metavar="NAME", help="an installed app, or module:Class")
    test.add_argument(
        "--effects", metavar="EFFECT", action="append", default=[],
        help="also call syscalls of this effect with made-up arguments (none and read are called anyway); repeatable",
    )  # fmt: skip
    test.add_argument(
        "--examples", metavar="FILE", help="JSON: full name of a syscall -> arguments, or several"
    )
    test.add_argument(
        "--only", metavar="CHECK", action="append", default=[], help="this check alone; repeatable"
    )


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli import app_actions

    action = {"list": "list_"}.get(arguments.action, arguments.action)
    code: int = getattr(app_actions, action)(arguments)
    return code
