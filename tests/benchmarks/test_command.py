"""`python -m benchmarks`: names, the JSON object, and the yardsticks themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import poison, think, train
from benchmarks import zip as zip_
from benchmarks.__main__ import benchmarks, described, measure, table, write
from benchmarks.figures import Figures
from benchmarks.reference.kl import divergence, head, log_softmax

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_promised_benchmarks_are_there_and_described() -> None:
    listed = command("--list").stdout
    for name in ("parity", "decode", "prefill", "boot", "memory", "compare", "startup"):
        assert f"\n{name} " in f"\n{listed}"
    assert all(benchmarks().values()), "a benchmark without a docstring"


def test_an_unknown_name_is_an_error_that_lists_the_known() -> None:
    done = command("decod")
    assert done.returncode == 2
    assert "decode" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_json_is_one_object_with_the_fixed_keys() -> None:
    done = command("startup", "--quick", "--json")
    result = json.loads(done.stdout)
    assert {"name", "figures", "machine", "models", "command", "seconds"} <= set(result)
    assert result["figures"]["jax_imported"] == 0
    assert result["figures"]["import_s"] > 0


def test_a_result_is_also_a_table() -> None:
    machine: dict[str, object] = {"cpu": "some processor", "cores": 2, "load": [0.5, 0, 0]}
    result = {
        "name": "decode", "figures": {"ours.m.128": 41.5}, "machine": machine, "models": ["m"], "notes": ["a note"],
        "command": "python -m benchmarks decode", "seconds": 3.0,
    }  # fmt: skip
    text = table(result)
    assert "ours.m.128" in text and "41.5" in text and "some processor" in text and "a note" in text


def test_a_result_is_left_in_a_folder_and_drawn(tmp_path: Path) -> None:
    values = {f"acc.{n}x{end}": 0.1 * n for n in (1, 4) for end in ("", ".lo", ".hi")}
    figures = Figures(values, ("m",), ("a note",), partial(think._draw, values, (1, 4)))
    result = described("think", figures, {"cpu": "some processor"}, "python -m benchmarks think", 3.04)
    paths = write(result, figures, tmp_path / "docs")
    assert [path.name for path in paths] == ["think.json", "think.svg", "think.png"]
    said = json.loads(paths[0].read_text())
    assert said["figures"]["acc.4x"] == 0.4 and said["seconds"] == 3.0 and said["notes"] == ["a note"]
    drawn = paths[1].read_bytes()
    assert write(result, figures, tmp_path / "docs") == paths and paths[1].read_bytes() == drawn


def test_every_picture_can_be_drawn(tmp_path: Path) -> None:
    packed = {"xz": 3.5, "zstd": 3.4, "bits_per_byte.m": 1.2}
    outcomes = [
        poison.Outcome("a name", share, i > 0, i > 0, i == 0, ()) for i, share in enumerate(poison.SHARES)
    ]
    curves = {"lora": {"ours": [2.0, 1.5], "torch": [2.0, 1.5]}, "scratch": {"ours": [3.0, 2.0]}}
    made = [*zip_._draw(packed, tmp_path), *poison._draw(outcomes, tmp_path), *train._draw(curves, tmp_path)]
    assert {path.name for path in made if path.stat().st_size > 5000} >= {
        "zip.png",
        "poison.png",
        "train.png",
    }
    text = (tmp_path / "poison.svg").read_text()
    assert text.startswith("<?xml") and "</svg>" in text


def test_a_benchmark_s_error_is_not_hidden() -> None:
    with pytest.raises(ModuleNotFoundError):
        measure("no_such_benchmark", True, {})


def test_divergence_is_the_full_kl_when_the_head_holds_everything() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.normal(0, 3, (5, 65)), rng.normal(0, 3, (5, 65))
    full = (np.exp(log_softmax(p)) * (log_softmax(p) - log_softmax(q))).sum(-1)
    np.testing.assert_allclose(divergence(head(p), q), full, rtol=1e-5)


def test_divergence_is_zero_for_the_same_and_never_above_the_full_kl() -> None:
    rng = np.random.default_rng(1)
    p = rng.normal(0, 2, (50, 1000))
    q = p + rng.normal(0, 0.3, p.shape)
    full = (np.exp(log_softmax(p)) * (log_softmax(p) - log_softmax(q))).sum(-1)
    found = divergence(head(p), q)
    assert (np.abs(divergence(head(p), p)) < 1e-9).all()
    assert (found > 0).all() and (found <= full + 1e-9).all()
    assert found.mean() > 0.2 * full.mean()
