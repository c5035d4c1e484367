"""What one does with experts of one's own: `llmos expert list|info|new|edit|validate|schema|test|run|allow`.

What: a function for each action.
Invariant: what came from a file reaches the terminal neutralised; stdout has the result, stderr what is about it.
Interface: the functions, each from arguments to an exit code; `tested` and `tested_before` for publishing.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import ConfigError
from llmos.apps.experts import agreeing, draft
from llmos.apps.experts.errors import ExpertError
from llmos.apps.experts.expert import FILE, Expert, load, paths_of
from llmos.apps.experts.grants import Consents, granted, syscalls, wanted
from llmos.apps.experts.manifest import schema as manifest_schema
from llmos.apps.experts.shelf import Shelf
from llmos.connect import connect, load_config
from llmos.drivers.terminal import Bar, neutralise, table, width

if TYPE_CHECKING:
    from llmos.apps.experts.evaluation import Outcome, Report


def shelf(arguments: argparse.Namespace) -> Shelf:
    """The experts of the machine that the options name."""
    return Shelf(load_config(arguments.config))


def list_(arguments: argparse.Namespace) -> int:
    """The experts that have a name here."""
    rows, found = [("name", "version", "from", "about")], []
    for one in shelf(arguments).listed():
        m = one.expert.manifest if one.expert else None
        about = m.description if m else f"broken: {one.error}"
        rows.append((one.name, m.version if m else "", one.origin, " ".join(about.split())))
        found.append({"name": one.name, "version": m and m.version, "origin": one.origin, "file": str(one.file),
                      "description": m and m.description, "error": str(one.error) if one.error else None})  # fmt: skip
    print(json.dumps({"experts": found}) if arguments.json else "\n".join(table(rows, width())))
    return 0


def info(arguments: argparse.Namespace) -> int:
    """All about one."""
    here = shelf(arguments)
    expert = here.find(arguments.name)
    m, installed = expert.manifest, here.installed().get(expert.name)
    wants = wanted(expert, syscalls(here.config)) if m.grants else []
    missing = {one.grant for one in Consents(here.state).missing(expert, wants)}
    if arguments.json:
        value = m.model_dump(mode="json", by_alias=True, exclude_none=True)
        value["origin"], value["file"] = expert.origin, str(expert.file)
        value["wants"] = [
            {"grant": w.grant, "effect": w.effect, "agreed": w.grant not in missing} for w in wants
        ]
        print(json.dumps(value))
        return 0
    from llmos.apps.experts.signing import short

    signed = f", signed by {short(installed.signer)}" if installed and expert.origin == "installed" else ""
    rows = [
        (expert.name, m.version),
        ("about", " ".join(m.description.split())),
        ("from", f"{expert.origin}: {expert.file}{signed}"),
        ("model", m.base or "whatever runs here"),
        *(("answers from", f"{k.path} ({k.trust})") for k in expert.knowledge),
        *(("try", starter) for starter in m.starters),
        ("tests", str(len(m.tests))),
    ]
    print("\n".join(table(rows, width())))
    if wants:
        print(f"it may call{' (not agreed to yet: llmos expert allow)' if missing else ''}:")
        print("\n".join(agreeing.grant_lines(wants)))
    if m.instructions:
        print("it is told:\n  " + neutralise(m.instructions.strip()).replace("\n", "\n  "))
    return 0


def new(arguments: argparse.Namespace) -> int:
    """Draft an expert file."""
    started = draft.Draft(
        arguments.name, arguments.describe, arguments.instructions,
        tuple((path, arguments.trust) for path in arguments.knowledge), tuple(arguments.grant),
        arguments.extends, arguments.base,
    )  # fmt: skip
    file = Path(arguments.output or f"{arguments.name}.yaml")
    if file.exists():
        raise ExpertError(
            f"{file} is there already", why="nothing is overwritten", do="choose another name, or edit it"
        )
    draft.Draft(arguments.name).text()  # a bad name is told before anybody answers questions
    if sys.stdin.isatty() and not arguments.yes:
        started = draft.ask(started, _apps(arguments), lambda text: print(neutralise(text)), input)
    elif not started.description:
        raise ExpertError(
            "an expert needs a description", why="nobody is there to ask", do='give it: --describe "..."'
        )
    beside = tuple((_beside(path, file.parent), trust) for path, trust in started.knowledge)
    draft.write(replace(started, knowledge=beside), file)
    try:
        _check(load(file, "file", shelf(arguments).find), shelf(arguments))
    except ConfigError:
        file.unlink()
        raise
    print(f"wrote {file}: try it with `llmos expert run {_shown(file)}`")
    return 0


def edit(arguments: argparse.Namespace) -> int:
    """Open a file in the user's editor, and check it."""
    here = shelf(arguments)
    file = _own_file(here, arguments.name)
    editor = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*editor, str(file)], check=False).returncode
    except OSError as error:
        raise ExpertError(
            f"{editor[0]} cannot be started", why=error.strerror or "", do="set $EDITOR"
        ) from None
    if code:
        raise ExpertError(f"{editor[0]} ended with {code}", do="set $EDITOR to the editor of your choice")
    _check(load(file, "file", here.find), here)
    print(f"{file}: good")
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """Check files; the first that is wrong is told."""
    here, found = shelf(arguments), []
    for name in arguments.files:
        path = Path(name)
        expert = load(path / FILE if path.is_dir() else path, "file", here.find)
        _check(expert, here)
        found.append({"file": name, "expert": expert.name, "version": expert.manifest.version})
        if not arguments.json:
            print(f"{name}: good: {expert.name} {expert.manifest.version}")
    if arguments.json:
        print(json.dumps({"good": found}))
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """The JSON schema of expert files."""
    print(json.dumps(manifest_schema(), indent=2))
    return 0


def allow(arguments: argparse.Namespace) -> int:
    """Agree to what an expert wants."""
    here = shelf(arguments)
    expert = here.find(arguments.name)
    consent = agreeing.always(sys.stderr) if arguments.yes else agreeing.at_terminal()
    grants = granted(expert, syscalls(here.config), Consents(here.state), consent)
    print(f"{expert.name} may call {len(grants)} syscall{'s' * (len(grants) != 1)}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Talk with an expert, or ask it one question."""
    from llmos.cli import ask as one
    from llmos.cli import shell as many

    arguments.expert = arguments.name
    if arguments.question is not None:
        return one.run(arguments)
    if arguments.json:
        raise ExpertError("--json tells one answer", do="give the question too")
    starters = shelf(arguments).find(arguments.name).manifest.starters
    if starters and sys.stdin.isatty():
        print("Try: " + neutralise(" · ".join(starters)), file=sys.stderr)
    return many.shell(arguments)


# -- tests -------------------------------------------------------------------------------------------------------


def test(arguments: argparse.Namespace) -> int:
    """Ask an expert its tests; 1 where one fails."""
    report = tested(arguments, tuple(arguments.only), quiet=arguments.json)
    if arguments.json:
        print(json.dumps(report.dump(), ensure_ascii=sys.stdout.isatty()))
    else:
        print(f"{report.passed} of {len(report.outcomes)} passed, {report.model}")
    return 0 if report.passed == len(report.outcomes) else 1


def tested(arguments: argparse.Namespace, only: tuple[int, ...] = (), *, quiet: bool = False) -> Report:
    """Ask the tests in a kernel of our own; what came of all of them is kept for publishing."""
    from llmos.apps.experts.evaluation import evaluate
    from llmos.apps.experts.site import served
    from llmos.cli.who import who

    arguments.expert = arguments.name
    config, ready = who(arguments)
    here = Shelf(config)
    expert = here.find(arguments.name)
    count = len(expert.manifest.tests)
    if not count or any(number > count for number in only):
        raise ExpertError(
            f"{expert.name} has no such test" if count else f"{expert.name} has no tests",
            why=f"it has {count}" if count else "its file has nothing under `tests:`",
            do=f"choose from 1 to {count}"
            if count
            else "write some: a question, and what its answer must contain",
        )
    bar = Bar(sys.stderr)

    def tell(number: int, outcome: Outcome) -> None:
        if not quiet:
            mark = "pass" if outcome.passed else "FAIL"
            print(
                f"{number:>3}  {mark}  {outcome.seconds:5.1f} s  {neutralise(' '.join(outcome.ask.split()))[:90]}"
            )
            for failure in outcome.failures:
                print(f"           {neutralise(failure)}")
            if not outcome.passed:
                print(f"           it said: {neutralise(' '.join(outcome.answers[-1].split()))[:300]}")
            sys.stdout.flush()

    with served(expert, config) as (machine, sites), connect(machine, attach=False, progress=bar) as kernel:
        bar.close()
        report = evaluate(kernel, expert, ready, only=only, sites=sites, tell=tell)
    if not only:
        _keep(here, expert, report)
    return report


def tested_before(here: Shelf, expert: Expert, model: str) -> dict[str, Any] | None:
    """What came of the last tests of this very expert with this model; None where there were none."""
    try:
        kept = json.loads(_kept(here, expert).read_text(encoding="utf-8"))
        return dict(kept) if kept["model"] == model else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(here: Shelf, expert: Expert, report: Report) -> None:
    from llmos.drivers.whole import write_whole

    write_whole(_kept(here, expert), json.dumps(report.dump()).encode())


def _kept(here: Shelf, expert: Expert) -> Path:
    """By all that the expert is: its pack without a signature."""
    import hashlib

    from llmos.apps.experts.packing import pack

    return here.state / "tested" / f"{hashlib.sha256(pack(expert)).hexdigest()}.json"


# -- helpers -----------------------------------------------------------------------------------------------------


def _check(expert: Expert, here: Shelf) -> None:
    """What a file's syntax does not show. ConfigError."""
    for key, path in paths_of(expert.manifest):
        if not Path(path).exists():
            raise ConfigError(
                "not there",
                why=f"there is nothing at {path}",
                do="check the path",
                file=str(expert.file),
                key=key,
            )
    if expert.manifest.grants:
        try:
            wanted(expert, syscalls(here.config))
        except ConfigError as error:
            raise ConfigError(
                error.what, why=error.why, do=error.do, file=str(expert.file), key="grants"
            ) from None


def _own_file(here: Shelf, name: str) -> Path:
    expert_file = Path(name)
    if "/" in name or name.endswith((".yaml", ".yml")):
        return expert_file / FILE if expert_file.is_dir() else expert_file
    for one in here.listed():
        if one.name == name and one.origin == "file":
            return one.file
    found = here.find(name)
    raise ExpertError(
        f"{name} is not yours to edit", why=f"it is {found.origin}",
        do=f"build on it: llmos expert new my-{name} --extends {name}",
    )  # fmt: skip


def _beside(path: str, folder: Path) -> str:
    """What was named from here, as an expert file in `folder` names it."""
    return path if "://" in path or path.startswith(("/", "~")) else os.path.relpath(path, folder)


def _apps(arguments: argparse.Namespace) -> dict[str, str]:
    """App -> what its syscalls are called."""
    apps: dict[str, list[str]] = {}
    for name in syscalls(load_config(arguments.config)):
        app, _, method = name.partition(".")
        apps.setdefault(app, []).append(method)
    return {app: ", ".join(sorted(methods)) for app, methods in apps.items()}


def _shown(file: Path) -> str:
    return str(file) if file.is_absolute() or "/" in str(file) else f"./{file}"
