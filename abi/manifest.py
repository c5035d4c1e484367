"""What an app offers, as data: the kernel's view of it.

What: a frozen, JSON-able description of an app and of each of its syscalls, read from a class of ours or from
    the tools that a foreign MCP server lists.
Invariant: nothing that a foreign server says about itself is believed: without the owner's overlay its tools
    have the strictest effect, every argument is target and payload, and a lost call is never repeated. Its
    `fingerprint` covers every word it listed, so a server that changes is noticed.
Interface: `Manifest.of(AppClass)`, `Manifest.of_mcp(name, tools, overlay)`, `manifest.confirmed(fingerprint)`,
    `manifest.syscall("rates.rate")`, `check_names(manifests)`. Errors: ManifestError, ManifestChanged.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmos.abi.app import DEADLINE, App, Effect, Retry, Returns, check_app_name, syscalls_of
from llmos.abi.errors import ManifestChanged, ManifestError
from llmos.abi.labels import STORE, UNTRUSTED, USER, Label
from llmos.abi.schema import simplify
from llmos.abi.signature import Signature, explain

MAX_TOOLS = 256  # of one server; each costs window and grammar
MAX_TOOL_BYTES = 64 << 10  # of one tool as listed, JSON; real ones have up to 10 KiB

_LABELS: dict[str, Label] = {"user": USER, "store": STORE, "untrusted": UNTRUSTED}
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class Overlay(BaseModel):
    """What the machine's owner says about a foreign syscall; what is left out stays at its strictest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    effect: Effect = "admin"
    retry: Literal["safe", "never"] = "never"  # keys and companions are our apps' own
    returns: Returns = "untrusted"
    targets: tuple[str, ...] | None = None
    payload: tuple[str, ...] | None = None
    deadline: float = Field(default=DEADLINE, gt=0, allow_inf_nan=False)


class Syscall(BaseModel):
    """One syscall. `parameters` compiles in the grammar engine; `loosened` are constraints that it lacks and
    the app checks itself; `result` is the schema of the value it returns, None for parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # full: "rates.rate"
    tool: str  # what its server calls it
    description: str
    parameters: dict[str, Any]
    result: dict[str, Any] | None = None
    loosened: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    payload: tuple[str, ...] = ()
    effect: Effect
    retry: Retry
    returns: Returns
    deadline: float
    hints: dict[str, bool] = Field(default_factory=dict)  # a foreign server's own claims: shown, not believed

    @property
    def label(self) -> Label:
        """The label of its results before the arguments' labels are joined to it."""
        return _LABELS[self.returns]


class Manifest(BaseModel):
    """An app and its syscalls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    app: str
    doc: str = ""
    stateful: bool = False
    pure: bool = False
    foreign: bool = False
    secrets: tuple[str, ...] = ()
    max_memory: int = 0  # bytes, of each of its processes; 0: as most have
    syscalls: tuple[Syscall, ...]
    fingerprint: str

    @classmethod
    def of(cls, app: type[App]) -> Manifest:
        """The manifest of an app of ours; ManifestError for types that have no schema."""
        found = []
        for method, declared in syscalls_of(app):
            function = inspect.getattr_static(app, method)
            signature = Signature.read(app.app_name, function)
            if not (words := inspect.getdoc(function)):
                raise ManifestError(
                    f"{signature.name} has no docstring", why="the model reads it", do="say what it does"
                )
            if declared.query:
                _check_companion(Signature.read(app.app_name, inspect.getattr_static(app, declared.query)))
            if declared.retry == "query" and signature.result is not None and _may_be_null(signature.result):
                raise ManifestError(
                    f"{signature.name} may return None",
                    why="its companion says None where a key never took effect",
                    do="return something",
                )
            found.append(
                Syscall(
                    name=signature.name,
                    tool=signature.name,
                    description=words,
                    parameters=signature.schema.schema,
                    result=signature.result,
                    loosened=signature.schema.loosened,
                    targets=_marked(signature, "x-target"),
                    payload=_marked(signature, "x-payload"),
                    effect=declared.effect,
                    retry=declared.retry,
                    returns=declared.returns,
                    deadline=declared.deadline,
                )
            )
        doc = inspect.cleandoc(app.__doc__ or "")
        flags: dict[str, Any] = {"stateful": app.stateful, "pure": app.pure, "secrets": app.secrets}
        listed = [flags, *(one.model_dump(mode="json") for one in found)]
        return cls(
            app=app.app_name, doc=doc, syscalls=tuple(found), fingerprint=_hash(listed), max_memory=app.max_memory,
            **flags,
        )  # fmt: skip

    @classmethod
    def of_mcp(
        cls,
        name: str,
        tools: Sequence[Mapping[str, Any]],
        overlay: Mapping[str, str | Mapping[str, Any]] | None = None,
        *,
        doc: str = "",
    ) -> Manifest:
        """The manifest of a foreign server.

        Args:
            name: what processes call it by.
            tools: as `tools/list` gave them (`name`, `description`, `inputSchema`, `annotations`).
            overlay: glob over tool names -> effect, or the keys of `Overlay`; the last match holds.
            doc: what the owner says it is for.

        Raises:
            ManifestError: a tool that cannot be called safely, or an overlay that says nothing useful.
        """
        check_app_name(name)
        rules = [(glob, _overlay(name, glob, rule)) for glob, rule in (overlay or {}).items()]
        if len(tools) > MAX_TOOLS:
            raise ManifestError(f"{name} lists {len(tools)} tools", why=f"at most {MAX_TOOLS} are taken")
        found = [_foreign(name, tool, rules) for tool in tools]
        _no_twice([one.name for one in found], f"{name} lists")
        for glob, _ in rules:
            if not any(fnmatchcase(one.tool, glob) for one in found):
                known = ", ".join(one.tool for one in found[:20]) or "none"
                raise ManifestError(
                    f"{name}: effects for {glob!r}, which no tool is called", do=f"its tools are {known}"
                )
        return cls(app=name, doc=doc, foreign=True, syscalls=tuple(found), fingerprint=_hash(list(tools)))

    def syscall(self, name: str) -> Syscall:
        """The syscall of that full name; KeyError without one."""
        for one in self.syscalls:
            if one.name == name:
                return one
        raise KeyError(name)

    def confirmed(self, fingerprint: str) -> Manifest:
        """This manifest, if it is the one that was confirmed by its fingerprint; else ManifestChanged."""
        if fingerprint != self.fingerprint:
            raise ManifestChanged(
                f"{self.app} lists other syscalls than those that were confirmed",
                why="its server was changed or updated, or it is not the same server",
                do="look at what it lists now and confirm it again",
                confirmed=fingerprint,
                listed=self.fingerprint,
            )
        return self


def check_names(manifests: Iterable[Manifest]) -> None:
    """ManifestError where two apps, or two syscalls of all apps together, have the same name."""
    apps = list(manifests)
    _no_twice([one.app for one in apps], "there are")
    _no_twice([call.name for one in apps for call in one.syscalls], "there are")


def _foreign(app: str, tool: Mapping[str, Any], rules: Sequence[tuple[str, Overlay]]) -> Syscall:
    name, schema = tool.get("name"), tool.get("inputSchema")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise ManifestError(
            f"{app} lists a tool called {str(name)[:80]!r}", do="names have only A-Z a-z 0-9 _ . -"
        )
    full = f"{app}.{name}"
    if (size := len(json.dumps(tool))) > MAX_TOOL_BYTES:
        raise ManifestError(f"{full} is described in {size} bytes", why=f"at most {MAX_TOOL_BYTES} are read")
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise ManifestError(f"{full} has no object schema of its parameters")
    try:
        simple = simplify(schema)
    except ManifestError as error:
        raise ManifestError(f"{full} has {error.what}", why=error.why, do=error.do) from None
    names = tuple(simple.schema.get("properties", {}))
    said = Overlay()
    for glob, rule in rules:
        if fnmatchcase(name, glob):
            said = rule
    for wanted in (*(said.targets or ()), *(said.payload or ())):
        if wanted not in names:
            raise ManifestError(
                f"{full} has no parameter {wanted!r}", do=f"it has {', '.join(names) or 'none'}"
            )
    hints = tool.get("annotations") or {}
    return Syscall(
        name=full,
        tool=name,
        description=str(tool.get("description") or ""),
        parameters={"properties": {}, **simple.schema},
        loosened=simple.loosened,
        targets=names if said.targets is None else said.targets,
        payload=names if said.payload is None else said.payload,
        effect=said.effect,
        retry=said.retry,
        returns=said.returns,
        deadline=said.deadline,
        hints={key: value for key, value in hints.items() if isinstance(value, bool)},
    )


def _overlay(app: str, glob: str, rule: str | Mapping[str, Any]) -> Overlay:
    try:
        return Overlay.model_validate({"effect": rule} if isinstance(rule, str) else dict(rule))
    except ValidationError as error:
        raise ManifestError(f"{app}: wrong effects for {glob!r}", why=explain(error)) from None


def _marked(signature: Signature, mark: str) -> tuple[str, ...]:
    marked = signature.schema.marks.get(mark, ())
    for path in marked:
        if "." in path or path not in signature.schema.schema["properties"]:
            raise ManifestError(
                f"{signature.name} marks {path or 'a nested field'!r}, which is not a parameter",
                why="the monitor looks at whole arguments",
                do="mark the parameter that holds it",
            )
    return marked


def _check_companion(signature: Signature) -> None:
    if signature.schema.schema["properties"] != {"key": {"type": "string"}}:
        raise ManifestError(f"{signature.name} is asked about a key", do="give it one parameter, `key: str`")


def _may_be_null(schema: Mapping[str, Any]) -> bool:
    if not schema or schema.get("type") == "null":
        return True
    return any(_may_be_null(one) for one in schema.get("anyOf", ()))


def _no_twice(names: Sequence[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ManifestError(f"{where} two called {name!r}", do="rename or leave out one of them")


def _hash(listed: object) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
