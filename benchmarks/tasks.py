"""Tasks for apps, asked as people ask: how many the default model gets done.

What: each task is asked of a process that has the one app it is about: `success`, `success.<app>`, with a 95 % interval
    (Wilson) in `success_low` and `success_high`. `among_all`, `among_all.<app>`: the same where every app is granted at
    once. `called` and `called_among_all` are the shares of the tasks that made a call at all.
Invariant: the default model, greedy, through the real path: grammar, monitor, apps in processes of their own, real
    Chromium, sandbox and speech models. What the monitor asks is approved: whoever put the task wants it done. Figures
    come from the half that nothing was chosen on; `--quick` asks one task of each app of the other half, one app
    granted.
Interface: `run(quick, progress)`; `attempt(kernel, tasks, apps, site) -> Iterator[Attempt]` and `served(config)`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby, islice
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.bfcl import wilson
from benchmarks.figures import Figures, Progress
from benchmarks.tasks_set import Task, site, tasks
from llmos import connect
from llmos.abi.config import AppConfig, Config
from llmos.abi.errors import LLMOSError
from llmos.abi.events import Call, Result
from llmos.connect import load_config
from llmos.kernel.kernel import Kernel

LONGEST = 400  # tokens of an answer with its calls: a short program fits
TOGETHER = 3  # tasks at a time
WINDOW, POOL = 8192, "1GiB"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a task: its calls with their results, the answer, and what was wrong with it."""

    task: Task
    calls: tuple[tuple[Call, str], ...]
    answer: str
    wrong: str


def run(quick: bool, progress: Progress) -> Figures:
    """See the module."""
    asked = tasks("tuning" if quick else "published")
    apps = list(dict.fromkeys(task.app for task in asked))
    if quick:
        asked = [next(task for task in asked if task.app == app) for app in apps]
    values: dict[str, float] = {}
    with (
        served(load_config(window=WINDOW, pool=POOL)) as (config, address),
        connect(config, attach=False, asker=lambda _: True) as kernel,
    ):
        for key, suffix in (("success", ""),) if quick else (("success", ""), ("among_all", "_among_all")):
            done: list[Attempt] = []
            for _, group in groupby(asked, key=lambda task: task.app):
                own = list(group)
                for one in attempt(kernel, own, apps if suffix else [own[0].app], address):
                    done.append(one)
                    calls = "; ".join(f"{c.syscall}{dict(c.arguments)}" for c, _ in one.calls)
                    verdict = f"lacks {one.wrong}" if one.wrong else "right"
                    progress(f"{key} {one.task.id}: {verdict}: {one.answer!r} [{calls}]"[:400])
            for app in apps:
                values[f"{key}.{app}"] = _share([one for one in done if one.task.app == app])
            values[key] = _share(done)
            low, high = wilson(sum(not one.wrong for one in done), len(done))
            values[f"{key}_low"], values[f"{key}_high"] = low, high
            values[f"called{suffix}"] = sum(bool(one.calls) for one in done) / len(done)
        model = kernel.config.kernel.model
    half = "tuning" if quick else "published"
    return Figures(values, (model,), (f"{len(asked)} tasks for {len(apps)} apps, of the {half} half",))


def _share(done: Sequence[Attempt]) -> float:
    return sum(not one.wrong for one in done) / len(done)


def attempt(kernel: Kernel, asked: Sequence[Task], apps: Sequence[str], address: str) -> Iterator[Attempt]:
    """Each task by a new process with these apps, a few at a time; `address` is where the pages are."""
    rest = iter(asked)
    while group := list(islice(rest, TOGETHER)):
        with tempfile.TemporaryDirectory() as made:
            begun = []
            for task in group:
                folder = Path(made, task.name)
                folder.mkdir()
                before = task.lay(folder)
                process = kernel.spawn(grants=apps, work=folder, priority="batch")
                question = task.ask.replace("{site}", address)
                turn = process.ask(question, max_tokens=LONGEST, detached=True)
                begun.append((task, folder, before, process, turn))
            for task, folder, before, process, turn in begun:
                calls: dict[int, Call] = {}
                results: dict[int, str] = {}
                answer, wrong = "", ""
                try:
                    for event in turn:
                        if isinstance(event, Call):
                            calls[event.number] = event
                        elif isinstance(event, Result):
                            results[event.number] = event.text
                    answer = turn.answer
                except LLMOSError as error:  # a turn that fails is a task that is not done
                    wrong = str(error)
                process.close()
                wrong = wrong or task.wrong(answer, folder, before)
                yield Attempt(task, tuple((c, results.get(n, "")) for n, c in calls.items()), answer, wrong)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody reads it."""


@contextmanager
def served(config: Config) -> Iterator[tuple[Config, str]]:
    """The pages of the tasks on this machine, the configuration by which the browser reaches them and searches them,
    and their address."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in site().items():
            title = text.partition("<h1")[2].partition(">")[2].partition("</h1>")[0]
            Path(folder, name).write_text(
                f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>{text}</html>',
                encoding="utf-8",
            )
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
            place = f"127.0.0.1:{server.server_port}"
            thread = Thread(target=server.serve_forever, daemon=True)
            thread.start()
            here = {"allow": [place], "search": "index", "index": folder, "base": f"http://{place}/"}
            browser = AppConfig.model_validate(here)
            try:
                yield (
                    config.model_copy(update={"apps": {**config.apps, "browser": browser}}),
                    f"http://{place}",
                )
            finally:
                server.shutdown()
                thread.join()
