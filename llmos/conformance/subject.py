"""An app under examination, running as it would under a kernel.

What: holds the app host, one folder as working volume, and canaries in the place of secrets; makes calls and waits.
Invariant: everything that it starts ends with it. A call always comes to an outcome.
Interface: `Subject(app, examples=, effects=)`, a context manager: `.manifest`, `.called`, `.cases(syscall)`,
    `.call(...)`, `.start(...)`, `.process()`, `.lost(outcome)`; `read(app)`, an app's manifest.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from llmos.abi.errors import AppUnavailable, ManifestError
from llmos.abi.manifest import Manifest, Syscall
from llmos.conformance.values import Arguments, fitting
from llmos.kernel.apphost import AppHost, AppProcess, CallContext, Entry, Ours, Outcome
from llmos.kernel.apphost.manifests import app_environment
from llmos.kernel.loop import Loop

QUIET = ("none", "read")  # effects that are called without being asked for: they change nothing
PATIENCE = 120.0  # seconds beyond a syscall's own deadline, for a machine that is busy

Examples = Mapping[str, Arguments | Sequence[Arguments]]
"""Full name of a syscall -> arguments to call it with, or several."""


class Subject:
    """One app, and calls of it.

    Args:
        app: the name of an installed app, or `module:Class`.
        examples: arguments of the author's choice, tried before those made from the schema.
        effects: which syscalls are called without an example.

    Raises:
        ManifestError: there is no such app, or it cannot be described.
    """

    def __init__(self, app: str, examples: Examples | None = None, effects: Iterable[str] = QUIET) -> None:
        self.app = app
        self._examples = {
            name: [one] if isinstance(one, Mapping) else list(one) for name, one in (examples or {}).items()
        }
        self._effects = frozenset(effects)
        self._keys = itertools.count(1)
        self._stack = ExitStack()

    def __enter__(self) -> Subject:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmos-conformance-")))
            self.volume = folder / "work" / "1"
            self.volume.mkdir(parents=True)
            self.manifest = read(self.app)
            loop = Loop()
            stack.callback(loop.close)
            entry = Entry(name=self.manifest.app, source=Ours(self.app))
            self.host = AppHost(loop.asyncio, [entry], folder / "apps")
            stack.callback(lambda: self.host.close().result())
            self.secrets = {name: f"canary-{name}-{os.urandom(8).hex()}" for name in self.manifest.secrets}
            strange = self._examples.keys() - {one.name for one in self.manifest.syscalls}
            if strange:
                known = ", ".join(one.name for one in self.manifest.syscalls)
                raise ManifestError(
                    f"an example of {sorted(strange)[0]}, which there is not", do=f"there are {known}"
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def called(self) -> list[Syscall]:
        """The syscalls that are called: harmless ones, and those that the author gave leave or an example for."""
        return [
            one for one in self.manifest.syscalls if one.effect in self._effects or one.name in self._examples
        ]

    def cases(self, syscall: Syscall) -> list[Arguments]:
        """Arguments to call it with: the author's, then those made from its schema where its effect allows."""
        made = fitting(syscall.parameters) if syscall.effect in self._effects else []
        return [*self._examples.get(syscall.name, ()), *made]

    def start(
        self, syscall: Syscall, arguments: Mapping[str, Any], *, key: str = "", pid: int = 1
    ) -> Future[Outcome]:
        """Begin a call."""
        context = CallContext(
            pid=pid, key=key or f"key-{next(self._keys)}", volume=self.volume, secrets=self.secrets
        )
        return self.host.call(syscall.name, arguments, context)

    def call(self, syscall: Syscall, arguments: Mapping[str, Any], *, key: str = "") -> Outcome:
        """Make a call and wait for what comes of it."""
        return self.start(syscall, arguments, key=key).result(syscall.deadline + PATIENCE)

    def query(self, syscall: Syscall, key: str) -> Outcome:
        """Ask what came of a key."""
        context = CallContext(pid=1, key=key, volume=self.volume, secrets=self.secrets)
        return self.host.took_effect(syscall.name, context).result(syscall.deadline + PATIENCE)

    def process(self) -> AppProcess | None:
        """The process that makes the calls, if one runs."""
        running = [one for one in self.host.ps() if one.os_pid]
        return running[0] if running else None

    def lost(self, outcome: Outcome) -> bool:
        """Whether the call that ended so took its process along; an app may also say by itself that it cannot work."""
        return isinstance(outcome.error, AppUnavailable) and self.process() is None

    def files(self) -> dict[str, bytes]:
        """What lies in the working volume."""
        found = {}
        for path in sorted(self.volume.rglob("*")):
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(self.volume).as_posix()] = path.read_bytes()
        return found


def read(app: str) -> Manifest:
    """The manifest of an app, read in a process of its own; ManifestError where it has none."""
    program = [sys.executable, "-m", "llmos.apps.serve", "--manifests", app]
    environment = {**os.environ, **app_environment()}
    try:
        done = subprocess.run(program, env=environment, capture_output=True, timeout=PATIENCE, check=False)
        found = json.loads(done.stdout)[app]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        raise ManifestError(f"what {app} offers cannot be read", why="its module broke the reader") from None
    if "error" in found:
        what, why, do = found["error"]
        raise ManifestError(what, why=why, do=do)
    return Manifest.model_validate(found["manifest"])
