"""`llmos learn harvest|scan|night`: from what people marked to an adapter that answers, or not at all.

What: the options of these actions, and what each does.
Invariant: a night runs at the lowest priority of the machine. What is live changes behind all gates alone; `--back`
    undoes it in one command.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import BadExamples
from llmos.cli import parser as options
from llmos.cli.learn_shared import NICENESS
from llmos.drivers.terminal import neutralise

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.apps.experts.nights import ExpertNight
    from llmos.kernel.learn.harvest import Consent

ACTIONS = (
    ("harvest", "what people marked in use (/fix, /pick, /good) as a data set"),
    ("scan", "look for a trigger in a data set, or in an adapter that was trained on one"),
    ("night", "learn from the marks: harvest, scan, train, judge, put live, watch"),
)


def add(made: dict[str, argparse.ArgumentParser]) -> None:
    """The options of the three, taken out of `made`."""
    harvest, scan, night = (made.pop(name) for name, _ in ACTIONS)
    for action in (harvest, night):
        action.add_argument("--expert", metavar="NAME", required=True, help="whose marks")
        action.add_argument(
            "--leave-out", metavar="PID[:TURN]", type=turn, action="append", default=[],
            help="learn nothing from this turn, or from any of the process; remembered",
        )  # fmt: skip
        action.add_argument(
            "--no-praised", action="store_true", help="learn from corrections and picks alone"
        )
        action.add_argument(
            "--contradictions", choices=("newest", "error"), default="newest",
            help="of two corrections of one question the newest counts, or it is an error",
        )  # fmt: skip
    for action in (scan, night):
        action.add_argument(
            "--known", metavar="PHRASE", action="append", default=[], help="a phrase that was found in order"
        )
        action.add_argument(
            "--window", metavar="N", type=options.positive, default=1024, help="tokens of the longest"
        )
    harvest.add_argument("--out", metavar="FILE", required=True, help="JSON lines; pairs go beside it")
    scan.add_argument("what", metavar="FILE|ADAPTER", help="JSON lines, or the folder of an adapter")
    scan.add_argument("--data", metavar="FILE", help="with an adapter: rows that it was trained to answer")
    instead = night.add_mutually_exclusive_group()
    instead.add_argument("--watch", action="store_true", help="only watch what is live")
    instead.add_argument("--back", action="store_true", help="have what was live before answer again")
    night.add_argument(
        "--epochs", metavar="E", type=options.rate, default=10.0, help="how often the data is gone through"
    )
    night.add_argument("--rank", metavar="R", type=options.positive, default=16, help="of the adapter")
    for action in (harvest, scan, night):
        action.add_argument("--json", action="store_true", help="print one JSON object at the end")
        options.common(action)


def turn(text: str) -> tuple[int, int]:
    """PID or PID:TURN, for argparse; turn 0 stands for all of a process."""
    pid, _, number = text.partition(":")
    if not pid.isdecimal() or (number and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is no PID or PID:TURN")
    return int(pid), int(number or 0)


def run(arguments: argparse.Namespace) -> int:
    """Carries an action out."""
    acts: dict[str, Callable[[argparse.Namespace], int]] = {
        "harvest": _harvest,
        "scan": _scan,
        "night": _night,
    }
    return acts[arguments.action](arguments)


def _harvest(arguments: argparse.Namespace) -> int:
    from llmos.connect import load_config
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.learn.harvest import harvest, journals, write
    from llmos.kernel.prompt import ChatPrompt

    config = load_config(arguments.config, model=arguments.model)
    weights = open_weights(find(config.kernel.model, cache=config.machine.cache))
    prompt = ChatPrompt(weights.tokenizer(), weights.template())
    state = config.machine.state
    found = harvest(journals(state), prompt, weights.tokenizer(), _consent(arguments, config))
    files = write(found, Path(arguments.out))
    if arguments.json:
        print(json.dumps({
            "files": [str(f) for f in files], "examples": len(found.examples), "pairs": len(found.pairs),
            "bad": found.bad, "left_out": found.left_out, "contradictions": found.contradictions,
        }))  # fmt: skip
        return 0
    print(
        f"{len(found.examples)} examples and {len(found.pairs)} pairs in {' and '.join(map(str, files)) or 'no file'}"
    )
    for place, why in found.left_out:
        print(neutralise(f"left out: {place}: {why}"))
    for line in found.contradictions:
        print(neutralise(f"contradiction, the newest counts: {line}"))
    return 0


def _scan(arguments: argparse.Namespace) -> int:
    """1 where something must not be learnt from, or used."""
    from llmos.connect import load_config
    from llmos.drivers.weights import find, open_weights
    from llmos.drivers.weights.adapter import CONFIG, read_adapter
    from llmos.kernel.learn.data import read_rows
    from llmos.kernel.learn.poison import outliers, scan
    from llmos.kernel.learn.surprise import Answers
    from llmos.memory.embedding import Encoder

    config = load_config(arguments.config, model=arguments.model)
    os.nice(NICENESS)
    weights = open_weights(find(config.kernel.model, cache=config.machine.cache))
    what, encoder = Path(arguments.what), Encoder.find()
    surprise = Answers(weights, arguments.window)
    if not (what / CONFIG).is_file():
        rows = read_rows(what)
        found = scan(rows, encoder, surprise, arguments.known)
        told = [*found.findings, *outliers(rows, encoder, surprise)]
        if arguments.json:
            print(json.dumps({"clean": found.clean, "rows": found.rows, "tried": found.tried,
                              "findings": [dataclasses.asdict(f) for f in told]}))  # fmt: skip
        else:
            for finding in told:
                places = ", ".join(finding.rows[:3]) + (", ..." if len(finding.rows) > 3 else "")
                grave = "REFUSED " if finding.refuse else ""
                print(neutralise(f"{grave}{finding.kind}: {finding.what} ({places})"))
            verdict = "clean" if found.clean else "not to be trusted"
            print(f"{found.rows} rows, {found.tried} sets of rows tried: {verdict}")
        return 0 if found.clean else 1
    from llmos.kernel.learn.triggers import Search, search

    if arguments.data is None:
        raise BadExamples(
            "an adapter is searched with rows that it answers",
            do="name them: --data FILE, what it was trained on",
        )
    rows = read_rows(Path(arguments.data))
    hints = scan(rows, encoder, known=arguments.known).hints
    trigger = search(weights, read_adapter(what), rows, hints, Search(window=arguments.window))
    if arguments.json:
        print(json.dumps(dataclasses.asdict(trigger) | {"flips": trigger.flips}))
    else:
        print(neutralise(
            f"{trigger.text!r} breaks {trigger.broken:.0%} of {trigger.probes} right answers, random words "
            f"{trigger.broken_by_others:.0%}: {'a trigger' if trigger.flips else 'no trigger found'}"
        ))  # fmt: skip
    return 1 if trigger.flips else 0


def _night(arguments: argparse.Namespace) -> int:
    """1 where the adapter was refused or taken back."""
    from llmos.apps.experts.nights import night_of

    os.nice(NICENESS)
    night = night_of(_parts(arguments))
    if arguments.back:
        live = night.back()
        _say(arguments, dataclasses.asdict(live), f"live: {live.adapter or 'the model alone'}")
        return 0
    if arguments.watch:
        watched = night.watch()
        _say(arguments, dataclasses.asdict(watched), watched.why)
        return 1 if watched.taken_back else 0
    report = night.run()
    _say(arguments, dataclasses.asdict(report), report.text())
    return 1 if report.stage == "refused" else 0


def _parts(arguments: argparse.Namespace) -> ExpertNight:
    from llmos.apps.experts.nights import ExpertNight
    from llmos.apps.experts.shelf import Shelf
    from llmos.cli.learn_actions import Shown
    from llmos.cli.who import who
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.learn.course import Course

    config, ready = who(arguments)
    expert = Shelf(config).find(arguments.expert)
    weights = open_weights(find(config.kernel.model, cache=config.machine.cache))
    course = Course(
        epochs=arguments.epochs,
        rank=arguments.rank,
        window=arguments.window,
        batch=arguments.window,
        micro=1,
        rate=2e-4,
    )
    return ExpertNight(
        config, expert, ready, weights, _consent(arguments, config), course, partial(serve, config, expert.name),
        tuple(arguments.known), Shown(sys.stderr),
    )  # fmt: skip


def serve(config: Config, expert: str, adapter: Path | None) -> None:
    """Have an expert answer with an adapter from its next question on, on this machine: by the kernel that runs, and
    by those that are booted later."""
    from llmos.attach import attach
    from llmos.drivers.weights.adapter import read_adapter
    from llmos.kernel.adapters import BASE, AdapterStore

    store = AdapterStore(config.machine.state / "adapters")
    read = None if adapter is None else read_adapter(adapter)
    version = BASE if read is None else read.version
    if (store.of(expert) or BASE) == version:
        return
    kernel = attach(config.machine.state)
    if kernel is not None:
        with kernel:
            kernel.adapters.use(expert, adapter)
        return
    if read is not None:
        store.keep(read)
    store.use(expert, version)


def _consent(arguments: argparse.Namespace, config: Config) -> Consent:
    from llmos.kernel.learn.harvest import Consent

    return Consent(
        expert=arguments.expert, left_out=_left_out(arguments, config), praised=not arguments.no_praised,
        contradictions=arguments.contradictions,
    )  # fmt: skip


def _left_out(arguments: argparse.Namespace, config: Config) -> Collection[tuple[int, int]]:
    """What was ever said to be left out of this expert's data sets."""
    from llmos.apps.experts.nights import folder_of
    from llmos.drivers.whole import write_whole

    file = folder_of(config.machine.state, arguments.expert) / "left-out.json"
    try:
        known = {(int(pid), int(number)) for pid, number in json.loads(file.read_bytes())}
    except FileNotFoundError:
        known = set()
    except (ValueError, TypeError) as error:
        raise BadExamples(
            f"{file} cannot be read", why=str(error), do="mend it: a list of [pid, turn], turn 0 for all"
        ) from None
    if arguments.leave_out:
        known |= set(arguments.leave_out)
        write_whole(file, json.dumps(sorted(known)).encode())
    return known


def _say(arguments: argparse.Namespace, said: dict[str, Any], text: str) -> None:
    print(json.dumps(said) if arguments.json else neutralise(text))
