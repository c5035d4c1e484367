"""Checks of what an app declares: its schema, its effects, its labels.

What: what can be read off the manifest, and what a call is seen to do beyond its declaration.
Invariant: a check yields findings and raises nothing but AppErrors of ours.
Interface: `schema`, `effects`, `labels`, each from a `Subject` to findings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from llmos.conformance.findings import Finding, advice, fault
from llmos.conformance.subject import PATIENCE, Subject
from llmos.kernel.apphost.manifests import app_environment

MAX_DESCRIPTION = (
    1_500  # characters of a syscall and its schema: each stands in every window that it is granted to
)
LEAVES = frozenset({"fetch", "send", "pay", "admin"})  # effects by which something leaves the machine

_ALLOWED = {  # what a call may be seen to do, by its effect; the effects that are missing may do anything
    "none": frozenset[str](), "read": frozenset({"programs"}), "execute": frozenset({"programs", "writes"}),
    "fetch": frozenset({"network", "programs", "writes"}), "write": frozenset({"programs", "writes"}),
}  # fmt: skip
_TRUE = {"writes": "write", "network": "fetch (or send)", "programs": "execute"}
_DID = {"writes": "writes to", "network": "reaches out to", "programs": "starts"}


def schema(subject: Subject) -> Iterator[Finding]:
    """The manifest can be read, its schemas compile in the grammar, and what a model reads says something."""
    from llguidance import LLMatcher

    manifest = subject.manifest
    if not manifest.doc:
        yield fault("", "the app has no docstring", "say what it is for")
    if not manifest.syscalls:
        yield fault("", "the app has no syscalls", "mark its methods with @syscall")
    for one in manifest.syscalls:
        grammar = LLMatcher.grammar_from_json_schema(json.dumps(one.parameters))
        if complaint := LLMatcher.validate_grammar(grammar):
            yield fault(one.name, f"its schema does not compile: {complaint[:200]}", "use plainer types")
        for path in one.loosened:
            yield advice(one.name, f"the grammar cannot keep a model to {path}", "use a plainer type")
        size = len(one.description) + len(json.dumps(one.parameters))
        if size > MAX_DESCRIPTION:
            yield advice(one.name, f"{size} characters describe it", f"{MAX_DESCRIPTION} should do")
        for name, part in one.parameters.get("properties", {}).items():
            if len(name) < 2 and "description" not in part:
                yield advice(one.name, f"nothing says what {name!r} is", "annotate it with words")


def effects(subject: Subject) -> Iterator[Finding]:
    """A call does no more to the world than its effect says: by Python's audit hook, and in the working volume."""
    told = _watched(subject)
    for one in subject.called:
        allowed = _ALLOWED.get(one.effect)
        if allowed is None:
            continue
        declared, seen = f"is declared effect={one.effect!r}", told.get(one.name, ())
        for what, place in seen:
            if what not in allowed:
                yield fault(
                    one.name, f"{declared}, and {_DID[what]} {place}", f"declare effect={_TRUE[what]}"
                )
        if "writes" not in allowed and not any(what == "writes" for what, _ in seen):
            before = subject.files()
            for arguments in subject.cases(one):
                subject.call(one, arguments)
            if subject.files() != before:
                yield fault(one.name, f"{declared}, and changed the working volume", 'declare effect="write"')


def _watched(subject: Subject) -> dict[str, list[tuple[str, str]]]:
    """What each syscall was seen to do, in a process that is watched."""
    calls: list[dict[str, Any]] = []
    for one in subject.called:
        for n, arguments in enumerate(subject.cases(one)):
            meta = {"pid": 1, "key": f"watch-{one.name}-{n}", "volume": str(subject.volume)}
            call = {"syscall": one.name, "arguments": arguments, "seconds": one.deadline}
            calls.append({**call, "meta": {**meta, "secrets": subject.secrets}})
    with tempfile.TemporaryDirectory(prefix="llmos-watch-") as folder:
        environment = {**os.environ, **app_environment(), "TMPDIR": folder}
        program = [sys.executable, "-m", "llmos.conformance.watch", subject.app]
        patience = PATIENCE + sum(float(call["seconds"]) for call in calls)
        given = json.dumps(calls).encode()
        try:
            done = subprocess.run(
                program, input=given, env=environment, capture_output=True, check=False, timeout=patience
            )
            told = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            return {}  # it took its process along: other checks find that
    found: dict[str, list[tuple[str, str]]] = {}
    for call, seen in zip(calls, told, strict=False):
        known = found.setdefault(str(call["syscall"]), [])
        known += [(what, place) for what, place in seen if (what, place) not in known]
    return found


def labels(subject: Subject) -> Iterator[Finding]:
    """What comes from outside is not called the user's word, what leaves has a target, and no secret is told."""
    for one in subject.manifest.syscalls:
        properties = one.parameters.get("properties", {}).items()
        texts = [name for name, part in properties if part.get("type") in ("string", "array", None)]
        says = f"has effect={one.effect!r}"
        if one.effect in ("read", "execute", "fetch") and one.returns == "user":
            tell = fault if one.effect == "fetch" else advice
            yield tell(one.name, f'{says} and returns="user"', 'say at most "store", or nothing: untrusted')
        # What is fetched by a payload alone comes from a place of the app's own.
        open_ = [name for name in texts if one.effect != "fetch" or name not in one.payload]
        if one.effect in LEAVES and not one.targets and open_:
            yield fault(
                one.name,
                f"{says} and no target: nobody is asked, whatever {open_[0]!r} says",
                f"mark what decides where it goes: `{open_[0]}: Annotated[str, Target]`; what always goes to one place "
                "is a `Payload`",
            )
        if one.effect in ("write", "destroy") and not one.targets and texts:
            yield advice(one.name, f"{says} and no target", "mark the argument that decides what is changed")
    if not subject.secrets:
        return
    for one in subject.called:
        for given in subject.cases(one):
            text = subject.call(one, given).text
            for name, value in subject.secrets.items():
                if value in text:
                    yield fault(one.name, f"tells the secret {name!r}", "never return or raise it")
