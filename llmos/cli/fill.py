"""`llmos fill`: keys and values of documents, computed before anybody asks.

What: has the running kernel bring passages into its page store within a budget, and says first what that costs.
Invariant: what is there is not computed again, so a run that was stopped is gone on with by the same command.
Interface: `add`. What is chosen, and how, is in `llmos.kernel.filling`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from llmos.cli import parser as options
from llmos.cli.interrupts import INTERRUPTED

if TYPE_CHECKING:
    from llmos.abi.machine import Filling

EXAMPLES = """\
examples:
  llmos up; llmos fill --mount handbook/ --bytes 200MiB
  llmos fill --expert librarian --bytes 1GiB --cost
  llmos fill --mount handbook/ --bytes 200MiB --json

For processes that put knowledge together: spawn(mounts=..., fidelity="blend"), with the same expert, grants and trust.
A token of the default model takes 12 KiB. Ctrl-C stops; what is computed stays, and the same command goes on.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "fill", "Compute knowledge ahead of need, within a budget.", EXAMPLES)
    parser.add_argument("--bytes", metavar="SIZE", required=True, help="of the page store, such as 200MiB")
    parser.add_argument("--cost", action="store_true", help="only say what it would cost")
    parser.add_argument("--json", action="store_true", help="print one JSON object: cost, filled")
    parser.add_argument(
        "--grant", metavar="SYSCALL", action="append", default=[],
        help="what those processes may call, which stands in their windows; repeatable",
    )  # fmt: skip
    options.mounts(parser)
    options.expert(parser)
    options.config(parser)
    parser.set_defaults(run=run, model=None)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.cli.inputs import mount_list
    from llmos.cli.ps import running
    from llmos.cli.who import who
    from llmos.drivers.terminal import Bar

    size = _size(arguments.bytes)
    config, expert = who(arguments)
    mounts = mount_list(arguments.mount, arguments.trust, config)
    bar, filled = Bar(sys.stderr), None
    with running(arguments) as kernel:
        process = expert.spawn(kernel, mounts=mounts, grants=arguments.grant, fidelity="blend", progress=bar)
        try:
            cost = kernel.fill(process.pid, size, look=True, progress=bar)
            bar.close()
            if not arguments.json:
                print(_told(cost), flush=True)
            if not arguments.cost:
                filled = kernel.fill(process.pid, size, progress=bar)
                bar.close()
        except KeyboardInterrupt:
            bar.close()
            print("stopped; what is computed stays, and the same command goes on", file=sys.stderr)
            return INTERRUPTED
        finally:
            process.close()
    if arguments.json:
        print(json.dumps({"cost": asdict(cost), "filled": None if filled is None else asdict(filled)}))
    elif filled is not None:
        print(f"{'stopped' if filled.stopped else 'done'} after {filled.seconds:.0f} s")
    return 0


def _told(cost: Filling) -> str:
    """What it costs, for people."""
    return (
        f"{cost.passages:,} of {cost.of:,} passages, {cost.tokens:,} tokens, {cost.bytes / 2**20:,.0f} MiB; "
        f"{cost.stored:,} are there, {cost.missing:,} tokens to compute, about {cost.seconds:,.0f} s"
    )


def _size(text: str) -> int:
    from pydantic import TypeAdapter, ValidationError

    from llmos.abi.config import Bytes
    from llmos.abi.errors import ConfigError

    try:
        size: int = TypeAdapter(Bytes).validate_python(text if not text.isdecimal() else int(text))
        return size
    except ValidationError as error:
        raise ConfigError(
            f"{text!r} is no size", why=error.errors()[0]["msg"], do="write --bytes 200MiB", key="--bytes"
        ) from None
