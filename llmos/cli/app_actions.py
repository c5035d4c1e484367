"""What `llmos app` does: list, info, new, test, grant, serve.

What: a function for each action.
Invariant: what an app says of itself reaches the terminal neutralised. No app's module is imported here: manifests are
    read in processes of their own. Nothing is granted that nobody agreed to.
Interface: the functions, each from arguments to an exit code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from llmos.abi.app import Effect
from llmos.abi.errors import AppError, ConfigError, ManifestError
from llmos.abi.loading import GROUP
from llmos.abi.manifest import Manifest, Syscall
from llmos.cli.app_new import make
from llmos.connect import load_config
from llmos.drivers.terminal import neutralise, table, width

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.apps.experts.grants import Wanted
    from llmos.conformance import Report
    from llmos.kernel.grants import Grant


def list_(arguments: argparse.Namespace) -> int:
    """The installed apps, and those of llmos.yaml."""
    config = load_config(arguments.config)
    found, foreign = _manifests(config), _foreign(config)
    if arguments.json:
        apps = [_summary(name, one) for name, one in found.items()]
        apps += [{"app": name, "foreign": source} for name, source in foreign.items()]
        print(json.dumps({"apps": apps}))
        return 0
    for name, one in found.items():
        if isinstance(one, AppError):
            print(neutralise(f"{name}: broken: {one}"))
            continue
        print(neutralise(f"{name}: {_first(one.doc)}"))
        for line in table([(f"  {s.name}", s.effect, _first(s.description)) for s in one.syscalls], width()):
            print(line)
    for name, source in foreign.items():
        print(neutralise(f"{name}: a foreign MCP server ({source}); its tools are listed once it is granted"))
    return 0


def info(arguments: argparse.Namespace) -> int:
    """All about one app."""
    from llmos.conformance.subject import read

    manifest = read(arguments.name)
    if arguments.json:
        print(json.dumps(manifest.model_dump(mode="json")))
        return 0
    keeps = "one process for each agent" if manifest.stateful else "one process for all agents"
    rows = [("app", manifest.app), ("about", _first(manifest.doc)), ("runs in", keeps)]
    rows += [("secrets", ", ".join(manifest.secrets))] if manifest.secrets else []
    rows += [("memory", f"up to {manifest.max_memory >> 20} MiB a process")] if manifest.max_memory else []
    rows += [("fingerprint", manifest.fingerprint[:16])]
    print("\n".join(table(rows, width())))
    for one in manifest.syscalls:
        print()
        print(neutralise(_syscall(one)))
    return 0


def _syscall(one: Syscall) -> str:
    lines = [one.name, *(f"  {line}" for line in one.description.splitlines())]
    required = one.parameters.get("required", ())
    for name, part in one.parameters.get("properties", {}).items():
        marks = [_type(part), *(["optional"] if name not in required else [])]
        marks += ["target"] if name in one.targets else []
        marks += ["payload"] if name in one.payload else []
        about = part.get("description", "")
        lines.append(f"    {name}: {', '.join(marks)}{f' - {about}' if about else ''}")
    lines.append(
        f"  effect {one.effect}, retry {one.retry}, within {one.deadline:g} s, "
        f"result {'as good as its arguments' if one.returns == 'user' else one.returns}"
    )
    return "\n".join(lines)


def _type(part: dict[str, Any]) -> str:
    if part.get("enum"):
        return "one of " + ", ".join(map(str, part["enum"]))
    if part.get("anyOf"):
        return " or ".join(_type(one) for one in part["anyOf"])
    kind = str(part.get("type", "anything"))
    return f"list of {_type(part['items'])}" if kind == "array" and "items" in part else kind


def new(arguments: argparse.Namespace) -> int:
    """Make a package with a working app."""
    folder = make(arguments.name, Path(arguments.into or arguments.name))
    if arguments.json:
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        print(json.dumps({"folder": str(folder), "files": files}))
        return 0
    print(
        f"made {folder}. Next:\n"
        f"  pip install -e {folder}\n"
        f"  llmos app test {arguments.name}\n"
        f"  python -m pytest {folder}\n"
        f'  llmos ask "..." --grant {arguments.name}'
    )
    return 0


def test(arguments: argparse.Namespace) -> int:
    """Put an app through the suite; exit code 1 where it has faults."""
    from llmos.conformance import CHECKS, QUIET, examine

    for word, known, kind in (*((e, get_args(Effect), "effect") for e in arguments.effects),
                              *((c, tuple(CHECKS), "check") for c in arguments.only)):  # fmt: skip
        if word not in known:
            raise ManifestError(f"{word!r} is no {kind}", do=f"choose of {', '.join(known)}")
    examples = _examples(arguments.examples) if arguments.examples else {}
    effects = (*QUIET, *arguments.effects)
    report = examine(arguments.name, examples=examples, effects=effects, only=arguments.only)
    if arguments.json:
        findings = [
            {"check": f.check, "syscall": f.syscall, "fault": f.fault, "what": f.what, "do": f.do}
            for f in report.findings
        ]
        told = {"app": report.app, "syscalls": report.syscalls, "not_called": report.skipped}
        print(
            json.dumps({**told, "checks": report.checks, "findings": findings, "conforms": not report.faults})
        )
    else:
        print(neutralise(_told(report, CHECKS)))
    return 1 if report.faults else 0


def _told(report: Report, about: dict[str, str]) -> str:
    lines = [
        f"{report.app}: {len(report.syscalls)} syscalls, {len(report.syscalls) - len(report.skipped)} called"
    ]
    for check in report.checks:
        found = [one for one in report.findings if one.check == check]
        faulty = any(one.fault for one in found)
        lines.append(f"  {check:<13} {'FAULT' if faulty else 'ok'}")
        lines += [f"      {about[check]}"] if faulty else []
        for one in found:
            lines.append(
                f"    {'-' if one.fault else 'advice:'} {': '.join(filter(None, (one.syscall, one.what)))}"
            )
            lines += [f"      do: {one.do}"] if one.do else []
    if report.skipped:
        lines.append(f"not called, for their effect: {', '.join(report.skipped)}")
        lines.append("  (give --effects EFFECT, or an example of each by --examples FILE)")
    return "\n".join(lines)


def _examples(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError("the examples are no JSON", why=str(error), file=path) from None
    many = isinstance(found, dict) and all(
        isinstance(one, dict) or (isinstance(one, list) and all(isinstance(part, dict) for part in one))
        for one in found.values()
    )
    if not many:
        do = 'write {"app.syscall": {"argument": "value"}}, or a list of such arguments'
        raise ConfigError("the examples have another form", do=do, file=path)
    return dict(found)


def grant(arguments: argparse.Namespace) -> int:
    """Show what grants let a model do; with an expert file, ask and add them there."""
    from llmos.apps.experts.agreeing import grant_lines
    from llmos.apps.experts.grants import Wanted, fingerprint, syscalls
    from llmos.kernel.grants import Grant, check

    known = syscalls(load_config(arguments.config))
    grants = [Grant.parse(text) for text in arguments.grants]
    check(grants, known)
    wants = []
    for one in grants:
        for name in sorted(filter(one.names, known)):
            syscall, text = known[name], str(Grant(name, one.bindings))
            wants.append(Wanted(text, syscall.effect, fingerprint(syscall), _first(syscall.description)))
    if arguments.expert:
        _give(arguments, grants, wants)
    if arguments.json:
        told = [
            {"grant": w.grant, "effect": w.effect, "fingerprint": w.fingerprint, "about": w.about}
            for w in wants
        ]
        print(json.dumps({"wants": told, "expert": arguments.expert}))
        return 0
    if arguments.expert:
        print(f"{arguments.expert} may call them now")
        return 0
    print("\n".join(grant_lines(wants)))
    given = " ".join(f"--grant {shlex.quote(text)}" for text in arguments.grants)
    print(f'for one question:  llmos ask "..." {given}')
    print(f"for an expert:     llmos app grant {' '.join(map(shlex.quote, arguments.grants))} --expert FILE")
    return 0


def _give(arguments: argparse.Namespace, grants: Sequence[Grant], wants: Sequence[Wanted]) -> None:
    """Add grants to an expert's file, if somebody agrees; nothing is written otherwise."""
    from llmos.apps.experts import agreeing
    from llmos.apps.experts.errors import ConsentMissing
    from llmos.apps.experts.expert import load
    from llmos.apps.experts.grants import Consents, syscalls, wanted
    from llmos.cli.expert_actions import shelf
    from llmos.drivers.whole import write_whole

    here = shelf(arguments)
    file = Path(arguments.expert)
    expert = load(file, "file", here.find)
    consents = Consents(here.state)
    before = consents.agreed(expert) or {}
    consent = agreeing.always(sys.stderr) if arguments.yes else agreeing.at_terminal()
    if consent is None or not consent(expert, wants, ()):
        do = "run it at a terminal, or with --yes"
        raise ConsentMissing(f"nobody has agreed to give {expert.name} these grants", do=do)
    write_whole(file, _with_grants(file.read_text(encoding="utf-8"), grants, str(file)).encode())
    changed = load(file, "file", here.find)
    new = {one.grant for one in wants}
    all_of_it = wanted(changed, syscalls(here.config))
    consents.agree(changed, [w for w in all_of_it if w.grant in new or before.get(w.grant) == w.fingerprint])


def _with_grants(text: str, grants: Sequence[Grant], file: str) -> str:
    """An expert's file with more lines under `grants:`; all else stays as its author wrote it."""
    lines = [f"  {json.dumps(one.pattern)}:{_bounds(one)}" for one in grants]
    found = re.search(r"^grants:[ \t]*(\{[ \t]*\})?[ \t]*(#.*)?$", text, re.MULTILINE)
    if found is None and re.search(r"^grants:", text, re.MULTILINE):
        do = "write one grant a line below `grants:`"
        raise ConfigError(
            "its grants stand on one line, where none can be added", do=do, file=file, key="grants"
        )
    if found is None:
        return "\n".join([text.rstrip("\n"), "grants:", *lines, ""])
    return text[: found.start()] + "\n".join(["grants:", *lines]) + text[found.end() :]


def _bounds(one: Grant) -> str:
    return f" {json.dumps(dict(one.bindings))}" if one.bindings else ""


# --- what there is ---


def _manifests(config: Config) -> dict[str, Manifest | AppError]:
    """Every app of ours that the machine has, or why it cannot be used."""
    from llmos.kernel.apphost import Entry, Ours
    from llmos.kernel.apphost.manifests import read_ours

    names = {entry.name for entry in entry_points(group=GROUP)} | config.apps.keys() - _foreign(config).keys()
    entries = []
    for name in sorted(names):
        said = config.apps.get(name)
        entries.append(Entry(name=name, source=Ours(said.app if said is not None and said.app else name)))
    found = asyncio.run(read_ours(entries, config.machine.state / "apps"))
    return dict(sorted(found.items()))


def _foreign(config: Config) -> dict[str, str]:
    return {
        name: one.mcp or one.url or "" for name, one in config.apps.items() if one and (one.mcp or one.url)
    }


def _summary(name: str, one: Manifest | AppError) -> dict[str, Any]:
    if isinstance(one, AppError):
        return {"app": name, "error": str(one)}
    calls = [{"name": s.name, "effect": s.effect, "about": _first(s.description)} for s in one.syscalls]
    return {
        "app": name,
        "about": _first(one.doc),
        "stateful": one.stateful,
        "secrets": one.secrets,
        "syscalls": calls,
    }


def _first(text: str) -> str:
    return text.partition("\n")[0]


def serve(arguments: argparse.Namespace) -> int:
    """Serve apps on stdin and stdout until stdin ends."""
    from llmos.apps.serve.server import serve as serve_apps

    serve_apps(arguments.name)
    sys.stdout.flush()
    os._exit(0)  # a call that still runs must not keep the process
