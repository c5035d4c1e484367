"""`llmos learn plan`: what training a model would take.

What: reads sizes as people write them (70e9, 70B, 2T), and draws the plan as a table.
Invariant: it computes; nothing is begun, and no model is loaded.
Interface: `add(parser)`, `run(arguments)`: the options of the action, and what it does.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import replace

from llmos.cli import parser as options

EXAMPLES = """\
examples:
  llmos learn plan --params 70e9 --tokens 2e12 --device a100 --count 6000
  llmos learn plan --params 10M --tokens 200M --flops 2e11 --memory 8e9 --mfu 0.3
"""
_WORDS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    from llmos.kernel.learn.planner import DEVICES, MFU, SEQUENCE, SHARDINGS

    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--params", metavar="N", type=amount, required=True, help="of the model: 70e9 or 70B")
    parser.add_argument("--tokens", metavar="N", type=amount, required=True, help="it reads: 2e12 or 2T")
    parser.add_argument(
        "--device", metavar="NAME", choices=sorted(DEVICES), default="a100",
        help=f"one of {', '.join(DEVICES)} (default a100)",
    )  # fmt: skip
    parser.add_argument(
        "--count", metavar="N", type=options.positive, default=1, help="how many devices (default 1)"
    )
    parser.add_argument(
        "--mfu", metavar="SHARE", type=amount, default=MFU,
        help=f"of a device's operations that go into the model (default {MFU})",
    )  # fmt: skip
    parser.add_argument(
        "--price", metavar="DOLLARS", type=amount, help="a device and hour (default: a table's)"
    )
    group = parser.add_argument_group("memory")
    group.add_argument(
        "--sequence", metavar="N", type=options.positive, default=SEQUENCE,
        help=f"tokens of a sequence (default {SEQUENCE})",
    )  # fmt: skip
    group.add_argument(
        "--batch", metavar="N", type=options.positive, default=1, help="sequences a device computes at once"
    )
    group.add_argument(
        "--layers", metavar="N", type=options.positive, help="of the model (default: a usual shape)"
    )
    group.add_argument("--dim", metavar="N", type=options.positive, help="its width")
    group.add_argument(
        "--sharding", choices=SHARDINGS, default="parameters",
        help="what is divided among the devices: that, and what stands before it (default parameters: all)",
    )  # fmt: skip
    group.add_argument(
        "--keep", action="store_true", help="store activations instead of computing them again"
    )
    group = parser.add_argument_group("a device that the table lacks")
    group.add_argument("--flops", metavar="N", type=amount, help="operations a second")
    group.add_argument("--memory", metavar="BYTES", type=amount, help="of a device")
    group.add_argument("--watts", metavar="N", type=amount, help="of a device")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def amount(text: str) -> float:
    """A number as people write it: 70e9, 70B, 1.5T; for argparse."""
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([kmbgt]?)", text.strip().lower())
    try:
        value = float(found[1]) * _WORDS[found[2]] if found else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number like 70e9, 70B or 0.45")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Carries the action out."""
    from llmos.abi.errors import PlanError
    from llmos.drivers.terminal import table
    from llmos.kernel.learn.planner import DEVICES, Shape, plan

    device = DEVICES[arguments.device]
    given = {name: getattr(arguments, name) for name in ("flops", "memory", "watts")}
    if given := {name: value for name, value in given.items() if value is not None}:
        device = replace(device, name=f"{device.name}, changed", **given)
    if (arguments.layers is None) != (arguments.dim is None):
        raise PlanError("a shape is layers and width together", do="give both --layers and --dim, or neither")
    made = plan(
        arguments.params, arguments.tokens, device, arguments.count, mfu=arguments.mfu, price=arguments.price,
        sequence=arguments.sequence, batch=arguments.batch,
        shape=Shape(arguments.layers, arguments.dim) if arguments.layers else None,
        sharding=arguments.sharding, recompute=not arguments.keep,
    )  # fmt: skip
    if arguments.json:
        names = (
            "params", "tokens", "flops", "mfu", "attention_share", "days", "device_hours", "cost", "tokens_per_s",
            "weights", "gradients", "optimiser", "activations", "memory", "fits", "file", "optimal_tokens",
        )  # fmt: skip
        value = {name: getattr(made, name) for name in names}
        print(
            json.dumps(
                {**value, "device": device.name, "count": made.count, "energy_mwh": made.energy / 3.6e9}
            )
        )
        return 0
    seconds = made.seconds
    time = f"{made.days:,.1f} days" if seconds > 2 * 86400 else f"{seconds / 3600:,.1f} hours"
    parts = (made.weights, made.gradients, made.optimiser, made.activations)
    named = " + ".join(
        f"{words} {short(part, 'B')}"
        for words, part in zip(("parameters", "gradients", "optimiser", "activations"), parts, strict=True)
    )
    rows = [
        ("model", f"{short(made.params)} parameters, a file of {short(made.file, 'B')} at two bytes each"),
        ("reads", f"{short(made.tokens)} tokens ({made.tokens / made.params:,.0f} a parameter; best for its size by "
                  f"loss alone: {short(made.optimal_tokens)})"),
        ("computing", f"{made.flops:.2e} operations, {made.attention_share:.0%} of them attention"),
        ("devices", f"{made.count:,} x {device.name}, at {made.mfu:.0%} of {short(device.flops)} operations/s"),
        ("takes", f"{time}, {made.device_hours:,.0f} device-hours, {short(made.tokens_per_s)} tokens/s"),
        ("costs", f"${made.cost:,.0f}"),
        ("energy", short(made.energy / 3600, "Wh")),
        ("memory", f"{short(made.memory, 'B')} of a device's {short(device.memory, 'B')}: {named}"),
    ]  # fmt: skip
    print("\n".join(table(rows)))
    if not made.fits:
        print(
            "It does not fit: divide more (--sharding), take more devices, or a smaller --batch or --sequence."
        )
    return 0


def short(number: float, unit: str = "") -> str:
    """Three digits and a letter: of things that are counted 70B, of a unit 140 GB."""
    for letter in "", "k", "M", "G" if unit else "B", "T", "P":
        if abs(number) < 999.5 or letter == "P":
            break
        number /= 1000
    return f"{number:.3g} {letter}{unit}" if unit else f"{number:.3g}{letter}"
