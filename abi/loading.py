"""From an app's name to its class.

What: apps come by entry point (group `llmos.apps`), or as `module:Class` where the machine's owner says so.
Invariant: whatever an app's module does while it is imported, it is a ManifestError that names the app.
Interface: `load(name)`; `GROUP`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint

from llmos.abi.app import App
from llmos.abi.entries import entries
from llmos.abi.errors import LLMOSError, ManifestError

GROUP = "llmos.apps"


def load(name: str) -> type[App]:
    """The class of an app, by the name of its entry point or as `module:Class`."""
    value = name if ":" in name else _entry(name).value
    module, _, attribute = value.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except LLMOSError:
        raise
    except (Exception, SystemExit) as error:
        raise ManifestError(
            f"the app {name!r} cannot be loaded", why=f"{type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, App)):
        raise ManifestError(f"{value} is no app", do="point to a class that derives from llmos.App")
    return found


def _entry(name: str) -> EntryPoint:
    known = entries(GROUP)
    if name in known:
        return known[name]
    names = ", ".join(sorted(known)) or "none"
    raise ManifestError(f"there is no app {name!r}", do=f"installed apps: {names}")
