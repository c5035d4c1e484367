"""JAX is imported without reading about every package, and with all there is for its plugins where there are any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = """
import importlib.metadata as metadata, json
read = []
whole, distributions = metadata.PathDistribution.read_text, metadata.distributions
def counted(self, name):
    if name == "METADATA":
        read.append(name)
    return whole(self, name)
metadata.PathDistribution.read_text = counted
from llmos.kernel.quick_jax import import_jax
import_jax()
import sys
same = metadata.distributions is distributions
print(json.dumps([len(read), "jax" in sys.modules, same, len(list(distributions()))]))
"""


@pytest.mark.parametrize("plugin", [False, True])
def test_packages_are_read_for_a_plugin_only_where_there_may_be_one(tmp_path: Path, plugin: bool) -> None:
    if plugin:
        about = tmp_path / "jax_rocm9_plugin-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: jax-rocm9-plugin\nVersion: 1.0\n")
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )  # fmt: skip
    read, imported, restored, packages = json.loads(done.stdout)
    assert imported and restored and packages > 10
    assert (read > packages / 2) if plugin else (read < 5)
