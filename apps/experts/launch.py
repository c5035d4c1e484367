"""From an expert to a process.

What: puts together what a kernel takes: instructions, documents, agreed grants, window, sampling.
Invariant: nothing is loaded, fetched or spawned before the expert has been found whole: its documents and adapter are
    there, its model is the one that runs, its grants are agreed to.
Interface: `prepare(shelf, name, consent)`; `specialist(expert, grants, state)`; `check_base(expert, model)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmos.abi.errors import ConfigError
from llmos.abi.limits import PAGE_TOKENS
from llmos.abi.mount import Mount
from llmos.abi.specialist import Specialist
from llmos.apps.experts.errors import KnowledgeGone
from llmos.apps.experts.expert import Expert
from llmos.apps.experts.grants import Consent, Consents, granted, syscalls
from llmos.apps.experts.knowledge import allowed, fetched
from llmos.apps.experts.shelf import Shelf


def specialist(expert: Expert, grants: Sequence[str], state: Path, allow: Sequence[str] = ()) -> Specialist:
    """The expert as a kernel takes it.

    Args:
        grants: that somebody has agreed to.
        state: of the shelf; what is fetched is kept there.
        allow: addresses that may be fetched from although they are not public, as the browser has them.

    Raises:
        KnowledgeGone: its adapter, or a document that it answers from, is not there or cannot be fetched.
    """
    manifest = expert.manifest
    if manifest.adapter is not None and not Path(manifest.adapter).exists():
        raise KnowledgeGone(
            f"the expert {expert.name} has lost its adapter", why=f"there is no file {manifest.adapter}",
            do=f"put it back, or take `adapter:` out of {expert.file}",
        )  # fmt: skip
    mounts = []
    for knowledge in expert.knowledge:
        readers = None if knowledge.readers is None else frozenset(knowledge.readers)
        path = fetched(knowledge, state, allow) if knowledge.remote else Path(knowledge.path)
        if not path.exists():
            raise KnowledgeGone(
                f"the expert {expert.name} has lost what it answers from", why=f"there is nothing at {path}",
                do=f"put it back, or change `knowledge:` in {expert.file}",
            )  # fmt: skip
        mounts.append(Mount(path, knowledge.trust, readers))
    options: dict[str, Any] = {
        name: getattr(manifest.sampling, name) for name in manifest.sampling.model_fields_set
    }
    if manifest.calls == "required" and grants:
        options["tool_choice"] = "required"
    budget = manifest.window.budget
    return Specialist(
        name=expert.name,
        description=manifest.description,
        instructions=manifest.instructions.strip(),
        mounts=tuple(mounts),
        grants=tuple(grants),
        quotas={} if budget is None else {"pages": budget // PAGE_TOKENS},
        options={name: value for name, value in options.items() if value is not None},
        adapter=manifest.adapter or "",
    )


def check_base(expert: Expert, model: str) -> None:
    """ConfigError where the expert is made for another model than `model`, which runs."""
    base = expert.manifest.base
    if (
        base is None
        or base == model
        or Path(base).expanduser().resolve() == Path(model).expanduser().resolve()
    ):
        return
    raise ConfigError(
        f"the expert {expert.name} is made for {base}", why=f"this kernel runs {model}",
        do=f"run it by itself (`llmos expert run {expert.name}` with no kernel up), or take `base:` out",
        file=str(expert.file), key="base",
    )  # fmt: skip


def prepare(shelf: Shelf, name: str, consent: Consent | None) -> tuple[Expert, Specialist]:
    """The expert of that name or path, ready for a kernel of this machine.

    Args:
        consent: asked about grants that nobody has agreed to.

    Raises:
        ConfigError: there is no such expert, its file is wrong, or it wants what this machine does not have.
        ConsentMissing: nobody agreed to what it wants.
        KnowledgeGone, ExpertError: it is not whole.
    """
    expert = shelf.find(name)
    known = syscalls(shelf.config) if expert.manifest.grants else {}
    grants = granted(expert, known, Consents(shelf.state), consent)
    return expert, specialist(expert, grants, shelf.state, allowed(shelf.config))
