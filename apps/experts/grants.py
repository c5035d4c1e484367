"""What an expert may call here, and whether somebody has agreed to it.

What: its grants meet this machine's apps: each becomes a grant of one syscall, pinned by a fingerprint of what that
    syscall may do. What was agreed to is kept; whatever is not the same is asked for again.
Invariant: a process is granted exactly the syscalls that were agreed to, so an app that has grown, an upgrade that
    widens, or another file under the same name has to ask. Narrowing asks nobody. What is shipped is agreed to when
    it first runs.
Interface: `wanted(expert, syscalls) -> Wanted…`, `Consents(shelf)`: `missing`, `agree`, `forget`; `granted(…)`;
    `lines(wanted)` to show; `syscalls(config)`, the machine's apps without a kernel.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmos.abi.entries import entries
from llmos.abi.errors import AppError
from llmos.abi.loading import GROUP
from llmos.abi.manifest import Manifest, Syscall
from llmos.apps.experts.bounds import grants_of
from llmos.apps.experts.errors import ConsentMissing, ExpertError
from llmos.apps.experts.expert import Expert
from llmos.drivers.whole import write_whole
from llmos.kernel.apphost import Entry, Ours, Stdio
from llmos.kernel.apphost.manifests import Confirmed, read_ours
from llmos.kernel.grants import Grant, check
from llmos.kernel.system import SYSTEM

if TYPE_CHECKING:
    from llmos.abi.config import Config


@dataclass(frozen=True, slots=True)
class Wanted:
    """A grant of one syscall: what it may do, and a fingerprint of that."""

    grant: str
    effect: str
    fingerprint: str
    about: str  # the first line of the syscall's description

    @property
    def syscall(self) -> str:
        return self.grant.partition("(")[0]


Consent = Callable[[Expert, Sequence[Wanted], Sequence[Wanted]], bool]
"""Whether somebody agrees: to the grants of an expert that nobody has agreed to, the others being agreed to."""


def wanted(expert: Expert, syscalls: Mapping[str, Syscall]) -> list[Wanted]:
    """The grants of an expert, one syscall each.

    Raises:
        ConfigError: a grant that no syscall of this machine answers to.
    """
    found: dict[str, Wanted] = {}
    grants = [Grant.parse(text) for text in grants_of(expert.manifest.grants)]
    check(grants, syscalls)
    for grant in grants:
        for name in sorted(syscalls):
            if grant.names(name):
                one, text = syscalls[name], str(Grant(name, grant.bindings))
                about = one.description.partition("\n")[0]
                found[text] = Wanted(text, one.effect, fingerprint(one), about)
    return list(found.values())


def fingerprint(syscall: Syscall) -> str:
    """Of all that says what a syscall may do; descriptions do not."""
    said = syscall.model_dump(mode="json", exclude={"description", "hints", "deadline", "loosened", "result"})
    said["parameters"] = _bare(said["parameters"])
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def _bare(schema: Any) -> Any:
    """A schema without its words for readers. A parameter that is called `title` is one nonetheless."""
    if isinstance(schema, list):
        return [_bare(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    bare = {
        k: _bare(v) for k, v in schema.items() if k not in ("description", "title", "examples", "properties")
    }
    if isinstance(properties := schema.get("properties"), dict):
        bare["properties"] = {name: _bare(one) for name, one in properties.items()}
    return bare


class Consents:
    """What somebody has agreed to, by the file that the expert lies in."""

    def __init__(self, state: Path) -> None:
        """`state`: of the shelf."""
        self._file = state / "consents.json"

    def agreed(self, expert: Expert) -> dict[str, str] | None:
        """Grant -> fingerprint; None where nobody was ever asked."""
        found = self._load().get(_key(expert))
        return dict(found) if isinstance(found, dict) else None

    def missing(self, expert: Expert, wants: Sequence[Wanted]) -> list[Wanted]:
        """Those of its grants that nobody has agreed to as they are now."""
        agreed = self.agreed(expert)
        if agreed is None and expert.origin == "shipped":
            return []
        return [one for one in wants if (agreed or {}).get(one.grant) != one.fingerprint]

    def agree(self, expert: Expert, wants: Sequence[Wanted]) -> None:
        """Somebody has agreed to these, and to nothing else."""
        self._save({**self._load(), _key(expert): {one.grant: one.fingerprint for one in wants}})

    def forget(self, file: Path) -> None:
        """The expert in that file is gone."""
        self._save({key: agreed for key, agreed in self._load().items() if key != str(file.absolute())})

    def move(self, old: Path, new: Path) -> None:
        """An expert lies elsewhere now, and what was agreed to holds."""
        kept = self._load()
        if (agreed := kept.pop(str(old.absolute()), None)) is not None:
            self._save({**kept, str(new.absolute()): agreed})

    def _load(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # nobody has agreed to anything, then: everybody is asked again
            return {}
        return kept if isinstance(kept, dict) else {}

    def _save(self, kept: Mapping[str, Any]) -> None:
        write_whole(self._file, json.dumps(kept, indent=1).encode(), private=True)


def granted(
    expert: Expert, syscalls: Mapping[str, Syscall], consents: Consents, consent: Consent | None = None
) -> tuple[str, ...]:
    """The grants that a process of this expert gets.

    Args:
        consent: asked about what nobody has agreed to; without one that is refused.

    Raises:
        ConsentMissing: nobody agreed.
        ConfigError: a grant that no syscall of this machine answers to.
    """
    if not expert.manifest.grants:
        return ()
    wants = wanted(expert, syscalls)
    missing = consents.missing(expert, wants)
    if missing and not (
        consent is not None and consent(expert, missing, [w for w in wants if w not in missing])
    ):
        raise ConsentMissing(
            f"nobody has agreed to what the expert {expert.name} wants",
            why="; ".join(f"{one.grant} ({one.effect})" for one in missing),
            do=f"look at it and agree: llmos expert allow {_called(expert)}",
        )
    if missing or consents.agreed(expert) is None:
        consents.agree(expert, wants)
    return tuple(one.grant for one in wants)


def lines(wants: Sequence[Wanted]) -> list[tuple[str, str, str]]:
    """(grant, effect, what it is) of each, the gravest first."""
    order = ("admin", "destroy", "pay", "send", "write", "fetch", "execute", "read", "none")
    ranked = sorted(wants, key=lambda one: (order.index(one.effect), one.grant))
    return [(one.grant, one.effect, one.about) for one in ranked]


def _key(expert: Expert) -> str:
    return str(expert.file.absolute())


def _called(expert: Expert) -> str:
    return str(expert.file) if expert.origin == "file" else expert.name


def syscalls(config: Config) -> dict[str, Syscall]:
    """Every syscall of the machine by its full name, without a kernel; broken apps have none.

    Raises:
        ExpertError: there is an event loop on this thread already.
    """
    found = {s.name: s for app in SYSTEM for s in Manifest.of(app).syscalls}
    folder = config.machine.state / "apps"
    ours, confirmed = [], Confirmed(folder)
    for name in entries(GROUP).keys() | config.apps.keys():
        entry = config.apps.get(name)
        if entry is not None and (entry.mcp or entry.url):
            foreign = Entry(
                name=name, source=Stdio(tuple(shlex.split(entry.mcp or "")), {}), effects=dict(entry.effects)
            )
            manifest = confirmed.get(foreign)
            found |= {s.name: s for s in manifest.syscalls} if manifest is not None else {}
        else:
            source = Ours(entry.app if entry is not None and entry.app is not None else name)
            ours.append(Entry(name=name, source=source))
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        read = asyncio.run(read_ours(ours, folder))
    else:
        raise ExpertError("apps are looked up on an event loop", do="look them up on a thread")
    for manifest_or_error in read.values():
        if not isinstance(manifest_or_error, AppError):
            found |= {s.name: s for s in manifest_or_error.syscalls}
    return found
