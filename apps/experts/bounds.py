"""Bounds of a grant: from what an expert file says to the kernel's grants.

What: `browser.read: {hosts: [docs.example.org]}` becomes `browser.read(url=https://docs.example.org/*)`, and so on.
Invariant: a bound only narrows, and nothing in it can be read as a wider one: hosts and folders are taken literally,
    and what the kernel's grants cannot hold is refused.
Interface: `check_grant(text)`, `check_pattern(pattern)`, `check_bounds(bounds)` for the models;
    `grants_of(grants) -> texts`.

`hosts` bounds the argument `url`, `under` the argument `path`; any other key is an argument's own name, with a pattern
(or several) for its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from llmos.abi.errors import ConfigError
from llmos.kernel.grants import Grant

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?")
_ARGUMENT = re.compile(r"[A-Za-z_]\w{0,63}")
_WILD = re.compile(r"[*?\[\],()\n\r]")


def _values(value: object) -> object:
    """Each bound as a tuple of texts."""
    if not isinstance(value, dict):
        return value
    return {
        k: (v,) if isinstance(v, str) else tuple(v) if isinstance(v, list) else v for k, v in value.items()
    }


Bounds = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_values)]


def check_pattern(pattern: str) -> str:
    """A grant's pattern, without bounds: those stand behind it."""
    parsed = check_grant(pattern)
    if parsed.bindings:
        raise PydanticCustomError(
            "grant", "expected a syscall without arguments: write its bounds behind the colon"
        )
    if parsed.pattern.startswith("*"):
        raise PydanticCustomError(
            "grant", "expected an app's name before the dot: nobody is granted everything"
        )
    return pattern


def check_grant(text: str) -> Grant:
    """A grant as the kernel reads it."""
    try:
        return Grant.parse(text)
    except ConfigError:
        raise PydanticCustomError("grant", "expected a syscall like `files.read` or `calculator.*`") from None


def check_bounds(bounds: Bounds) -> Bounds:
    """The bounds of one grant."""
    for name, values in bounds.items():
        if not values:
            raise PydanticCustomError("bound", "expected a value for {name}", {"name": name})
        for value in values:
            if name == "hosts":
                _check_host(value)
            elif name == "under":
                _check_folder(value)
            elif not _ARGUMENT.fullmatch(name):
                raise PydanticCustomError("bound", "expected the name of an argument, `hosts` or `under`")
            elif not value or re.search(r"[,()\[\]\n\r]", value) or value != value.strip():
                raise PydanticCustomError("bound", "expected a pattern without , ( ) [ ] and outer blanks")
    return bounds


def _check_host(value: str) -> None:
    if not _HOST.fullmatch(value) or ".." in value:
        raise PydanticCustomError(
            "host", "expected a host in lower case, like docs.example.org (no wildcards)"
        )


def _check_folder(value: str) -> None:
    parts = value.rstrip("/").split("/")
    if (
        not value
        or value.startswith(("/", "~"))
        or "\\" in value
        or _WILD.search(value)
        or {"", ".", ".."} & {*parts}
    ):
        raise PydanticCustomError("folder", "expected a folder within the working volume, like out/")


def grants_of(grants: Mapping[str, Bounds | None]) -> tuple[str, ...]:
    """The kernel's grants, as texts; several where a bound has several values."""
    found = []
    for pattern, bounds in grants.items():
        choices = [[(name, value) for value in _patterns(key, values)]
                   for key, values in (bounds or {}).items() for name in (_argument(key),)]  # fmt: skip
        found += [str(Grant(Grant.parse(pattern).pattern, chosen)) for chosen in product(*choices)]
    return tuple(dict.fromkeys(found))


def _argument(key: str) -> str:
    return {"hosts": "url", "under": "path"}.get(key, key)


def _patterns(key: str, values: tuple[str, ...]) -> list[str]:
    if key == "hosts":  # the bare host too: a pattern that ends behind it cannot meet a longer name
        return [
            f"{scheme}://{host}{rest}"
            for host in values
            for scheme in ("https", "http")
            for rest in ("", "/*")
        ]
    if key == "under":
        return [f"{folder.rstrip('/')}/*" for folder in values]
    return list(values)
