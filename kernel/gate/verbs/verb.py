"""A verb: a function whose signature is what may stand in `with`, checked by pydantic; and what several need.

Invariant: slow work is done on a thread, and undone where its client has gone meanwhile.
Interface: `VERBS`: name -> `verb(request, given)`, which returns the request's value or raises; `verb`, the decorator
    that puts a function there; `told`, `whole`, `named`, `accepting`; `Labelled`, `Mounted`: parameters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BeforeValidator, ValidationError, validate_call

from llmos.abi.errors import ProcessError, TurnRefused
from llmos.abi.labels import Label, load_label
from llmos.abi.mount import Mount
from llmos.abi.progress import Progress, Unit

if TYPE_CHECKING:
    from llmos.kernel.gate.client import Request
    from llmos.kernel.process import Process

T = TypeVar("T")
Verb = Callable[["Request", Mapping[str, Any]], Awaitable[Any]]
VERBS: dict[str, Verb] = {}


def _loaded(load: Callable[[Any], T]) -> BeforeValidator:
    def read(told: Any) -> T:
        try:
            return load(told)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{told!r:.80} is none") from error

    return BeforeValidator(read)


Labelled = Annotated[Label, _loaded(load_label)]  # a default is not validated
Mounted = Annotated[Mount, _loaded(Mount.load)]

PROGRESS_S = 0.1  # between two reports


def verb(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Make a function a verb."""
    checked = validate_call(config={"arbitrary_types_allowed": True, "extra": "forbid"})(function)
    name = function.__name__.rstrip("_")

    async def call(request: Request, given: Mapping[str, Any]) -> Any:
        try:
            return await checked(request, **given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ProcessError(f"{name} was asked for wrongly: {where}: {first['msg']}") from None

    VERBS[name] = call
    return function


def accepting(request: Request) -> None:
    """TurnRefused where the kernel begins nothing new."""
    if request.gate.draining:
        raise TurnRefused(
            "the kernel is going down", why="it finishes what is under way", do="start it again: `llmos up`"
        )


def named(process: Process) -> dict[str, Any]:
    """A process, as clients are told of it."""
    return {
        "pid": process.pid,
        "parent": process.parent,
        "expert": process.expert,
        "window": process.view.size,
    }


async def whole(work: asyncio.Future[T], undo: Callable[[T], object]) -> T:
    """What `work` comes to. Where nobody waits for it any more, it is undone."""

    def ended(work: asyncio.Future[T]) -> None:
        if not work.cancelled() and work.exception() is None:
            undo(work.result())

    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(ended)
        raise


async def told(
    request: Request, work: Callable[[Progress], T], undo: Callable[[T], object] = lambda _: None
) -> T:
    """Run slow work on a thread, and tell the client how far it is."""
    at: list[tuple[str, int, int, Unit]] = []

    def progress(task: str, done: int, total: int, unit: Unit = "items", /) -> None:
        at[:] = [(task, done, total, unit)]

    async def tell() -> None:
        told: object = None
        while True:
            await asyncio.sleep(PROGRESS_S)
            if at and at[0] != told:
                told = at[0]
                await request.part({"progress": told})

    doing, telling = asyncio.ensure_future(asyncio.to_thread(work, progress)), asyncio.ensure_future(tell())
    try:
        return await whole(doing, undo)
    finally:
        telling.cancel()
