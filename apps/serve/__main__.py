"""`python -m llmos.apps.serve [--manifests | --settings] NAME...`"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from llmos.abi.errors import ConfigError, LLMOSError
from llmos.abi.loading import load
from llmos.abi.manifest import Manifest
from llmos.abi.settings import check


def manifests(names: Sequence[str]) -> dict[str, dict[str, object]]:
    """Name -> {"manifest": ...} or {"error": [what, why, do]}; one app's trouble is not another's."""
    found: dict[str, dict[str, object]] = {}
    for name in names:
        try:
            found[name] = {"manifest": Manifest.of(load(name)).model_dump(mode="json")}
        except LLMOSError as error:
            found[name] = {"error": [error.what, error.why, error.do]}
    return found


def fitting(names: Sequence[str]) -> dict[str, list[str]]:
    """App -> [] where what `llmos.yaml` says to it fits, else [what, why, do]; who cannot be loaded is left out."""
    found: dict[str, list[str]] = {}
    for name in names:
        try:
            app = load(name)
        except LLMOSError:
            continue
        try:
            check(app)
            found[app.app_name] = []
        except ConfigError as error:
            found[app.app_name] = [error.what, error.why, error.do]
    return found


def main() -> int:
    """Serve the named apps until stdin ends, or print what they offer."""
    parser = argparse.ArgumentParser(prog="python -m llmos.apps.serve", description="Serves apps over MCP.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="an installed app, or module:Class")
    parser.add_argument("--manifests", action="store_true", help="print what they offer as JSON and end")
    parser.add_argument("--settings", action="store_true", help="check what they are told, as JSON, and end")
    chosen = parser.parse_args()
    if chosen.manifests or chosen.settings:
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what a module prints while it is imported is not part of the answer
        json.dump(manifests(chosen.names) if chosen.manifests else fitting(chosen.names), out)
        out.flush()
        return 0
    from llmos.apps.serve.server import serve

    try:
        serve(chosen.names)
    except LLMOSError as error:
        print(error, file=sys.stderr)  # noqa: T201 (its command line)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that hangs in an app's code does not keep the process
