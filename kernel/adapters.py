"""Adapters in service: who runs with which, and what is kept of them.

What: a process may carry an adapter of its own, an expert may have been given one in place of its file's. They are
    kept whole, by version, in the machine's state, so that whoever resumes, replays or goes back finds the very same,
    whatever became of the file that they came from.
Invariant: a turn begins and ends with one adapter: its layout names the version, so it stands in the journal. One
    that does not fit the model is refused before anything changes. The store is bounded: what nobody has used for
    longest goes first, never what an expert or a process of this kernel goes back to.
Interface: `Adapters(kernel)`: `load(path)`, `list()`, `use(target, path)`, `back(target)`, `get(version)`;
    `AdapterStore(folder)`, the files, which needs no kernel.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmos.abi.errors import ConfigError, CorruptWeights, ModelNotFound, ProcessError
from llmos.abi.machine import AdapterStat
from llmos.drivers.weights.adapter import CONFIG, TENSORS, Adapter, read_adapter, write_adapter
from llmos.drivers.weights.locked import locked
from llmos.drivers.whole import write_whole

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel
    from llmos.kernel.process import Process

KEPT = 64  # adapters in the store
HISTORY = 16  # versions that a process or an expert can go back to
IN_MEMORY = 16  # adapters as they were read, beside those on the device
BASE = ""  # the version of no adapter at all


def adapted(history: Iterable[str], version: str) -> tuple[str, ...]:
    """A history with one more version; before the first stood the model alone."""
    return (*(tuple(history) or (BASE,)), version)[-HISTORY:]


class AdapterStore:
    """Adapters of a machine by version, and which of them its experts were given. Any process, any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._experts = folder / "experts.json"

    def keep(self, adapter: Adapter, needed: Collection[str] = ()) -> None:
        """Keep an adapter; others go for it, but for those that are `needed`."""
        place = self.folder / adapter.version
        if not (place / TENSORS).is_file():
            try:
                write_adapter(adapter, place)
            except CorruptWeights:  # somebody else has kept it meanwhile
                if not (place / TENSORS).is_file():
                    raise
        place.touch()
        needed = {adapter.version, *needed, *(v for history in self.experts().values() for v in history)}
        for version in self.kept()[KEPT:]:
            if version not in needed:
                shutil.rmtree(self.folder / version, ignore_errors=True)

    def kept(self) -> list[str]:
        """Versions, the one that was used last in front."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if len(path.name) == 64 and path.is_dir()]
        return [path.name for path in sorted(found, key=lambda path: -path.stat().st_mtime)]

    def get(self, version: str) -> Adapter:
        """The adapter of that version.

        Raises:
            ModelNotFound: it is not kept here.
            CorruptWeights: what is kept is not what it was.
        """
        place = self.folder / version
        if not place.is_dir():
            raise ModelNotFound(
                f"the adapter {version[:12]} is not on this machine", why=f"there is nothing at {place}",
                do="give the process another: `llmos adapter use PID PATH`",
            )  # fmt: skip
        place.touch()
        adapter = read_adapter(place)
        if adapter.version != version:
            raise CorruptWeights(
                f"the adapter kept at {place} is damaged", why="it is not what was kept", do="load it again"
            )
        return adapter

    def find(self, path: str | Path) -> Adapter:
        """The adapter at a path, or of a version that is kept, by its first six digits or more."""
        name = str(path)
        if not Path(path).expanduser().exists() and len(name) >= 6:
            fitting = [version for version in self.kept() if version.startswith(name)]
            if len(fitting) == 1:
                return self.get(fitting[0])
        return read_adapter(path)

    def stat(self, version: str, used: tuple[str, ...] = ()) -> AdapterStat:
        """What is kept under a version, from its configuration alone."""
        place = self.folder / version
        config = json.loads((place / CONFIG).read_bytes())
        return AdapterStat(
            version, int(config["r"]), float(config["lora_alpha"]), str(config["base_model_name_or_path"] or ""),
            tuple(config["target_modules"]), (place / TENSORS).stat().st_size, used,
        )  # fmt: skip

    def experts(self) -> dict[str, list[str]]:
        """The versions that experts were given, the last one's in use."""
        try:
            told = json.loads(self._experts.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CorruptWeights(
                f"{self._experts} is damaged", why=str(error), do="remove it: experts have their files' adapters then"
            ) from None  # fmt: skip
        return {str(name): [str(v) for v in history] for name, history in told.items()}

    def of(self, expert: str) -> str | None:
        """The version that an expert was given; None where it has its file's."""
        history = self.experts().get(expert, []) if expert else []
        return history[-1] if history else None

    def use(self, expert: str, version: str) -> None:
        """Give an expert an adapter, in place of its file's."""
        self._change(expert, lambda history: [*history, version][-HISTORY:])

    def back(self, expert: str) -> tuple[str, str | None]:
        """Take from an expert what it was given last: that, and what it has now (None: its file's). ConfigError."""
        gone: list[str] = []

        def shorter(history: list[str]) -> list[str]:
            if not history:
                raise ConfigError(
                    f"the expert {expert!r} has nothing to go back to", why="nobody has given it an adapter",
                    do="`llmos adapter list` shows who has which",
                )  # fmt: skip
            gone.append(history[-1])
            return history[:-1]

        left = self._change(expert, shorter)
        return gone[0], left[-1] if left else None

    def _change(self, expert: str, change: Callable[[list[str]], list[str]]) -> list[str]:
        with locked(self.folder / "lock", lambda: None):
            experts = self.experts()
            history = change(experts.get(expert, []))
            experts = {name: versions for name, versions in experts.items() if name != expert}
            if history:
                experts[expert] = history
            write_whole(self._experts, json.dumps(experts, indent=1, sort_keys=True).encode(), private=True)
        return history


class Adapters:
    """Those of one kernel. Any thread but the loop's."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.store = AdapterStore(Path(kernel.config.machine.state).expanduser() / "adapters")
        self._known: OrderedDict[str, Adapter] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, path: str | Path) -> Adapter:
        """Read an adapter, or find it by its version; see that it fits, have it ready, and keep it.

        Raises:
            ModelNotFound, CorruptWeights, UnsupportedModel: see `read_adapter`.
            AdapterMismatch: it was made for other weights.
            DiskFull: there is no room to keep it.
        """
        adapter = self.store.find(path)
        self._ready(adapter)
        self.store.keep(adapter, [v for p in self._kernel.table for v in p.adapters])
        self._remember(adapter)
        return adapter

    def get(self, version: str) -> Adapter | None:
        """The adapter of a version, None for `BASE`. Raises as `AdapterStore.get`."""
        if version == BASE:
            return None
        with self._lock:
            known = self._known.get(version)
        if known is None:
            self._remember(known := self.store.get(version))
        return known

    async def aget(self, version: str) -> Adapter | None:
        """`get` for the loop, which does not wait for the disk."""
        return self._known.get(version) or (await asyncio.to_thread(self.get, version) if version else None)

    def of(self, expert: str, path: str | Path | None) -> str:
        """The version that a new process runs with: what its expert was given by `use`, else what lies at `path`."""
        given = self.store.of(expert)
        if given is None:
            return BASE if path is None else self.load(path).version
        if (adapter := self.get(given)) is not None:
            self._ready(adapter)
        return given

    def list(self) -> Sequence[AdapterStat]:
        """The adapters that are kept, with the experts and processes that run with them."""
        used: dict[str, list[str]] = {}
        for name, history in self.store.experts().items():
            used.setdefault(history[-1], []).append(name)
        for process in self._kernel.table:
            used.setdefault(process.adapter, []).append(str(process.pid))
        return [self.store.stat(version, tuple(used.get(version, ()))) for version in self.store.kept()]

    def use(self, target: int | str, path: str | Path | None) -> str:
        """Have a process, or an expert and all its processes, run with an adapter from the next turn on; a turn under
        way ends with the one that it began with.

        Args:
            target: a pid, or the name of an expert.
            path: of the adapter, or a version that is kept; None for the model alone.

        Returns:
            The version.

        Raises:
            NoSuchProcess; and as `load`.
        """
        process = self._kernel.process(target) if isinstance(target, int) else None
        version = BASE if path is None else self.load(path).version
        if process is not None:
            process.adapt(adapted(process.adapters, version))
        else:
            self.store.use(str(target), version)
            for one in self._processes(str(target)):
                one.adapt(adapted(one.adapters, version))
        return version

    def back(self, target: int | str) -> str:
        """Go back to what stood before the last `use`; the version that is in use then.

        Raises:
            ProcessError, ConfigError: nothing stood before.
        """
        if isinstance(target, int):
            process = self._kernel.process(target)
            if len(process.adapters) < 2:
                raise ProcessError(
                    f"process {target} has nothing to go back to", why="it was given one adapter at most",
                    do="`llmos adapter list` shows who has which",
                )  # fmt: skip
            process.adapt(process.adapters[:-1])
            return process.adapter
        gone, now = self.store.back(target)
        for one in self._processes(target):
            if one.adapter == gone:
                before = one.adapters[:-1]
                one.adapt(before if now is None or before[-1:] == (now,) else adapted(before, now))
        return now or BASE

    def _processes(self, expert: str) -> Iterable[Process]:
        return [p for p in self._kernel.table if p.expert == expert and p.exit is None]

    def _ready(self, adapter: Adapter) -> None:
        kernel = self._kernel
        kernel.runner.check(adapter)
        kernel.engine.run(partial(kernel.runner.adapt, adapter))

    def _remember(self, adapter: Adapter) -> None:
        with self._lock:
            self._known[adapter.version] = adapter
            self._known.move_to_end(adapter.version)
            while len(self._known) > IN_MEMORY:
                self._known.popitem(last=False)
