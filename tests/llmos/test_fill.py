"""`llmos fill`, through a gate: its cost first, then the work; what is wrong is said before any of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmos.abi.errors import ConfigError
from llmos.cli.fill import run
from llmos.cli.parser import parser
from llmos.kernel.gate import Gate
from llmos.kernel.kernel import Kernel
from tests.kernel.conftest import tiny_kernel
from tests.memory.words_encoder import WordsEncoder

__all__ = ["tiny_kernel"]

Fill = Callable[..., int]


@pytest.fixture
def kernel(tiny_kernel: Callable[..., Kernel], tmp_path: Path) -> Iterator[Kernel]:
    made = tiny_kernel(state=tmp_path / "machine" / "kernel")
    made.library.__dict__["encoder"] = WordsEncoder()
    with Gate(made):
        yield made


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    config = tmp_path / "llmos.yaml"
    config.write_text(f"machine: {{state: {tmp_path / 'machine'}}}\n")
    (tmp_path / "house").mkdir()
    for room in ("attic", "hall", "porch"):
        (tmp_path / "house" / f"{room}.md").write_text(f"# The {room}\n\nIts door is painted.\n")

    def fill(*options: str, bytes: str = "64MiB") -> int:
        mount = ("--mount", str(tmp_path / "house"))
        return run(parser().parse_args(["fill", *mount, "--bytes", bytes, "--config", str(config), *options]))

    return fill


def test_the_cost_stands_before_the_work(
    kernel: Kernel, fill: Fill, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fill("--cost") == 0
    (cost,) = capsys.readouterr().out.splitlines()
    assert cost.startswith("3 of 3 passages, ") and "0 are there" in cost
    assert kernel.blender is not None and kernel.blender.computed == 0
    assert fill() == 0
    told, done = capsys.readouterr().out.splitlines()
    assert told.partition("about")[0] == cost.partition("about")[0] and done.startswith("done after")
    assert kernel.blender.computed > 0
    assert fill("--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cost"]["stored"] == said["filled"]["stored"] == 3 and said["filled"]["missing"] == 0
    assert not kernel.ps()  # what was spawned for it is gone


def test_ctrl_c_keeps_what_is_computed(
    kernel: Kernel, fill: Fill, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmos.attach.machine import RemoteKernel

    whole = RemoteKernel.fill

    def interrupted(self: RemoteKernel, pid: int, budget: int, **given: object) -> object:
        if given.get("look"):
            return whole(self, pid, budget, look=True)
        whole(self, pid, budget // 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(RemoteKernel, "fill", interrupted)
    assert fill() == 130
    captured = capsys.readouterr()
    assert "what is computed stays" in captured.err and "Traceback" not in captured.err
    monkeypatch.undo()
    assert fill("--json") == 0
    assert json.loads(capsys.readouterr().out)["cost"]["stored"] == 3


@pytest.mark.parametrize("size", ["", "much", "-3", "10 parsecs", "1e99GiB"])
def test_what_is_no_size(fill: Fill, size: str) -> None:
    with pytest.raises(ConfigError, match="is no size"):
        fill(f"--bytes={size}")


def test_it_needs_a_kernel_that_runs(fill: Fill) -> None:
    with pytest.raises(ConfigError, match="no kernel runs"):
        fill()


def test_a_budget_without_room(kernel: Kernel, fill: Fill) -> None:
    with pytest.raises(ConfigError, match="no passage"):
        fill(bytes="12")
    with pytest.raises(ConfigError, match="more than the page store holds"):
        fill(bytes="1000GiB")
    assert not kernel.ps()
