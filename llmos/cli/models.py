"""`llmos models`: which models there are, and which of them are here.

What: list, pull, verify and rm for the catalogue's models.
Invariant: `list` and `verify` touch no network; `rm` removes only what lies in the cache.
Interface: `add`, `run`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from llmos.cli import parser as options
from llmos.drivers.terminal import Bar, table, width

if TYPE_CHECKING:
    from pathlib import Path

    from llmos.drivers.weights.fetch import Status

EXAMPLES = """\
examples:
  llmos models list
  llmos models pull qwen2.5-coder-1.5b
  llmos models verify --json
  llmos models rm smollm2-135m

Models lie in the cache ($LLMOS_CACHE, else ~/.cache/llmos). Whatever source a file came from, the sha256 of
the whole file decides. Folders named in $LLMOS_MODELS are looked through too, and never written to.
"""


def add(verbs: options.Verbs[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = options.verb(verbs, "models", "List, fetch, check and remove models.", EXAMPLES)
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for name, summary, names in (
        ("list", "the catalogue, and what of it is on this machine", None),
        ("pull", "fetch models that are not here yet (a download that broke off goes on)", "+"),
        ("verify", "hash whole files anew and compare; without names, all that are here", "*"),
        ("rm", "remove models from the cache", "+"),
    ):
        action = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if names:
            action.add_argument("names", metavar="NAME", nargs=names, help="a name from `llmos models list`")
        action.add_argument("--config", metavar="FILE", help="read this llmos.yaml")
        action.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Carries the verb out."""
    from llmos.connect import load_config

    cache = load_config(arguments.config).machine.cache
    if arguments.action == "list":
        return _list(cache, arguments.json)
    action = {"pull": _pull, "verify": _verify, "rm": _remove}[arguments.action]
    return action(arguments.names, cache, arguments.json)


def _list(cache: Path, as_json: bool) -> int:
    from llmos.drivers.weights.fetch import statuses

    rows = statuses(cache=cache)
    if as_json:
        models = [
            {
                "name": s.entry.name,
                "bytes": s.entry.bytes,
                "licence": s.entry.licence,
                "path": str(s.path) if s.path else None,
                "verified": s.verified,
                "staged_bytes": s.staged,
                "about": s.entry.about,
            }
            for s in rows
        ]
        return _print({"models": models})
    cells = [("name", "size", "here", "licence", "about")]
    for s in rows:
        here = "yes" if s.verified else "unverified" if s.path else _partly(s)
        cells.append((s.entry.name, f"{s.entry.bytes / 1e6:,.0f} MB", here, s.entry.licence, s.entry.about))
    for line in table(cells, width()):
        print(line)
    return 0


def _partly(status: Status) -> str:
    return f"{status.staged / status.entry.bytes:.0%}" if status.staged else "no"


def _pull(names: list[str], cache: Path, as_json: bool) -> int:
    from llmos.drivers.weights.fetch import pull

    bar = Bar(sys.stderr)
    found = {}
    for name in names:
        found[name] = str(pull(name, progress=bar, cache=cache).path)
        bar.close()
        if not as_json:
            print(f"{name}: {found[name]}")
    return _print({"models": [{"name": n, "path": p} for n, p in found.items()]}) if as_json else 0


def _verify(names: list[str], cache: Path, as_json: bool) -> int:
    from llmos.abi.errors import CorruptWeights
    from llmos.drivers.weights.fetch import statuses, verify

    names = names or [s.entry.name for s in statuses(cache=cache) if s.path]
    bar = Bar(sys.stderr)
    results = []
    for name in names:
        result = verify(name, progress=bar, cache=cache)
        bar.close()
        results.append(result)
        if not as_json:
            print(f"{name}: {'sound' if result.sound else 'DAMAGED'} ({result.path})")
    if as_json:
        keys = ("name", "sha256", "expected", "sound")
        _print({"models": [{**{k: getattr(r, k) for k in keys}, "path": str(r.path)} for r in results]})
    if damaged := [r.name for r in results if not r.sound]:
        raise CorruptWeights(
            f"damaged: {', '.join(damaged)}",
            why="the sha256 of the file is not the catalogue's",
            do=f"llmos models rm {' '.join(damaged)}, then pull",
        )
    return 0


def _remove(names: list[str], cache: Path, as_json: bool) -> int:
    from llmos.drivers.weights.fetch import remove

    freed = {name: remove(name, cache=cache) for name in names}
    if as_json:
        return _print({"models": [{"name": name, "freed_bytes": size} for name, size in freed.items()]})
    for name, size in freed.items():
        print(f"{name}: removed, {size / 1e6:,.0f} MB freed")
    return 0


def _print(value: dict[str, Any]) -> int:
    print(json.dumps(value, ensure_ascii=sys.stdout.isatty()))
    return 0
