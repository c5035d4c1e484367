"""Adapters through the socket and the command line: the same as in the kernel's own process."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from llmos.abi.config import Config
from llmos.abi.errors import AdapterMismatch, ConfigError, ModelNotFound
from llmos.attach import RemoteKernel, attach
from llmos.cli import adapter as cli
from llmos.cli import ps
from llmos.drivers.weights.adapter import write_adapter
from llmos.drivers.yamlfile import check
from llmos.kernel.engine.runner import ModelRunner
from llmos.kernel.engine.scripted import byte_tokenizer, chat_template
from llmos.kernel.gate import Gate
from llmos.kernel.kernel import Kernel
from tests.kernel.tiny import CONFIG, tiny_adapter, tiny_model

WIDE = replace(CONFIG, vocab=260)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[RemoteKernel]:
    """A kernel with a tiny model behind a gate, as a client sees it."""
    machine = {"state": str(tmp_path / "machine"), "cache": str(tmp_path / "cache")}
    config = check({"machine": machine}, Config)
    runner = ModelRunner(tiny_model(WIDE), pages=40, window=256)
    with ExitStack() as stack:
        kernel = stack.enter_context(
            Kernel(config, runner, byte_tokenizer(), chat_template(), state=tmp_path / "machine" / "kernel")
        )
        stack.enter_context(Gate(kernel))
        client = attach(tmp_path / "machine")
        assert client is not None
        yield stack.enter_context(client)


def test_a_client_gives_and_takes_back(
    remote: RemoteKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(write_adapter(tiny_adapter(0, config=WIDE), tmp_path / "one").parent)
    write_adapter(tiny_adapter(1, config=WIDE, names=("q", "v")), tmp_path / "two")
    process = remote.spawn(adapter="one", expert="librarian")
    one = process.stat().adapter
    two = remote.adapters.use("librarian", "two")
    assert process.stat().adapter == two != one
    assert remote.adapters.back("librarian") == "" and process.stat().adapter == one
    assert remote.adapters.use(process.pid, two[:10]) == two
    assert remote.adapters.back(process.pid) == one
    with pytest.raises(ModelNotFound):
        remote.adapters.use("librarian", "gone")
    with pytest.raises(ConfigError, match="nothing to go back to"):
        remote.adapters.back("librarian")
    write_adapter(tiny_adapter(2, config=CONFIG, rank=2, weights="others"), tmp_path / "other")
    with pytest.raises(AdapterMismatch, match="other weights"):
        remote.spawn(adapter=tmp_path / "other")

    def said(action: str, *words: str) -> str:
        parser = argparse.ArgumentParser()
        cli.add(parser.add_subparsers())
        assert cli.run(parser.parse_args(["adapter", action, *words])) == 0
        return capsys.readouterr().out

    monkeypatch.setattr(ps, "running", lambda arguments: remote)
    monkeypatch.setattr(remote, "close", lambda: None)  # `with` leaves the connection to the fixture
    pid = str(process.pid)
    assert said("use", pid, "two") == f"{two[:12]}\n"
    listed = {a["version"]: a for a in json.loads(said("list", "--json"))["adapters"]}
    assert listed[two]["used"] == [pid] and listed[one]["used"] == [] and listed[two]["rank"] == 4
    assert two[:12] in said("list") and "USED BY" in said("list")
    assert said("use", pid, "none") == "none: the model alone\n"
    assert said("back", pid) == f"{two[:12]}\n"
    about = json.loads(said("info", "two", "--json"))
    assert (about["version"], about["matrices"], about["layers"]) == (two, ["q", "v"], 2)
    assert "matrices  q, v" in said("info", "two")
