"""A process of a kernel that runs elsewhere.

What: the methods of `kernel.process.Process`, each a request.
Invariant: it knows only what does not change (pid, parent at birth, expert); all else is asked for.
Interface: that of `Process`, as `abi.machine.AnyProcess` has it; `await_`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmos.abi import wire
from llmos.abi.labels import USER, Label, dump_label
from llmos.abi.machine import AnyExchange, AnyMail, Exit, Holdings, Place, Signal, Stat, State
from llmos.abi.mount import Mount
from llmos.abi.progress import Progress, silent
from llmos.attach.connection import Connection
from llmos.attach.turn import Asker, RemoteTurn

if TYPE_CHECKING:
    from llmos.abi.manifest import Syscall


T = TypeVar("T")


class RemoteProcess:
    """Made by `RemoteKernel.spawn`, `process` and `fork`."""

    def __init__(self, connection: Connection, named: Mapping[str, Any], asker: Asker | None) -> None:
        self.pid: int = named["pid"]
        self.parent: int = named["parent"]
        self.expert: str = named["expert"]
        self.window: int = named["window"]
        self._connection, self._asker = connection, asker

    def ask(
        self,
        question: str = "",
        *,
        messages: Sequence[Any] | None = None,
        tools: Sequence[Syscall] = (),
        tool_choice: str = "auto",
        max_tokens: int | None = None,
        seed: int | None = None,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        stop: Sequence[str] = (),
        raw: bool = False,
        returns: Any = None,
        schema: Mapping[str, Any] | None = None,
        think: Any = None,
        queue: bool = False,
        label: Label = USER,
        detached: bool = False,
    ) -> RemoteTurn:
        """Start a turn; see `Process.ask`. One that is `detached` goes on without this program."""
        if returns is not None:
            from pydantic import TypeAdapter

            schema = TypeAdapter(returns).json_schema()
        given = {
            "pid": self.pid, "question": question, "tool_choice": tool_choice, "max_tokens": max_tokens,
            "seed": seed, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
            "repetition_penalty": repetition_penalty, "stop": list(stop), "raw": raw, "schema": schema,
            "queue": queue, "detached": detached,
            "messages": None if messages is None else [wire.dump(message) for message in messages],
            "tools": [tool.model_dump(mode="json") for tool in tools],
        }  # fmt: skip
        if think is not None:
            from llmos.kernel.think.forms import dump, strategy_of

            given["think"] = dump(strategy_of(think))
        turn = RemoteTurn(self._connection, self.pid, self._asker, returns=returns, detached=detached)
        turn.start("ask", given if label == USER else {**given, "label": dump_label(label)})
        return turn

    async def aask(self, question: str, **options: Any) -> RemoteTurn:
        """`ask` for async programs."""
        return await _on_thread(self.ask, question, **options)

    @property
    def current(self) -> RemoteTurn | None:
        """The turn that runs, read from its beginning; None where nothing is asked."""
        turn = RemoteTurn(self._connection, self.pid, self._asker)
        return turn if turn.start("follow", {"pid": self.pid}) else None

    def mount(self, mount: Mount, progress: Progress = silent) -> None:
        """Put a body of documents within this process's reach."""
        self._connection.collect("mount", reported(progress), pid=self.pid, mount=absolute(mount))

    def unmount(self, path: str | Path) -> None:
        """Take a body of documents out of this process's reach."""
        self._call("unmount", path=str(Path(path).expanduser().absolute()))

    def grant(self, grants: Sequence[str]) -> None:
        """Change what this process may call; see `Process.grant`."""
        self._call("grant", grants=list(grants))

    def withdraw(self, syscall: str = "") -> None:
        """Take back what has been approved; see `Process.withdraw`."""
        self._call("withdraw", syscall=syscall)

    def expect(self, question: str = "") -> None:
        """Say what may be asked next; see `Process.expect`."""
        self._call("expect", question=question)

    def place(self, reference: str, place: Place) -> None:
        """Say where something stands from the next question on; see `Process.place`."""
        self._call("place", reference=reference, place=place)

    def keep(self) -> None:
        """It does not end with this program, which has spawned it."""
        self._call("keep")

    def holdings(self) -> Holdings:
        """What its owner has given it, and where."""
        told = self._call("holdings")
        mounts = tuple(Mount.load(mount) for mount in told["mounts"])
        return Holdings(tuple(told["grants"]), mounts, told["work"], told["placed"], told["turn"])

    def forget(self, since: int = 0) -> None:
        """Empty the conversation, from turn `since` on; mounts stay."""
        self._call("forget", since=since)

    def fork(self, count: int = 1) -> list[RemoteProcess]:
        """Children that know what this process knows; see `Process.fork`."""
        return [
            RemoteProcess(self._connection, named, self._asker) for named in self._call("fork", count=count)
        ]

    def signal(self, signal: Signal, sender: int = 0) -> None:
        """INT stops the turn, STOP and CONT hold and release the process, TERM lets it finish, KILL ends it."""
        self._call("signal", signal=signal, sender=sender)

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait for the process to end, and reap it. TimeoutError: it has not ended in time."""
        end: Exit = wire.load(Exit, self._call("wait", timeout=timeout))
        return end

    async def await_(self, timeout: float | None = None) -> Exit:
        """`wait` for async programs."""
        return await _on_thread(self.wait, timeout)

    def close(self) -> Exit:
        """End the process now, and reap it."""
        self.signal("KILL")
        return self.wait()

    def checkpoint(self, path: str | Path) -> Path:
        """Write the process to a file on the kernel's machine; where it lies. See `Process.checkpoint`."""
        return Path(self._call("checkpoint", path=str(Path(path).absolute())))

    # -- mail ----------------------------------------------------------------------------------------------------

    def send(self, to: int, content: Any, *, label: Label = USER, timeout: float | None = None) -> None:
        """Put mail into the box of process `to`; waits while it is full. See `Process.asend`."""
        self._call("send", to=to, content=content, label=dump_label(label), timeout=timeout)

    async def asend(self, to: int, content: Any, label: Label = USER, timeout: float | None = None) -> None:
        """`send` for async programs."""
        await _on_thread(self.send, to, content, label=label, timeout=timeout)

    def receive(self, timeout: float | None = None) -> AnyMail:
        """The oldest letter in this process's box; waits for one. TimeoutError: for `timeout` seconds."""
        from llmos.kernel.journal.state import Mail

        mail: Mail = wire.load(Mail, self._call("receive", timeout=timeout))
        return mail

    async def areceive(self, timeout: float | None = None) -> AnyMail:
        """`receive` for async programs."""
        return await _on_thread(self.receive, timeout)

    # -- what the user thought of it -----------------------------------------------------------------------------

    def correct(self, turn: int, text: str) -> None:
        """What turn `turn` should have answered."""
        self._call("feedback", verdict="correct", turn=turn, text=text)

    def prefer(self, turn: int, over: int, of: int = 0) -> None:
        """The answer of `turn` was better than that of `over`, a turn of process `of` or of this one."""
        self._call("feedback", verdict="prefer", turn=turn, over=over, of=of)

    def good(self, turn: int) -> None:
        """The answer of `turn` was good."""
        self._call("feedback", verdict="good", turn=turn)

    def bad(self, turn: int) -> None:
        """The answer of `turn` was bad."""
        self._call("feedback", verdict="bad", turn=turn)

    # -- looking -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        state: State = self.stat().state  # type: ignore[assignment]  # a line of `ps` says it as text
        return state

    @property
    def conversation(self) -> Sequence[AnyExchange]:
        """What was asked and answered so far; a copy."""
        from llmos.kernel.journal.state import Exchange

        return [wire.load(Exchange, told) for told in self._call("conversation")]

    def stat(self) -> Stat:
        """The process as a line of `ps`."""
        line: Stat = wire.load(Stat, self._call("stat"))
        return line

    def _call(self, verb: str, **given: Any) -> Any:
        return self._connection.call(verb, pid=self.pid, **given)


def reported(progress: Progress) -> Callable[[Any], None]:
    """Tells `progress` what the kernel reports."""

    def take(part: Any) -> None:
        progress(*part["progress"])

    return take


def absolute(mount: Mount) -> dict[str, Any]:
    """The mount as JSON, named so that a process in another folder finds it."""
    return {**mount.dump(), "path": str(mount.path.absolute())}


async def _on_thread(work: Callable[..., T], *arguments: Any, **options: Any) -> T:
    import asyncio  # not for programs that only wait

    return await asyncio.to_thread(work, *arguments, **options)
