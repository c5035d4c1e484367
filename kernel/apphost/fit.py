"""Whether what `llmos.yaml` says to apps fits them: found before any of them is used.

What: a short child process checks settings against what each app of ours declares (`class Mail(App, settings=…)`);
    what was found to fit is remembered until the settings or the app's files change.
Invariant: no app's module is imported here. An app that cannot be loaded is nobody's setting: it is told where it is
    granted. Costs nothing where no app is told anything.
Interface: `misfits(apps, folder) -> list[ConfigError]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.errors import ConfigError
from llmos.abi.settings import VARIABLE
from llmos.kernel.apphost.manifests import READ_SECONDS, app_environment, load_kept, save_kept, stamp

if TYPE_CHECKING:
    from llmos.abi.config import AppConfig

_KEPT = "settings.json"


def misfits(apps: Mapping[str, AppConfig | None], folder: Path | None) -> list[ConfigError]:
    """What is wrong with the settings of `apps`, as the configuration has them by name; at most one error an app.

    Args:
        folder: where it is kept what was found to fit; None to look at all of them and keep nothing.
    """
    told = {name: app for name, app in apps.items() if app is not None and app.settings}
    kept = load_kept(folder / _KEPT) if folder else {}
    stamps = {
        name: f"{files} {json.dumps(app.settings, sort_keys=True)}"
        for name, app in told.items()
        if (files := stamp(app.app or name))
    }
    unknown = [name for name in told if name not in stamps or kept.get(name) != stamps[name]]
    if not unknown:
        return []
    found = _checked({name: told[name] for name in unknown})
    if folder and (fitting := {n: stamps[n] for n in stamps if found.get(n) == []}):
        save_kept(folder / _KEPT, {**{n: kept[n] for n in told if n in kept}, **fitting})
    return [ConfigError(what, why=why, do=do) for what, why, do in filter(None, found.values())]


def _checked(apps: Mapping[str, AppConfig]) -> dict[str, Any]:
    """Name -> [] where the settings fit, else [what, why, do]; what could not be loaded is left out."""
    given = {name: app.settings for name, app in apps.items()}
    names = [app.app or name for name, app in apps.items()]
    environment = {**os.environ, **app_environment(), VARIABLE: json.dumps(given)}
    program = [sys.executable, "-m", "llmos.apps.serve", "--settings", *names]
    try:
        done = subprocess.run(
            program, env=environment, capture_output=True, timeout=READ_SECONDS, check=False
        )
        return dict(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
