"""What travels beside a call: who calls, with which key, under which labels.

What: the one object under `_meta["llmos/call"]` of a `tools/call`, and how an error comes back.
Invariant: secrets and the volume go to apps of ours only; a stranger gets pid, key and labels. Neither side
    logs this object: its printed form shows the names of secrets, never their values.
Interface: `CallMeta`, `CALL`, `ERROR`, `RUNNING`; `error_to_wire`, `error_from_wire`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from llmos.abi import errors
from llmos.abi.errors import AppError, AppFailed
from llmos.abi.labels import Integrity, Label

CALL = "llmos/call"  # key in `_meta` of a call, and of the questions that an app asks back
ERROR = "llmos/error"  # key in `_meta` of a result that is an error
ABSENT = "llmos/absent"  # key in `_meta` of the answer to a query: the key never took effect
SCHEMA = "llmos/schema"  # key in `_meta` of a question: what the answer has to fit
RUNNING = "llmos/running"  # request: the ids of the calls that are still being worked on
MAX_REPLY_BYTES = 16 << 20  # of one message; a large picture has 10 MiB in base64

_ON_THE_WIRE: dict[str, type[AppError]] = {
    kind.__name__: kind
    for kind in (errors.BadArguments, AppFailed, errors.BadResult, errors.SecretMissing, errors.AskRefused)
} | {"AppUnavailable": errors.AppUnavailable}


class CallMeta(BaseModel):
    """The context of one call; `id` differs for every attempt, `key` only for every call."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    pid: int = 0
    key: str = ""
    integrity: str = ""  # of what the arguments were made from
    readers: tuple[str, ...] | None = None  # None: everyone
    expert: str = ""
    volume: str | None = None
    secrets: dict[str, SecretStr] = Field(default_factory=dict)
    query: bool = False  # not a call: what came of the one with this key?

    @property
    def label(self) -> Label:
        """Of what the arguments were made from; of what a stranger's client does not tell, the least."""
        integrity = Integrity.__members__.get(self.integrity.upper(), Integrity.UNTRUSTED)
        return Label(integrity, None if self.readers is None else frozenset(self.readers))

    def to_wire(self, *, ours: bool) -> dict[str, Any]:
        """As JSON, with secrets in the clear: for the pipe to an app of ours; less for a stranger."""
        own = {"expert", "volume", "secrets", "query"}
        wire = self.model_dump(mode="json", exclude=None if ours else own)
        if ours:
            wire["secrets"] = {name: value.get_secret_value() for name, value in self.secrets.items()}
        return wire


def error_to_wire(error: AppError) -> dict[str, str]:
    """An error as JSON."""
    kind = type(error).__name__
    if kind not in _ON_THE_WIRE:  # of an app's own
        kind = "BadArguments" if isinstance(error, errors.BadArguments) else "AppFailed"
    raised = error.type if isinstance(error, AppFailed) else type(error).__name__
    return {"kind": kind, "what": error.what, "why": error.why, "do": error.do, "type": raised}


def error_from_wire(wire: object, text: str) -> AppError:
    """The error again; what a stranger says without the form is an AppFailed with its `text`."""
    if not isinstance(wire, Mapping):
        return AppFailed(text or "the app failed and did not say why")
    what, why, do = (str(wire.get(key) or "") for key in ("what", "why", "do"))
    kind = _ON_THE_WIRE.get(str(wire.get("kind")), AppFailed)
    if kind is AppFailed:
        return AppFailed(what, why=why, do=do, type=str(wire.get("type") or ""))
    return kind(what, why=why, do=do)
