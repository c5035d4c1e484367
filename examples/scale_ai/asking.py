"""Asking: processes of experts that are asked once, and again with other random bits until nothing speaks against it.

What: what an expert calls for, what it reads from a text, a page that it opens; each by a process of its own.
Invariant: an answer is taken as it is or asked for again, never mended; `again` counts how often. At most `TRIES`.
Interface: `Asking(kernel, shelf, work, seed, say)`: `tried`, `called`, `read`, `read_twice`, `opened`, `file`;
    `with_grants(grants)`, `experts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from examples.scale_ai.table import objections
from llmos.abi.errors import AnswerCut
from llmos.abi.events import Call, Result
from llmos.abi.labels import UNTRUSTED
from llmos.abi.machine import AnyProcess, Machine
from llmos.abi.specialist import Specialist
from llmos.apps.experts.launch import prepare
from llmos.apps.experts.shelf import Shelf

TRIES = 8
TEMPERATURE = 0.3  # so that another seed may say something else
T = TypeVar("T")


class Asking:
    """Asks on behalf of one conversation; `work` is the folder that its processes share."""

    def __init__(
        self, kernel: Machine, shelf: Shelf, work: Path, seed: int, say: Callable[[str], None]
    ) -> None:
        self._kernel, self._work, self._say = kernel, work, say
        self._seeds: Iterator[int] = count(seed * 1000)
        self.experts = {
            name: prepare(shelf, name, None)[1]
            for name in ("researcher", "librarian", "assistant", "analyst")
        }
        self.again = 0  # answers that had to be asked for again

    def tried(self, ask: Callable[[int], T], wrong: Callable[[T], str]) -> T:
        """The first answer that nothing speaks against.

        Raises:
            AnswerCut: there was none.
        """
        problem = ""
        for _ in range(TRIES):
            try:
                answer = ask(next(self._seeds))
                problem = wrong(answer)
                if not problem:
                    return answer
            except (AnswerCut, ValueError, LookupError) as error:
                problem = str(error)
            self.again += 1
            self._say(f"  (again: {problem})")
        raise AnswerCut(
            f"no answer held against the data in {TRIES} tries",
            why=problem,
            do="try another seed or a larger model",
        )

    def called(self, expert: Specialist, asked: str, seed: int) -> list[tuple[Call, Result]]:
        """What the expert calls for first, with what came of it; nothing more is waited for."""
        options = expert.asked(seed=seed, temperature=TEMPERATURE, tool_choice="required")
        process: AnyProcess = expert.spawn(self._kernel, work=self._work)
        calls: dict[int, Call] = {}
        results: list[tuple[Call, Result]] = []
        try:
            turn = process.ask(asked, **options)
            for event in turn:
                if isinstance(event, Call):
                    calls[event.number] = event
                elif isinstance(event, Result):
                    results.append((calls[event.number], event))
                    if len(results) == len(calls):
                        break
        finally:
            process.close()
        for call, _ in results:
            self._say(f"  {call.syscall} {_brief(call.arguments)}")
        return results

    def file(self, results: Sequence[tuple[Call, Result]]) -> Path | None:
        """The first picture among results."""
        names = [name for _, result in results for name in result.files if name.endswith(".png")]
        return self._work / names[0] if names else None

    def read(self, asked: str, form: Any, seed: int) -> Any:
        """An answer of that type from text that somebody else wrote."""
        librarian = self.experts["librarian"]
        process = librarian.spawn(self._kernel)
        try:
            options = librarian.asked(seed=seed, temperature=TEMPERATURE, max_tokens=400)
            return process.ask(asked, returns=form, label=UNTRUSTED, **options).value
        finally:
            process.close()

    def read_twice(self, asked: str, form: type[BaseModel], page: str) -> Mapping[str, str]:
        """What two readings of a page agree on."""
        seen: list[Mapping[str, str]] = []

        def read(seed: int) -> Mapping[str, str]:
            seen.append(self.read(asked, form, seed).model_dump())
            return seen[-1]

        def wrong(row: Mapping[str, str]) -> str:
            return objections(row, page) or ("" if row in seen[:-1] else "it was read otherwise before")

        read(next(self._seeds))
        return self.tried(read, wrong)

    def opened(self, url: str) -> str:
        """A page, opened by the researcher."""
        researcher = self.experts["researcher"]

        def opened(seed: int) -> str:
            results = self.called(researcher, f"Open {url} and read it.", seed)
            return next((r.text for call, r in results if r.ok and call.arguments.get("url") == url), "")

        return self.tried(opened, lambda page: "" if page else f"{url} was not opened")


def with_grants(grants: Sequence[str]) -> Specialist:
    """Nobody in particular, with these grants."""
    return Specialist(grants=tuple(grants), options={"max_tokens": 600, "tool_choice": "required"})


def _brief(arguments: Mapping[str, object]) -> str:
    text = json.dumps(arguments, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:200]}…"
