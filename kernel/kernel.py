"""The kernel: one model, one engine, one journal, and the processes that share them.

What: owns everything that a machine has while it runs, and hands out processes.
Invariant: nothing here knows what computes: the runner may be a model on a device or a script. What is closed
    leaves nothing running. One engine thread, one loop, one writer of the journal; this object
    may be used from any thread.
Interface: `spawn`, `process`, `ps`, `stat`, `top`, `pmap`, `passed`, `why`, `replay`, `resume`, `next_distribution`,
    `close`; for the other modules of this floor: `append`, `durable`, `restore`, `library`, `ended`, `reap`.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from math import exp
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from llmos.abi.errors import ConfigError
from llmos.abi.events import Ask
from llmos.abi.machine import AppStat, Filling, Passed, Region, Replay, Stat, Top, Why
from llmos.abi.mount import Mount, as_mount
from llmos.abi.progress import Progress, silent
from llmos.kernel import private
from llmos.kernel.adapters import Adapters
from llmos.kernel.engine.engine import Engine
from llmos.kernel.engine.sequence import Request
from llmos.kernel.far import remote_of
from llmos.kernel.grants import Grant, check
from llmos.kernel.journal import Journal
from llmos.kernel.journal.records import Body, Booted, Reaped, Spawned
from llmos.kernel.ledger import check_quotas
from llmos.kernel.library import Library
from llmos.kernel.loop import Loop
from llmos.kernel.monitor import Policy
from llmos.kernel.process import Process
from llmos.kernel.prompt import ChatPrompt
from llmos.kernel.questions import RUNNING
from llmos.kernel.scheduler import Priority
from llmos.kernel.secret import secret
from llmos.kernel.streams import OutputCommit
from llmos.kernel.table import ProcessTable
from llmos.kernel.trace import OFF, Trace
from llmos.memory.pages import PageStore

if TYPE_CHECKING:
    from llmos.abi.config import Config
    from llmos.abi.manifest import Syscall
    from llmos.drivers.weights import ChatTemplate, Tokenizer
    from llmos.kernel.apps import Apps
    from llmos.kernel.engine.blend import Blender
    from llmos.kernel.engine.engine import Runner
    from llmos.kernel.engine.grammar import GrammarCompiler
    from llmos.kernel.journal.state import ProcessState
    from llmos.kernel.turn import Turn

Fidelity = Literal["exact", "blend"]
FLUSH_S = 2.0  # that a kernel which goes down takes to leave pages for the next
Asker = Callable[[Ask], bool]  # whoever approves values; called on a thread of its own
Reader = Callable[["Turn | None", Ask], Awaitable[bool | None]]
"""Whoever reads a turn from another process, on the loop; None where nobody there answers."""


class Kernel:
    """A running machine. A context manager; made by `boot`."""

    def __init__(
        self,
        config: Config,
        runner: Runner,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        started: float = 0.0,
        progress: Progress = silent,
        state: Path | None = None,
        asker: Asker | None = None,
        trace: Trace = OFF,
        blending: Callable[[PageStore], Blender] | None = None,
    ) -> None:
        """
        Args:
            runner: the device side of the engine, with the model.
            started: when the boot began, on the performance counter.
            state: the folder of this kernel's journal, which must be its own; None makes one that goes with it.
            asker: approves what the monitor asks about; without one everything asked about is refused.
            trace: what happens is written there; closed with the kernel.
            blending: makes what puts windows together, over the kernel's page store; None where the device cannot.
        """
        self.config, self.runner, self.window = config, runner, runner.window
        self.tokenizer, self.prompt = tokenizer, ChatPrompt(tokenizer, template)
        self.control_ids = self.tokenizer.control_ids - self.tokenizer.eos_ids
        self.policy = Policy(hosts=config.policy.hosts)
        self.asker = "deny"  # who answered last: journalled with each answer
        self.reader: Reader | None = None
        self._ask = asker
        self._progress = progress
        self.library = Library(config, progress)
        self._lock = threading.Lock()
        self._passing, self._closing = state is None, False
        self.state = state or private.folder_in(config.machine.state)
        self.journal = Journal.open(self.state)
        self.loop = Loop()
        self.trace = trace
        commit = trace.committing(OutputCommit(self.journal, self.loop), self.journal)
        self.pages = PageStore(self.state / "pages", ram=config.memory.ram, disk=config.memory.swap)
        self.blender = None if blending is None else blending(self.pages)
        self.engine = Engine(runner, commit, trace, store=self.pages, blender=self.blender)
        self.adapters = Adapters(self)
        found = self.journal.unfinished()
        self.table = ProcessTable(found.pids + 1)
        self.appended = 0  # the last record that was given to the journal, but for tokens
        self.boot_s = 0.0  # until all is there again; a turn that goes on may end before
        self.append(0, Booted(version("llmos"), runner.identity))
        states = found.processes.values()
        if any(state.spawned.grants for state in states):
            _ = self.apps  # not from the loop, which it waits for
        self.loop.run(self.restore(states))
        self._began = perf_counter()
        self.boot_s = self._began - started if started else 0.0

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the turns, the apps and the engine, write what is left, let go of the volumes. Idempotent.
        Processes of a kernel whose state stays are there again at its next boot."""
        if not self.loop.asyncio.is_closed():
            self.loop.run(self._halt())
        self.engine.close(keep=not self._passing)
        if "apps" in self.__dict__ and not self.loop.asyncio.is_closed():
            self.apps.close()
        self.loop.close()
        for process in self.table:
            process.questions.abandon()
        self.journal.close()
        if not self._passing:
            self.pages.flush(FLUSH_S)
        self.pages.close()
        self.trace.close()
        self.library.close()
        if self._passing:
            private.clear(self.state)

    async def _halt(self) -> None:
        self.loop.closing = True
        await asyncio.gather(*(process.questions.halt() for process in self.table))

    # -- processes -----------------------------------------------------------------------------------------------

    def spawn(
        self,
        mounts: Iterable[Mount | str | Path] = (),
        *,
        grants: Sequence[str] = (),
        instructions: str = "",
        expert: str = "",
        user: str = "",
        priority: str = "interactive",
        quotas: Mapping[str, float] | None = None,
        seed: int = 0,
        fidelity: Fidelity = "exact",
        work: str | Path | None = None,
        model: str = "",
        adapter: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Process:
        """A new process.

        Args:
            mounts: documents that it can read.
            grants: syscalls that it may make: `calculator`, `files.read_*`, `mail.send(to=*@example.org)`.
            instructions: what it is told before everything else.
            expert: its name, for `ps`.
            user: whom it speaks with, where a program speaks with several; "" the machine's owner. Its notes are this
                user's and this expert's alone, and so are those of its children.
            priority: `realtime`, `interactive` or `batch`.
            quotas: limits that end it: `tokens`, `syscalls`, wall `seconds`, `pages` of a window.
            seed: of its turns, where they give none.
            fidelity: `exact` computes what it reads as it stands; `blend` puts passages together that were computed
                before, and computes those that the question is about: many more at once, in a fraction of the time.
            work: its working volume, the folder in which its apps read and write; default one of its own, which
                lies in the machine's state. Its forks work in the same.
            adapter: a folder or file of LoRA weights that its words come from, or a version that is kept (see
                adapters.py). Where the expert has been given another by `adapters.use`, it is that one.
            model: `remote:NAME` has a remote model of llmos.yaml write its words (see far.py); "" the machine's own.

        Raises:
            ConfigError: a grant, quota, class, fidelity, folder or remote that does not exist.
            WeightsError: the adapter cannot be read, or was made for other weights.
            ProcessError: too many processes.
        """
        parsed = [Grant.parse(grant) for grant in grants]
        if parsed:
            check(parsed, self.syscalls)
        settings: dict[str, Any] = {"instructions": instructions} if instructions else {}
        if _fidelity(fidelity, self.blender is not None) == "blend":
            settings["fidelity"] = "blend"
        if user:
            settings["user"] = user
        if work is not None:
            settings["work"] = str(_folder(work))
        if model:
            settings["model"] = remote_of(model, self.config)
        if version := self.adapters.of(expert, adapter):
            if model:
                raise ConfigError(
                    "a remote model takes no adapter", why=f"{model} writes the words of this process",
                    do="leave one of the two out",
                )  # fmt: skip
            settings["adapters"] = [version]
        given = [as_mount(mount) for mount in mounts]
        if given:
            settings["mounts"] = [mount.dump() for mount in given]
        spawned = Spawned(
            0, expert, _class(priority), tuple(grants), check_quotas(quotas or {}), seed, settings=settings
        )
        for mount in given:
            self.library.mount(mount, progress)
        return self.add(spawned, given)

    def add(self, spawned: Spawned, mounts: Sequence[Mount]) -> Process:
        """Enter a process that somebody has described."""
        pid = self.table.admit(spawned.parent)
        process = Process(self, pid, spawned, mounts)
        self.append(pid, spawned)
        self.table.add(process)
        return process

    def process(self, pid: int) -> Process:
        """The process with that pid; NoSuchProcess."""
        return self.table.get(pid)

    def ps(self) -> list[Stat]:
        """Every process, by pid."""
        return [process.stat() for process in self.table]

    def stat(self, pid: int) -> Stat:
        """One process's line of `ps`; NoSuchProcess."""
        return self.process(pid).stat()

    def pmap(self, pid: int, *, look: bool = False) -> list[Region]:
        """What stands in a process's window, in the order in which the model reads it; nothing before its first turn in
        this kernel's life. `look`: also where the last answer looked, for which the model takes a word's time."""
        from llmos.kernel.why import attention

        process = self.process(pid)
        window = process.questions.window
        if window is None:
            return []
        seen = process.view.seen(window)
        return window.map(attention(self, process) if seen is None and look else seen)

    def fill(self, pid: int, budget: int, *, look: bool = False, progress: Progress = silent) -> Filling:
        """Compute ahead of need what the windows of a process are put together of; see filling.py.

        Args:
            budget: bytes that the passages may take in the page store, those that are there already included.
            look: only say what it would cost.

        Raises:
            ConfigError: it does not blend or has nothing mounted; the budget is too small, or more than the store.
        """
        from llmos.kernel.filling import fill

        return fill(self.process(pid), budget, look, progress)

    def top(self) -> Top:
        """The whole machine at this moment."""
        apps = self.apps.ps() if "apps" in self.__dict__ else []
        lines = tuple(
            AppStat(a.name, a.agent, a.os_pid, a.state, a.calls, a.active, a.restarts, a.memory) for a in apps
        )
        counters, pool = self.engine.counters, self.engine.pool
        return Top(
            tuple(self.ps()), lines, perf_counter() - self._began, counters.steps, counters.tokens,
            counters.emitted, counters.preemptions, pool.pages - 1, pool.leaked,
            self.engine.swap.faults, self.engine.swap.lost, *self.pages.held,
        )  # fmt: skip

    def passed(self, pid: int) -> list[Passed]:
        """The last turn of a process as the model read and wrote it, special words too. ProcessError: it had none."""
        from llmos.kernel.why import passed

        return passed(self, self.process(pid))

    def why(self, pid: int, *, call: bool = False, progress: Progress = silent) -> Why:
        """What the last answer of a process stood on, or with `call` its last call: each stretch of the window is
        masked, and the model looks again. ProcessError: there is none."""
        from llmos.kernel.why import why

        return why(self, self.process(pid), call=call, progress=progress)

    def replay(self, pid: int) -> Replay:
        """Run a process again from the journal, with the recorded results of its calls, and compare its words."""
        from llmos.kernel.replay import replay

        return replay(self, pid)

    def resume(self, path: str | Path) -> Process:
        """A new process from a checkpoint, which goes on where the one stood that it was made of.

        Raises:
            CheckpointError: the file is damaged, of other weights, or needs a larger window.
            ConfigError: it was granted apps that are not here.
        """
        from llmos.kernel.checkpoint import resume

        return resume(self, Path(path))

    async def restore(self, states: Iterable[ProcessState]) -> None:
        """On the loop: every process stands as the journal says: parents before children, zombies as they ended."""
        for known in sorted(states, key=lambda state: state.pid):
            mounts = [Mount.load(mount) for mount in known.spawned.settings.get("mounts", ())]
            parent = known.parent if any(p.pid == known.parent for p in self.table) else 0
            process = Process(self, known.pid, replace(known.spawned, parent=parent), mounts)
            self.table.add(process)
            process.restore(known)
            if process.exit is not None and process.parent == 0:
                self.reap(process)

    def ended(self, process: Process) -> None:
        """A process has ended: its children are the kernel's now, its apps go, nobody may write to it."""
        for orphan in self.table.adopt(process.pid):
            if orphan.exit is not None:
                self.reap(orphan)
        if "apps" in self.__dict__:
            self.apps.release(process.pid)
        self.loop.call(lambda: asyncio.ensure_future(process.mailbox.close()))
        if process.parent == 0:
            self.reap(process)

    def reap(self, process: Process) -> None:
        """Somebody has waited for a process that ended: nothing is left of it but what is journalled."""
        if self.table.reap(process.pid):
            self.append(process.pid, Reaped())

    # -- the journal ---------------------------------------------------------------------------------------------

    def append(self, pid: int, body: Body) -> int:
        """Journal a record; it is durable soon."""
        seq = self.journal.append(pid, body)
        self.appended = max(self.appended, seq)
        return seq

    async def durable(self, pid: int, body: Body) -> int:
        """Journal a record and wait, on the loop, until it is on the disk; its number."""
        seq = self.append(pid, body)
        done = asyncio.get_running_loop().create_future()
        self.journal.after(seq, lambda: self.loop.call(_settle, done))
        self.journal.commit()
        await done
        return seq

    # -- what processes use --------------------------------------------------------------------------------------

    @cached_property
    def apps(self) -> Apps:
        """The apps of this machine; looked up when first somebody is granted one, never on the loop itself, which has
        to run meanwhile."""
        from llmos.kernel.apps import Apps

        assert not self.loop.here

        return Apps(self)

    @property
    def syscalls(self) -> Mapping[str, Syscall]:
        """Every syscall of this machine by its full name."""
        return self.apps.syscalls

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """Compiles grammars over this model's vocabulary."""
        from llmos.kernel.engine.grammar import GrammarCompiler

        return GrammarCompiler(self.tokenizer, self.runner.vocab)

    def workspace(self, pid: int) -> Path:
        """The folder of a process's working volume; one of its own is made on first use."""
        if given := self.process(pid).spawned.settings.get("work"):
            return Path(str(given))
        folder = self.state / "work" / str(pid)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def secrets(self, names: Iterable[str]) -> dict[str, str]:
        """Those of these secrets that the machine's owner has given."""
        found = ((name, secret(name, self.config.machine.state)) for name in names)
        return {name: value for name, value in found if value is not None}

    @cached_property
    def machine_id(self) -> str:
        """Of this kernel's state: makes its idempotency keys its own."""
        return hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:12]

    async def ask(self, doubt: Ask) -> bool:
        """Whether somebody approves this value: who reads the turn, else who booted this kernel, else nobody."""
        allowed = None if self.reader is None else await self.reader(RUNNING.get(), doubt)
        if allowed is None and self._ask is not None:
            allowed = await asyncio.to_thread(self._ask, doubt)
        self.asker = "deny" if allowed is None else "user"  # read before anything else can run on the loop
        return bool(allowed)

    def next_distribution(self, text: str, k: int = 10, pid: int = 0) -> list[tuple[str, float]]:
        """The `k` likeliest next tokens after `text`, read as a base model would, with their probabilities. With `pid`:
        where that process's last answer begins, had it begun with `text`."""
        if pid:
            from llmos.kernel.why import window_of

            window = window_of(self, self.process(pid))
            tokens, adapter = (
                (*window.tokens, *self.tokenizer.encode(text)),
                self.adapters.get(window.adapter),
            )
        else:
            tokens, adapter = tuple(self.raw_tokens(text)), None
        (item,) = self.engine.submit(Request(tokens=tokens, max_tokens=1, top=k, adapter=adapter))
        name = self.tokenizer.token_bytes
        return [(name(i).decode("utf-8", "replace"), exp(logprob)) for i, logprob in item.top]

    def raw_tokens(self, text: str) -> list[int]:
        """`text` as a base model reads it: no template, begun as the model was taught to begin."""
        t = self.tokenizer
        ids = t.encode(text)
        if t.bos_id is not None and (t.add_bos or not ids):
            ids.insert(0, t.bos_id)
        return ids


def _class(name: str) -> Any:
    names = [p.name.lower() for p in Priority]
    if name not in names:
        raise ConfigError(f"{name!r} is no class of processes", do=f"choose one of {', '.join(names)}")
    return name


def _fidelity(name: str, blends: bool) -> str:
    if name not in get_args(Fidelity):
        raise ConfigError(f"{name!r} is no fidelity", do=f"choose one of {', '.join(get_args(Fidelity))}")
    if name == "blend" and not blends:
        raise ConfigError(
            "this device cannot blend", why="its pages have a form of its own", do='choose "exact"'
        )
    return name


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"{folder} cannot be a working volume", why="it is no folder", do="make it, or name another"
        )
    return folder.resolve()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
