"""`llmos shell`: a conversation.

What: boots a kernel and hands it to the shell app.
Invariant: this module only parses; what a shell is, is in `llmos.apps.shell`.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import sys

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar

EXAMPLES = """\
examples:
  llmos shell
  llmos shell --mount handbook/ --trust mine
  llmos shell --grant calculator
  llmos shell --expert librarian --mount handbook/

Inside, /help lists the commands; Ctrl-C stops the answer, Ctrl-D or /quit leaves.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "shell", "Talk with the model, turn after turn.", EXAMPLES)
    options.expert(parser)
    options.mounts(parser)
    options.grants(parser)
    options.sampling(parser)
    options.common(parser)
    options.trace(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.apps.shell.approval import at_terminal
    from llmos.cli.inputs import mount_list
    from llmos.cli.who import who
    from llmos.connect import connect

    config, expert = who(arguments)
    mounts = mount_list(arguments.mount, arguments.trust, config)
    bar = Bar(sys.stderr)
    with connect(config, progress=bar, asker=at_terminal(config.policy.ask), trace=arguments.trace) as kernel:
        from llmos.apps.shell import Shell

        shell = Shell(
            kernel,
            mounts=mounts,
            grants=arguments.grant,
            expert=expert,
            max_tokens=arguments.max_tokens,
            seed=arguments.seed,
            temperature=arguments.temperature,
            progress=bar,
            history=config.machine.state / "shell_history",
        )
        bar.close()
        return shell.run()
