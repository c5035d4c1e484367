"""What an expert file may say.

What: frozen pydantic models of the file, and how a file that extends another is laid over it.
Invariant: what is here has been checked: names, versions, bounds of grants, and that a test expects something. An
    unknown key is an error of `drivers.yamlfile`, which names file, line and the nearest key.
Interface: `Manifest`, `laid_over(child, parent)`, `schema()` for editors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from llmos.abi.config import Section
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.mount import Trust
from llmos.apps.experts.bounds import Bounds, check_bounds, check_grant, check_pattern

NAME = r"^[a-z][a-z0-9-]{0,62}$"
VERSION = r"^\d{1,6}\.\d{1,6}\.\d{1,6}$"
REFRESH_S = {"never": None, "hourly": 3600, "daily": 86400, "weekly": 7 * 86400, "monthly": 30 * 86400}


def _one_or_more(value: object) -> object:
    """A text alone is a list of one."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _seeds(value: object) -> object:
    """`3` means the seeds 0, 1 and 2."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 100:
        return tuple(range(value))
    return _tuple(value)


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise PydanticCustomError(
            "regex", "expected a regular expression ({why})", {"why": str(error)}
        ) from None
    return value


def _budget(value: str | int) -> str | int:
    from llmos.abi.errors import ConfigError
    from llmos.kernel.think.budget import Budget

    try:
        Budget.of(value)
    except ConfigError as error:
        raise PydanticCustomError(
            "budget", "expected a time (30s), a multiple (8x) or tokens: {why}", {"why": error.why}
        ) from None
    return value


def _plain(value: str) -> str:
    if "\0" in value or not value.strip():
        raise PydanticCustomError("path", "expected a path or an address")
    return value


Texts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more)]
Patterns = Annotated[tuple[Annotated[str, AfterValidator(_regex)], ...], BeforeValidator(_one_or_more)]
Place = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_plain)]
Places = Annotated[tuple[Place, ...], BeforeValidator(_one_or_more)]
Seed = Annotated[int, Field(ge=0, lt=1 << 32)]


class Knowledge(Section):
    """Documents that the expert answers from: a file or folder beside it, or an address that is fetched."""

    path: Place
    trust: Trust = "shared"
    readers: Annotated[tuple[str, ...], BeforeValidator(_tuple)] | None = None
    refresh: Literal["never", "hourly", "daily", "weekly", "monthly"] = "never"

    @property
    def remote(self) -> bool:
        """Whether it has to be fetched."""
        return self.path.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _refreshable(self) -> Knowledge:
        if self.refresh != "never" and not self.remote:
            raise PydanticCustomError("refresh", "expected an address (https://…) where `refresh` is given")
        if self.remote and self.trust == "mine":
            raise PydanticCustomError("trust", "expected `trust: shared`: what is fetched is not your words")
        return self


class Sampling(Section):
    """How its answers are drawn; what is left out is the kernel's default."""

    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, strict=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=False)] | None = None
    seed: Seed | None = None
    stop: Texts | None = None
    think: Annotated[str | int, AfterValidator(_budget)] | None = None  # before it answers: 30s, 8x, 4000


class WindowBudget(Section):
    """How much of the machine's window it may fill."""

    budget: Annotated[int, Field(ge=4 * PAGE_TOKENS, le=1 << 24)] | None = None


class Expect(Section):
    """What a test's answer has to be; all that is given must hold, for every seed."""

    contains: Texts = ()
    excludes: Texts = ()
    matches: Patterns = ()
    cites: Texts = ()
    calls: Texts | None = None
    refuses: bool | None = None
    json_: Any = Field(default=None, alias="json")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=100), BeforeValidator(_seeds)] = (0,)

    @model_validator(mode="after")
    def _something(self) -> Expect:
        if not self.model_fields_set - {"seeds"}:
            raise PydanticCustomError("expect", "expected at least one thing that the answer has to be")
        for pattern in self.calls or ():
            check_grant(pattern)
        return self


class Case(Section):
    """A test: a question, what is within reach for it alone (documents, files of its working volume, a folder that is
    the web), and what its answer has to be. `{site}` in the question is where the folder is served."""

    ask: str = Field(min_length=1)
    mounts: Places = ()
    files: Places = ()
    site: Place | None = None
    expect: Expect


class Manifest(Section):
    """The whole of an expert file."""

    expert: str = Field(pattern=NAME)
    version: str = Field(default="0.1.0", pattern=VERSION)
    description: str = Field(min_length=1, max_length=500)
    base: str | None = Field(default=None, min_length=1)
    adapter: Place | None = None
    instructions: str = ""
    knowledge: Annotated[tuple[Knowledge, ...], BeforeValidator(_tuple)] = ()
    extends: Place | None = None
    grants: dict[
        Annotated[str, AfterValidator(check_pattern)], Annotated[Bounds, AfterValidator(check_bounds)] | None
    ] = Field(default_factory=dict)
    calls: Literal["auto", "required"] = "auto"  # required: every answer begins with a call
    sampling: Sampling = Field(default_factory=Sampling)
    window: WindowBudget = Field(default_factory=WindowBudget)
    starters: Texts = ()
    tests: Annotated[tuple[Case, ...], BeforeValidator(_tuple)] = ()


def laid_over(child: Manifest, parent: Manifest) -> Manifest:
    """`child`, which extends `parent`: instructions, knowledge and grants are added to the parent's, a grant of the
    same syscall takes its place, single values win where they are given. Tests are each expert's own."""
    same_base = child.base in (None, parent.base)
    return child.model_copy(
        update={
            "extends": None,
            "base": child.base or parent.base,
            "adapter": child.adapter or (parent.adapter if same_base else None),
            "instructions": "\n\n".join(
                filter(None, (parent.instructions.strip(), child.instructions.strip()))
            ),
            "knowledge": (*parent.knowledge, *child.knowledge),
            "grants": {**parent.grants, **child.grants},
            "calls": child.calls if "calls" in child.model_fields_set else parent.calls,
            "sampling": parent.sampling.model_copy(update=_given(child.sampling)),
            "window": parent.window.model_copy(update=_given(child.window)),
            "starters": child.starters or parent.starters,
        }
    )


def _given(section: Section) -> dict[str, Any]:
    return {name: getattr(section, name) for name in section.model_fields_set}


def schema() -> dict[str, Any]:
    """The JSON schema of an expert file, for editors."""
    made = Manifest.model_json_schema(by_alias=True)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "An llmos expert"
    definitions = made["$defs"]
    for name, fields in {
        "Expect": ("contains", "excludes", "matches", "cites", "calls", "seeds"),
        "Case": ("mounts", "files"),
        "Sampling": ("stop",),
    }.items():
        for key in fields:
            definitions[name]["properties"][key] = _shorthand(definitions[name]["properties"][key], key)
    made["properties"]["starters"] = _shorthand(made["properties"]["starters"], "starters")
    return made


def _shorthand(listed: dict[str, Any], key: str) -> dict[str, Any]:
    """A list, or the one value that may stand in its place."""
    short = (
        {"type": "integer", "minimum": 1, "maximum": 100}
        if key == "seeds"
        else {"type": "string", "minLength": 1}
    )
    return {"anyOf": [short, listed]}
