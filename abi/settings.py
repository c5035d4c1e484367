"""What `llmos.yaml` says to an app.

What: the keys under `apps: NAME:` that are not the kernel's own, checked against what the app can be told.
Invariant: an app starts with settings that fit, or says which key does not and what was expected. What an app can be
    told it declares (`class Mail(App, settings=Settings)`), so that the kernel can find misfits when it boots.
Interface: `settings(app, kind)`; `check(App)`; `VARIABLE`, by which the kernel hands them to an app's process. Errors:
    ConfigError.
"""

from __future__ import annotations

import json
import os
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from llmos.abi.app import App
from llmos.abi.errors import ConfigError

VARIABLE = "LLMOS_SETTINGS"  # JSON: app -> key -> value

T = TypeVar("T")


def settings(app: str, kind: type[T]) -> T:
    """The settings of `app` as a `kind`, a pydantic model or a dataclass whose fields all have defaults.

    Raises:
        ConfigError: names the key and what was expected.
    """
    given: Any = json.loads(os.environ.get(VARIABLE, "{}")).get(app, {})
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        what, do = first["msg"], ""
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = list(getattr(kind, "__annotations__", ()))
            near = get_close_matches(key, known, 1)
            what, do = (
                "an unknown key",
                f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(known)}",
            )
        raise ConfigError(what, key=f"apps.{app}.{key}", do=do) from None


def check(app: type[App]) -> None:
    """ConfigError where what the owner says to an app does not fit what the app declares."""
    if app.settings is not None:
        settings(app.app_name, app.settings)
    elif given := json.loads(os.environ.get(VARIABLE, "{}")).get(app.app_name):
        raise ConfigError(
            "an unknown key",
            key=f"apps.{app.app_name}.{next(iter(given))}",
            why=f"{app.app_name} takes no settings",
            do="remove it",
        )
