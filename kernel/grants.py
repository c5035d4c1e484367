"""Grants: which syscalls a process may make, and with what.

What: a grant names syscalls by a pattern and may bind their arguments; `mail.send(to=*@example.org)`.
Invariant: a grant only ever narrows. What a process passes on to a child is covered by what it has itself;
    anything wider has to be asked for.
Interface: `Grant.parse(text)`, `.admits(syscall, arguments)`, `covers(have, want)`, `check(grants, names)`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from llmos.abi.errors import ConfigError

_GRANT = re.compile(r"([\w*?-]+)(?:\.([\w*?.-]+))?(?:\((.*)\))?", re.DOTALL)
_BINDING = re.compile(r"\s*(\w+)\s*=\s*([^,]*?)\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Grant:
    """`pattern` is matched against a syscall's full name; `bindings` are (argument, pattern of its value)."""

    pattern: str
    bindings: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Grant:
        """From `calculator` (all of an app), `files.read_*`, or `mail.send(to=*@example.org)`.

        Raises:
            ConfigError: it is not of that form.
        """
        match = _GRANT.fullmatch(text.strip())
        bindings = tuple(_BINDING.findall(match[3] or "")) if match else ()
        if match is None or (match[3] and "".join(_BINDING.split(match[3])[::3]).strip()):
            raise ConfigError(
                f"{text!r} is not a grant",
                why="a grant is an app, a syscall, or a syscall with bound arguments",
                do="write it like `calculator`, `files.read_*` or `mail.send(to=*@example.org)`",
            )
        return cls(f"{match[1]}.{match[2] or '*'}", bindings)

    def __str__(self) -> str:
        bound = ", ".join(f"{name}={value}" for name, value in self.bindings)
        return f"{self.pattern}({bound})" if bound else self.pattern

    def names(self, syscall: str) -> bool:
        """Whether this grant is about a syscall of that full name."""
        return fnmatchcase(syscall, self.pattern)

    def admits(self, syscall: str, arguments: Mapping[str, object]) -> bool:
        """Whether this grant allows that call."""
        return self.names(syscall) and all(
            name in arguments and fnmatchcase(str(arguments[name]), value) for name, value in self.bindings
        )

    def covers(self, other: Grant) -> bool:
        """Whether everything that `other` admits, this grant admits too (never wrongly yes)."""
        mine = dict(self.bindings)
        theirs = dict(other.bindings)
        return _within(other.pattern, self.pattern) and all(
            name in theirs and _within(theirs[name], value) for name, value in mine.items()
        )


def _within(narrow: str, wide: str) -> bool:
    """Whether pattern `wide` matches all that `narrow` does: a wildcard of `narrow`, read as a letter, has to
    meet a `*`."""
    if narrow == wide:
        return True
    if "[" in narrow + wide or ("?" in wide and any(c in narrow for c in "*?")):
        return False
    return fnmatchcase(narrow, wide)


def covers(have: Iterable[Grant], want: Grant) -> bool:
    """Whether some grant of `have` covers `want`."""
    return any(grant.covers(want) for grant in have)


def check(grants: Iterable[Grant], names: Iterable[str]) -> None:
    """Raises ConfigError for a grant that no syscall of this machine answers to."""
    known = sorted(names)
    apps = sorted({name.partition(".")[0] for name in known})
    for grant in grants:
        if not any(grant.names(name) for name in known):
            near = difflib.get_close_matches(grant.pattern.removesuffix(".*"), [*known, *apps], n=1)
            raise ConfigError(
                f"no syscall answers to the grant {str(grant)!r}",
                why=f"this machine has {', '.join(apps) or 'no apps'}",
                do=f"did you mean {near[0]!r}?" if near else "mount its app under `apps:` in llmos.yaml",
            )
