"""A model on a mesh of simulated devices computes what it computes on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.errors import EngineError
from llmos.drivers import cpu
from llmos.kernel.model.mesh import Layout, make_mesh
from tests.kernel.tiny import tiny_model

ROOT = Path(__file__).parents[3]
FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="module")
def cases() -> dict[tuple[str, int, int], dict[str, Any]]:
    """One process for all: the number of devices is fixed when JAX starts."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    worker = [sys.executable, "-m", "tests.kernel.model.mesh_worker", str(FIXTURES)]
    done = subprocess.run(
        worker, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {(case["model"], *case["mesh"]): case for case in lines}


@pytest.mark.timeout(300)
def test_logits_and_answers_equal_those_of_one_device(
    cases: dict[tuple[str, int, int], dict[str, Any]],
) -> None:
    assert len(cases) == 6
    for case in cases.values():
        assert case["error"] < 2e-5, case
        assert case["devices"] == case["mesh"][0] * case["mesh"][1]
    assert cases["tiny", 2, 2]["same_answer"]


def test_heads_are_split_where_they_divide_and_kept_whole_where_not(
    cases: dict[tuple[str, int, int], dict[str, Any]],
) -> None:
    for case in cases.values():
        tensor = case["mesh"][0]
        divides = case["kv_heads"] % tensor == 0
        assert case["heads_here"] == (case["kv_heads"] // tensor if divides else case["kv_heads"])
        assert case["whole"] == ([] if divides else ["heads"])


def test_a_layer_costs_two_sums_and_the_embedding_one(
    cases: dict[tuple[str, int, int], dict[str, Any]],
) -> None:
    case = cases["tiny", 2, 1]
    assert case["sums"] == 2 * case["layers"] + 1


def test_the_numerics_of_a_mesh_have_a_name_of_their_own(
    cases: dict[tuple[str, int, int], dict[str, Any]],
) -> None:
    assert cases["tiny", 2, 2]["identity"] == "/data2/tensor2"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(EngineError, match="cannot be made"):
        make_mesh(tensor=1 << 16)
    if cpu.available():
        with pytest.raises(EngineError, match="cannot be split"):
            Layout.of(tiny_model(backend="cpu"), make_mesh(), 16)
