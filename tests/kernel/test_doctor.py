"""What the doctor says of model, memory, journal, kernel, secrets and apps, each against the real thing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.config import Config
from llmos.drivers import doctor as machine
from llmos.drivers.doctor import Finding
from llmos.drivers.yamlfile import check
from llmos.kernel.doctor import examine
from llmos.kernel.journal import Journal
from llmos.kernel.journal.records import Booted
from llmos.kernel.model.config import ModelConfig

CACHE = Config().machine.cache


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network has its own test; here nobody answers, at once."""
    monkeypatch.setattr(machine, "_reached", lambda urls: ["no answer"] * len(urls))


def look(tmp_path: Path, deep: bool = False, cache: Path = CACHE, **sections: Any) -> dict[str, Finding]:
    where = {"state": str(tmp_path / "state"), "cache": str(cache)}
    config = check({"machine": where, **sections}, Config)
    return {f.part: f for _, findings in examine(config, deep=deep) for f in findings}


def wanting(found: dict[str, Finding]) -> set[str]:
    return {part for part, f in found.items() if f.needed and not f.ok}


def test_the_memory_plan(tmp_path: Path, weights_path: Callable[[str], Path]) -> None:
    path = weights_path("smollm2-135m")
    found = look(tmp_path, kernel={"model": "smollm2-135m", "pool": "64MiB", "window": 1024})
    assert found["model"].ok and not wanting(found)
    from llmos.drivers.weights import find, open_weights

    weights = open_weights(find(str(path)))
    model = ModelConfig.from_metadata("gguf", weights.metadata, weights.tensors)
    window = 1024 * model.layers * model.kv_heads * model.head_dim * 2 * 2
    for part in (
        f"weights {machine.size(path.stat().st_size)}",
        "pool 64.0 MiB",
        f"1,024 tokens {machine.size(window)}",
    ):
        assert part in found["memory"].says
    small = look(tmp_path, kernel={"model": "smollm2-135m", "pool": "8MiB", "window": 8192})
    assert wanting(small) == {"memory"} and "less than one window" in small["memory"].says
    large = look(tmp_path, kernel={"model": "smollm2-135m", "pool": "900TiB"})
    assert wanting(large) == {"memory"} and "lower `kernel.pool`" in large["memory"].do


def test_the_pool_is_reckoned_as_the_engine_reckons_it(weights_path: Callable[[str], Path]) -> None:
    from llmos.drivers.weights import find, open_weights
    from llmos.kernel.doctor import _weigh
    from llmos.kernel.engine.runner import ModelRunner
    from llmos.kernel.model.load import load_model

    files = find(str(weights_path("smollm2-135m")))
    model = load_model(open_weights(files), mode="native", window=256)
    assert _weigh(files, "native")[1] * 16 == ModelRunner.page_bytes(model, 16)


def test_no_model_and_nobody_to_get_it_from(tmp_path: Path) -> None:
    found = look(tmp_path, cache=tmp_path / "cache")
    assert "llmos models pull" in found["model"].do
    assert wanting(found) == {"Hugging Face hub", "package index"}
    assert wanting(look(tmp_path, kernel={"model": "/no/such.gguf"})) >= {"model"}


def test_the_journal_and_its_kernel(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "kernel"
    assert look(tmp_path)["journal"].says == "none yet"
    with Journal.open(folder) as journal:
        journal.wait(journal.append(0, Booted("1", "x")))
        found = look(tmp_path)
        assert found["kernel"].says == f"runs as process {os.getpid()}"
        assert found["journal"].ok and "1 records" in found["journal"].says
    assert "none runs" in look(tmp_path)["kernel"].says
    with sqlite3.connect(folder / "journal.sqlite") as database:
        database.execute("UPDATE records SET body = x'00'")
    database.close()
    found = look(tmp_path, deep=True)
    assert not found["journal"].ok and "damaged" in found["journal"].says
    assert "journal" not in wanting(found), "the next boot mends it"


def test_damage_is_found_by_hashing_and_only_then(
    tmp_path: Path, weights_path: Callable[[str], Path]
) -> None:
    from llmos.drivers.weights.catalogue import catalogue

    entry = catalogue()["smollm2-135m"]
    cache = tmp_path / "cache"
    file = cache / "models" / entry.name / entry.file
    file.parent.mkdir(parents=True)
    data = bytearray(weights_path(entry.name).read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    sections = {"kernel": {"model": entry.name}}
    assert look(tmp_path, cache=cache, **sections)[entry.name].ok
    found = look(tmp_path, deep=True, cache=cache, **sections)[entry.name]
    assert not found.ok and "sha256 is wrong" in found.says and "pull" in found.do


def test_secrets_that_others_may_read(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "secrets"
    folder.mkdir(parents=True)
    for name, mode in (("good", 0o600), ("bad", 0o644)):
        (folder / name).write_text("s3cret")
        (folder / name).chmod(mode)
    found = look(tmp_path)["secrets"]
    assert not found.ok and found.says.startswith("bad can") and "chmod 600" in found.do
    (folder / "bad").chmod(0o600)
    assert look(tmp_path)["secrets"].ok


def test_configured_apps(tmp_path: Path) -> None:
    found = look(tmp_path, apps={"there": {"mcp": "sh -c true"}, "gone": {"mcp": "no-such-program --x"}})
    assert found["there"].ok
    assert not found["gone"].ok and "no-such-program" in found["gone"].do
    assert not wanting(found)
