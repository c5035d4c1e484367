"""The commands, their options and their help.

What: one argparse parser from all verbs.
Invariant: building it imports no model, no yaml and no numpy.
Interface: `parser()`; for the verbs: `Verbs`, `verb`, `actions`, and the groups of options that several share:
    `config`, `common`, `trace`, `sampling`, `mounts`, `grants`, `expert`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from llmos import __version__

EPILOG = """\
examples:
  llmos ask "How long is the notice period?" --mount contracts/
  git diff | llmos ask "Write a commit message"
  llmos shell --mount notes/ --trust mine
  llmos talk question.wav --out answers/
  llmos next "The cat sat on the"
  llmos models list
  llmos up; llmos ps; llmos down

`llmos VERB --help` says more about each. The configuration is read from --config, else $LLMOS_CONFIG,
else ./llmos.yaml, else llmos/llmos.yaml in your configuration folder.
"""

Verbs = argparse._SubParsersAction  # argparse has no public name for it


def parser() -> argparse.ArgumentParser:
    """The parser of the command `llmos`."""
    from llmos.cli import (  # fmt: skip
        adapter,
        app,
        ask,
        checkpoint,
        doctor,
        expert,
        export,
        fill,
        journal,
        kill,
        label,
        learn,
        models,
        next_token,
        pmap,
        ps,
        replay,
        serve,
        shell,
        talk,
        up,
        zipping,
    )

    top = argparse.ArgumentParser(
        prog="llmos",
        description="A language model as the kernel of an operating system: it runs here, in this process.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"llmos {__version__}")
    verbs = top.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    runs = (ask, shell, talk, up, ps, pmap, kill, checkpoint, fill, journal, replay, serve)
    for module in (*runs, next_token, expert, adapter, learn, label, models, zipping, export, app, doctor):
        module.add(verbs)
    return top


def verb(
    verbs: Verbs[argparse.ArgumentParser], name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    """A verb's own parser, with its examples below its options."""
    return verbs.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def actions(
    parser: argparse.ArgumentParser, named: Sequence[tuple[str, str]]
) -> dict[str, argparse.ArgumentParser]:
    """A parser for each action of a verb: (its name, what it does)."""
    group = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    return {
        name: group.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".", allow_abbrev=False
        )
        for name, about in named
    }


def config(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The option of every verb that looks for this machine's state."""
    group = parser.add_argument_group("machine")
    group.add_argument("--config", metavar="FILE", help="read this llmos.yaml")
    return group


def common(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that may boot a kernel."""
    config(parser).add_argument(
        "--model",
        metavar="M",
        help="a name from `llmos models list`, a .gguf file, or a folder of Hugging Face safetensors",
    )


def trace(parser: argparse.ArgumentParser) -> None:
    """The option of every verb whose kernel can be watched."""
    parser.add_argument(
        "--trace", metavar="FILE", help="write what the machine does, for https://ui.perfetto.dev"
    )


def sampling(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that lets the model write."""
    group = parser.add_argument_group("answer")
    group.add_argument(
        "--max-tokens",
        metavar="N",
        type=positive,
        help="stop after N tokens (default 512, or as the expert says)",
    )
    group.add_argument(
        "--seed",
        metavar="N",
        type=seed,
        help="where the random bits start (default 0): same seed, same answer",
    )
    group.add_argument(
        "--temperature",
        metavar="T",
        type=temperature,
        help="0 is greedy; more is more random (default: greedy)",
    )


def grants(parser: argparse.ArgumentParser) -> None:
    """The options of every verb whose process may call apps."""
    group = parser.add_argument_group("apps")
    group.add_argument(
        "--grant",
        metavar="SYSCALL",
        action="append",
        default=[],
        help="what the model may call: an app (calculator), a syscall (files.read_*), or one with bound arguments "
        "(mail.send(to=*@example.org)); repeatable",
    )
    group.add_argument(
        "--work",
        metavar="FOLDER",
        help="where apps may read and write files (default: a folder of the process's own)",
    )


def expert(parser: argparse.ArgumentParser) -> None:
    """The option of every verb whose process may be an expert."""
    parser.add_argument(
        "--expert",
        metavar="NAME",
        help="who answers: a name from `llmos expert list`, or a file: ./mine.yaml",
    )


def mounts(parser: argparse.ArgumentParser) -> None:
    """The options of every verb that can read documents."""
    group = parser.add_argument_group("documents")
    group.add_argument(
        "--mount",
        metavar="PATH",
        action="append",
        default=[],
        help="a file or folder (txt, md, rst, html, pdf) to answer from, or a volume of llmos.yaml; "
        "repeatable",
    )
    group.add_argument(
        "--trust",
        choices=("mine", "shared"),
        help="whose words the mounts hold: yours, or anybody's (the default)",
    )


def positive(text: str) -> int:
    """An integer from 1 to 2^31-1, for argparse."""
    value = int(text)
    if not 1 <= value < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and {(1 << 31) - 1}")
    return value


def seed(text: str) -> int:
    """An integer from 0 to 2^32-1, for argparse."""
    value = int(text)
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {(1 << 32) - 1}")
    return value


def temperature(text: str) -> float:
    """A number from 0 to 100, for argparse."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 100):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return value


def rate(text: str) -> float:
    """A number above 0, up to 1000, for argparse."""
    value = float(text)
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1000")
    return value
