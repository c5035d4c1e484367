"""A new expert file: drafted from a few answers.

What: asks what an expert is for, what it answers from and what it may call, and writes the file, with comments.
Invariant: the draft is a valid expert file, whatever was answered; a file that is there is not touched.
Interface: `Draft`, `.text()`; `ask(draft, apps, say, read)` fills in what is not given; `write(draft, file)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmos.abi.errors import ConfigError
from llmos.apps.experts.errors import ExpertError
from llmos.apps.experts.manifest import Manifest
from llmos.drivers.yamlfile import parse

DEFAULT_INSTRUCTIONS = "Answer briefly and exactly. If you do not know, say so."
GROUNDED_INSTRUCTIONS = "Answer the user's question from the documents given. Answer in one sentence."


@dataclass(frozen=True, slots=True)
class Draft:
    """What a new expert begins with; `knowledge` are (path, trust)."""

    name: str
    description: str = ""
    instructions: str = ""
    knowledge: tuple[tuple[str, str], ...] = ()
    grants: tuple[str, ...] = ()
    extends: str = ""
    base: str = ""
    tests: tuple[tuple[str, str], ...] = field(default=())  # (question, what its answer contains)

    def text(self) -> str:
        """The file. ConfigError: what was given makes no expert."""
        quoted = json.dumps
        told = self.instructions.strip() or (
            GROUNDED_INSTRUCTIONS if self.knowledge else DEFAULT_INSTRUCTIONS
        )
        lines = [
            f"# An expert of llmos: run it with `llmos expert run ./{self.name}.yaml`; check it with `… validate`.",
            f"expert: {quoted(self.name, ensure_ascii=False)}",
            "version: 0.1.0",
            f"description: {quoted(self.description or self.name, ensure_ascii=False)}",
            *([f"base: {quoted(self.base, ensure_ascii=False)}"] if self.base else []),
            *([f"extends: {quoted(self.extends, ensure_ascii=False)}"] if self.extends else []),
            "instructions: |",
            *(f"  {line}".rstrip() for line in told.splitlines()),
            "# trust: mine for your own words, shared (the default) for anybody's",
            "knowledge:" + ("" if self.knowledge else " []"),
            *(
                f"  - {{path: {quoted(path, ensure_ascii=False)}, trust: {trust}}}"
                for path, trust in self.knowledge
            ),
            "# what it may call, and nothing else: `llmos app list` shows what there is",
            "grants:" + ("" if self.grants else " {}"),
            *(f"  {quoted(grant, ensure_ascii=False)}:" for grant in self.grants),
            "sampling: {temperature: 0.0, max_tokens: 400}",
            "# `llmos expert test` asks these; also: refuses, cites, calls, matches, json, seeds",
            "tests:" + ("" if self.tests else " []"),
        ]
        for question, contains in self.tests:
            lines.append(f"  - ask: {quoted(question, ensure_ascii=False)}")
            lines.append(f"    expect: {{contains: {quoted(contains, ensure_ascii=False)}}}")
        text = "\n".join(lines) + "\n"
        parse(text, Manifest, file=f"{self.name}.yaml")
        return text


def ask(
    draft: Draft, apps: Mapping[str, str], say: Callable[[str], None], read: Callable[[str], str]
) -> Draft:
    """The draft with what a person answers for all that is not given; an empty answer leaves it out.

    Args:
        apps: name -> what it is for, of those that can be granted.
        read: shows a prompt and gives the answer; EOFError ends the questions.
    """
    try:
        if not draft.description:
            draft = replace(draft, description=read("What is it for, in a sentence? ").strip())
        if not draft.instructions:
            draft = replace(
                draft, instructions=read("How should it answer? (empty: briefly and exactly) ").strip()
            )
        while not draft.knowledge or draft.knowledge[-1][0] != "":
            path = read("A file or folder that it answers from (empty: no more): ").strip()
            if path and not Path(path).expanduser().exists():
                say(f"  There is nothing at {path}.")
                continue
            trust = path and read("  Whose words are these: mine, or anybody's (shared)? [shared] ").strip()
            draft = replace(
                draft, knowledge=(*draft.knowledge, (path, "mine" if trust == "mine" else "shared"))
            )
        draft = replace(draft, knowledge=draft.knowledge[:-1])
        if not draft.grants and apps:
            say("It may call nothing but what you name. There is:")
            for name, about in sorted(apps.items()):
                say(f"  {name:<14} {about}")
            named = read("What may it call? (names, with blanks between; empty: nothing) ").split()
            draft = replace(draft, grants=tuple(name if "." in name else f"{name}.*" for name in named))
        while question := read("A question that it must be able to answer (empty: no more): ").strip():
            if contains := read("  What must the answer contain? ").strip():
                draft = replace(draft, tests=(*draft.tests, (question, contains)))
    except EOFError:
        draft = replace(draft, knowledge=tuple(k for k in draft.knowledge if k[0]))
    return draft


def write(draft: Draft, file: Path) -> Path:
    """Write the draft. ExpertError: there is a file already; ConfigError: it makes no expert."""
    text = draft.text()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise ExpertError(
            f"{file} is there already", why="nothing is overwritten", do="choose another name, or edit it"
        ) from None
    except OSError as error:
        raise ConfigError("cannot be written", why=error.strerror or str(error), file=str(file)) from None
    return file
