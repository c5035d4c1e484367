"""Secrets by name: tokens and passwords that apps need and nobody else sees.

What: looks a secret up where its owner put it: `$LLMOS_SECRET_NAME`, else the file `secrets/NAME` in the state folder.
Invariant: a file that others may read is refused. A secret is never part of a message, an event or the journal.
Interface: `secret(name, state)`, `resolve(env, state)`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from llmos.abi.errors import ConfigError, SecretMissing

PREFIX = "secret:"  # what a value of `env:` begins with, where the rest names a secret


def secret(name: str, state: Path) -> str | None:
    """The secret of that name, None where its owner gave none.

    Raises:
        ConfigError: it lies in a file that others may read.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ConfigError(f"{name!r} is no name for a secret", do="use letters, digits, _ and -")
    if (value := os.environ.get(f"LLMOS_SECRET_{name.upper().replace('-', '_')}")) is not None:
        return value
    file = state / "secrets" / name
    try:
        if file.stat().st_mode & 0o077:
            raise ConfigError(
                f"the secret in {file} can be read by others", do=f"make it yours alone: chmod 600 {file}"
            )
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def resolve(env: Mapping[str, str], state: Path) -> dict[str, str]:
    """`env` with every `secret:NAME` replaced by the secret. SecretMissing where there is none."""
    found = {}
    for key, value in env.items():
        if value.startswith(PREFIX):
            name = value.removeprefix(PREFIX)
            if (given := secret(name, state)) is None:
                raise SecretMissing(
                    f"there is no secret {name!r}", why=f"{key} needs it",
                    do=f"write it into {state / 'secrets' / name} (mode 600)",
                )  # fmt: skip
            value = given
        found[key] = value
    return found
