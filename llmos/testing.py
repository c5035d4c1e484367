"""For authors of apps: a kernel whose model says what a test tells it, and the checks that every app has to pass.

What: a pytest fixture, and a test made of the conformance suite. Everything but the model is real: grammar, monitor,
    journal, app processes.
Invariant: no weights, no jax, no state outside of the test's temporary folder; models that apps use are the machine's.
Interface: the fixture `scripted_kernel(script, apps=…, ask=…)`, and `call(syscall, **arguments)`; enable the fixture by
    `pytest_plugins = ["llmos.testing"]` in your conftest. `conformance(app, …)` is a test, one case for each check:

    test_it_conforms = conformance("my_package:MyApp", examples={"myapp.add": {"note": "milk"}})

    def test_my_app(scripted_kernel):
        def script(window):
            return "Done." if "1.25" in window else call("rates.rate", base="EUR", quote="USD")

        kernel = scripted_kernel(script)
        turn = kernel.spawn(grants=["rates"]).ask("What is a euro?")
        assert [e.ok for e in turn if isinstance(e, Result)] == [True]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config, PolicyConfig
from llmos.conformance import CHECKS, QUIET, Examples, Report, examine
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.scripted import Script, ScriptedRunner, byte_tokenizer, call, chat_template
from llmos.kernel.kernel import Asker, Kernel
from llmos.kernel.trace import OFF, Trace

__all__ = ["call", "conformance", "scripted_kernel"]

Make = Callable[..., Kernel]


@pytest.fixture
def scripted_kernel(tmp_path: Path) -> Iterator[Make]:
    """Makes kernels: `script` maps a window's text to the answer; `apps` is the section of llmos.yaml; `ask`
    approves what the monitor asks about; `state` is the journal's folder, for kernels that are to be booted again;
    further keywords go to `ScriptedRunner`."""
    with ExitStack() as kernels:

        def make(
            script: Script,
            *,
            apps: Mapping[str, Any] | None = None,
            hosts: tuple[str, ...] = (),
            ask: Asker | None = None,
            state: Path | None = None,
            trace: Trace = OFF,
            **runner: Any,
        ) -> Kernel:
            machine = {"state": str(tmp_path / "machine")}
            config = check({"machine": machine, "apps": dict(apps or {})}, Config)
            config = config.model_copy(update={"policy": PolicyConfig(hosts=hosts)})
            kernel = Kernel(
                config,
                ScriptedRunner(script, **runner),
                byte_tokenizer(),
                chat_template(),
                state=state,
                asker=ask,
                trace=trace,
            )
            return kernels.enter_context(kernel)

        yield make


def conformance(
    app: str, *, examples: Examples | None = None, effects: Iterable[str] = QUIET
) -> Callable[[str], None]:
    """A pytest test of an app, one case for each check of the suite: bind it to a name that begins with `test_`.

    Args:
        app: the name of an installed app, or `module:Class`.
        examples: full name of a syscall -> arguments to call it with, or several.
        effects: which syscalls may be called with made-up arguments too.
    """

    @cache
    def report() -> Report:
        return examine(app, examples=examples, effects=effects)

    @pytest.mark.parametrize("check", CHECKS)
    def test(check: str) -> None:
        faults = [one for one in report().faults if one.check == check]
        assert not faults, "\n".join(map(str, faults))

    return test
