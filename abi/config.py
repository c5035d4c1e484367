"""The machine's configuration: what `llmos.yaml` may say, with its defaults.

What: frozen pydantic models, one a section of the file; `Config` is the whole.
Invariant: a value that is here has been checked; an unknown key, a wrong type or an impossible value never
    gets in. Every field has a default, so an empty file is a valid machine.
Interface: `Config`; `drivers.yamlfile.read` makes one from a file, `llmos.connect` from a file and overrides.
    Paths are expanded (`~`) here and made absolute, against the file's folder, by the reader.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from llmos.abi.limits import MIN_APP_BYTES, PAGE_TOKENS
from llmos.abi.mount import Mount, Trust

DEFAULT_MODEL = "qwen2.5-coder-0.5b"

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def _size(value: object) -> object:
    """Bytes from `2GiB`, `512 MiB` or a plain number; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None or match[2] not in _UNITS:
        raise PydanticCustomError("size", "expected a size like 2GiB, 512MiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2]])


def _path(value: object, info: ValidationInfo) -> object:
    """An expanded path, absolute where the context says which folder the file lies in."""
    if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
        try:
            return Path((info.context or {}).get("folder", "")) / Path(value).expanduser()
        except RuntimeError:  # ~nobody
            raise PydanticCustomError("path", "the home folder is not known") from None
    raise PydanticCustomError("path", "expected a path: a text that is not empty")


def _name(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        raise PydanticCustomError("name", "expected letters, digits, '.', '_' and '-'")
    return value


def _list_to_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _experts(value: object, info: ValidationInfo) -> object:
    """Paths of expert files; a bare name is of one that is shipped or installed, and has no path."""
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(
        _path(v, info) if isinstance(v, str) and ("/" in v or v.endswith((".yaml", ".yml"))) else _name(v)
        for v in value
    )


Bytes = Annotated[int, BeforeValidator(_size), Field(ge=0, le=1 << 50)]
FilePath = Annotated[Path, BeforeValidator(_path)]
VolumeName = Annotated[str, BeforeValidator(_name)]
Names = Annotated[tuple[str, ...], BeforeValidator(_list_to_tuple)]


class Section(BaseModel):
    """What all sections share: frozen, strict, and no key that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: object) -> object:
        """`kernel:` with every line below it commented out is an empty section."""
        return {} if value is None else value


def default_cache() -> Path:
    """Where fetched models lie: `$LLMOS_CACHE`, else the user's cache folder."""
    if folder := os.environ.get("LLMOS_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmos"


def default_state() -> Path:
    """Where volumes and other lasting state lie: `$LLMOS_STATE`, else the user's data folder."""
    if folder := os.environ.get("LLMOS_STATE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "llmos"


class MachineConfig(Section):
    """The computer: where things lie and what computes."""

    state: FilePath = Field(default_factory=default_state)
    cache: FilePath = Field(default_factory=default_cache)
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    threads: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"


class KernelConfig(Section):
    """The model and the memory that its processes share."""

    model: str = Field(default=DEFAULT_MODEL, min_length=1)
    numerics: Literal["native", "bf16", "f32"] = "native"
    pool: Annotated[Bytes, Field(ge=1 << 20)] = 1 << 30
    window: Annotated[int, Field(ge=4 * PAGE_TOKENS, le=1 << 24)] = 8192


class VolumeConfig(Section):
    """A body of documents that every process of this machine may mount by name."""

    path: FilePath
    trust: Trust = "shared"
    readers: Names | None = None

    def mount(self) -> Mount:
        """The same, as the kernel takes it."""
        readers = None if self.readers is None else frozenset(self.readers)
        return Mount(self.path, self.trust, readers)


class MemoryConfig(Section):
    """The hierarchy below the window."""

    encoder: str = Field(default="all-minilm-l6-v2", min_length=1)
    ram: Bytes = 512 << 20
    swap: Bytes = 8 << 30
    volumes: dict[VolumeName, VolumeConfig] = Field(default_factory=dict)


class AppConfig(Section):
    """An app: an installed one, a class of one's own (`app: module:Class`), or a foreign MCP server (`mcp:` a
    command, or `url:`). All other keys are `settings`, which the app checks when it starts (`llmos.abi.settings`)."""

    model_config = ConfigDict(extra="allow")

    app: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    mcp: str | None = Field(default=None, min_length=1)
    url: str | None = Field(default=None, pattern=r"^https?://")
    env: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    effects: dict[str, Any] = Field(default_factory=dict)
    stateful: bool = False
    inside: bool = False
    max_memory: Annotated[Bytes, Field(ge=MIN_APP_BYTES)] | None = None  # of each of its processes

    @model_validator(mode="after")
    def _one_source(self) -> AppConfig:
        if sum(source is not None for source in (self.app, self.mcp, self.url)) > 1:
            raise PydanticCustomError("app", "expected one of `app`, `mcp` and `url`")
        if self.settings and (self.mcp or self.url):
            raise PydanticCustomError("app", "a foreign server has no settings: give them to it by `env`")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What is said to the app itself."""
        return dict(self.model_extra or {})


class RemoteConfig(Section):
    """A model on another machine, behind an endpoint that speaks OpenAI's protocol; `url` is the protocol's root there,
    such as `https://example.org/v1`."""

    url: str = Field(pattern=r"^https?://[^\s@?#\\]+$", max_length=2048)
    model: str = ""  # what it is called there; left out: as here
    key: str | None = Field(default=None, pattern=r"^secret:[A-Za-z0-9_-]{1,64}$")
    stall: float = Field(default=60.0, gt=0, le=3600)  # seconds without a byte
    seconds: float = Field(default=600.0, gt=0, le=86400)  # for one answer in all
    retries: int = Field(default=3, ge=0, le=10)

    @model_validator(mode="after")
    def _key_in_the_clear(self) -> RemoteConfig:
        host = urlsplit(self.url).hostname or ""
        if self.key and self.url.startswith("http:") and host not in ("127.0.0.1", "::1", "localhost"):
            raise PydanticCustomError(
                "url", "expected https:// where there is a key: it would be sent in the clear"
            )
        return self


class PolicyConfig(Section):
    """What the owner allows beforehand, and who is asked about the rest."""

    ask: Literal["shell", "deny"] = "shell"
    hosts: Names = ()


class Config(Section):
    """The whole of `llmos.yaml`."""

    machine: MachineConfig = Field(default_factory=MachineConfig)
    kernel: KernelConfig = Field(default_factory=KernelConfig)
    memory: MemoryConfig = Field(default_factory=MemoryConfig)
    apps: dict[VolumeName, AppConfig | None] = Field(default_factory=dict)
    experts: Annotated[tuple[Path | str, ...], BeforeValidator(_experts)] = ()
    remotes: dict[VolumeName, RemoteConfig] = Field(default_factory=dict)
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
