"""Our logits against llama.cpp's in f32, on recorded prompts of the real models (benchmarks/reference)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.parity import compare, llama_quantised, load, reference

PROMPTS = {"smollm2-135m": slice(None, None, 2), "qwen2.5-coder-0.5b": slice(None, None, 5)}


@pytest.mark.parametrize("model", PROMPTS)
def test_f32_is_llama_cpp_s_f32(model: str, weights_path: Callable[[str], Path]) -> None:
    weights_path(model)
    found = compare(load(model, "f32"), reference(model)[PROMPTS[model]])
    assert found.mean_kl <= 1e-6
    assert found.top1 == 1.0


@pytest.mark.parametrize("model", PROMPTS)
def test_the_default_mode_loses_no_more_than_llama_cpp_s(
    model: str, weights_path: Callable[[str], Path]
) -> None:
    weights_path(model)
    found, theirs = compare(load(model, "native"), reference(model)), llama_quantised(model)
    assert found.mean_kl <= theirs["mean_kl"]
    assert found.top1 > 0.96
