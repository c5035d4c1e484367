"""The suite as a whole: which checks there are, and how an app is put through them.

What: runs the checks on one app and collects what they found.
Invariant: whatever an app does, there is a report.
Interface: `CHECKS`, `examine(app, ...) -> Report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from llmos.abi.errors import AppError
from llmos.conformance import behaved, declared
from llmos.conformance.findings import Finding, Report, fault
from llmos.conformance.subject import QUIET, Examples, Subject

_ALL: tuple[Callable[[Subject], Iterable[Finding]], ...] = (
    declared.schema, declared.effects, declared.labels, behaved.arguments, behaved.sizes, behaved.times,
    behaved.cancellation, behaved.concurrency, behaved.survival,
)  # fmt: skip
CHECKS: dict[str, str] = {check.__name__: (check.__doc__ or "").strip() for check in _ALL}
"""Name of a check -> what an app has to keep."""


def examine(
    app: str, *, examples: Examples | None = None, effects: Iterable[str] = QUIET, only: Iterable[str] = ()
) -> Report:
    """Run the suite on an app.

    Args:
        app: the name of an installed app, or `module:Class`.
        examples: full name of a syscall -> arguments, or several, that show what it does.
        effects: which syscalls may be called with made-up arguments; those of the examples are called anyway.
        only: names of checks; all without it.

    Raises:
        ManifestError: there is no such app, it cannot be described, or an example is of no syscall of it.
    """
    wanted = set(only) or CHECKS.keys()
    chosen = [check for check in _ALL if check.__name__ in wanted]
    found: list[Finding] = []
    with Subject(app, examples, effects) as subject:
        called = {one.name for one in subject.called}
        names = tuple(one.name for one in subject.manifest.syscalls)
        for check in chosen:
            try:
                some = list(check(subject))
            except AppError as error:
                some = [fault("", f"could not be examined: {error}", "")]
            found += [replace(one, check=check.__name__) for one in some]
    return Report(
        subject.manifest.app,
        names,
        tuple(name for name in names if name not in called),
        tuple(check.__name__ for check in chosen),
        tuple(dict.fromkeys(found)),
    )
