"""The engine's step lowers for TPU and GPU without either: what a compiler there would be given exists.

Shapes are real and arrays abstract, so no weights are needed. What the hardware's own compiler makes of it is
not tested here.
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, use_abstract_mesh

from llmos.kernel.engine.batch import RECENT
from llmos.kernel.engine.runner import compute
from llmos.kernel.engine.sampler import _sample
from llmos.kernel.model import xla_ops
from llmos.kernel.model.config import ModelConfig
from llmos.kernel.model.decoder import Decoder
from llmos.kernel.model.load import Backend, Model, operations
from llmos.kernel.model.mesh import POOL, TOKENS, Layout

# The shapes of the default model, Qwen2.5-Coder-0.5B, with two of its layers: all are alike.
DEFAULT = ModelConfig(
    family="qwen2", vocab=151936, layers=2, dim=896, heads=14, kv_heads=2, head_dim=64, ffn=4864, norm_eps=1e-6,
    rope_theta=1e6, context=32768,
)  # fmt: skip
CONFIGS = {
    "default": DEFAULT,
    "head_dim 128": replace(DEFAULT, dim=2048, heads=16, kv_heads=8, head_dim=128, ffn=6144, qk_norm=True),
    "9 heads over 3": replace(DEFAULT, vocab=49152, dim=576, heads=9, kv_heads=3, ffn=1536),  # SmolLM2
    "sliding, capped, head_dim 256": replace(
        DEFAULT,
        heads=4,
        kv_heads=1,
        head_dim=256,
        sliding_window=512,
        attention_softcap=30.0,
        post_norms=True,
    ),
}


def abstract_model(config: ModelConfig, backend: Backend) -> Model:
    """A model of shapes without numbers."""

    def decoder() -> Decoder:
        def matrix(n: int, k: int) -> xla_ops.Dense:
            return xla_ops.Dense(jnp.zeros((n, k), jnp.bfloat16))

        c, vector = config, jnp.zeros
        q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
        layer: dict[str, Any] = dict(
            attn_norm=vector(c.dim), q=matrix(q, c.dim), k=matrix(kv, c.dim), v=matrix(kv, c.dim), o=matrix(c.dim, q),
            qkv_bias=vector(q + 2 * kv), mlp_norm=vector(c.dim), gate=matrix(c.ffn, c.dim), up=matrix(c.ffn, c.dim),
            down=matrix(c.dim, c.ffn),
        )  # fmt: skip
        if c.qk_norm:
            layer |= dict(q_norm=vector(c.head_dim), k_norm=vector(c.head_dim))
        if c.post_norms:
            layer |= dict(post_attn_norm=vector(c.dim), post_mlp_norm=vector(c.dim))
        table = jnp.zeros((8192, c.head_dim // 2))
        parameters = dict(
            embed=matrix(c.vocab, c.dim), head=None, final_norm=vector(c.dim), layers=[layer] * c.layers,
            ropes=[(table, table)], rope_of_layer=[0] * c.layers,
        )  # fmt: skip
        return Decoder(config, parameters, operations(backend))

    graph, state = nnx.split(nnx.eval_shape(decoder))
    return Model(config, graph, state, "abstract", backend, "bf16")


def mesh_of(platform: str, tensor: int = 1, data: int = 1) -> AbstractMesh:
    device = {
        "tpu": jax.sharding.AbstractDevice(device_kind="TPU v5 lite", num_cores=1, platform="tpu"),
        "cuda": jax.sharding.AbstractDevice(
            device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
        ),
    }[platform]
    axes = (AxisType.Auto, AxisType.Auto)
    return AbstractMesh((data, tensor), ("data", "tensor"), axes, abstract_device=device)


def lowered(model: Model, platforms: tuple[str, ...], tokens: int, tensor: int = 1, data: int = 1) -> str:
    """The text of the step as it would be sent to the accelerator's compiler."""
    c, processes = model.config, 32
    mesh = mesh_of(platforms[0], tensor, data)
    layout = Layout.of(model, mesh, tokens)

    def array(shape: tuple[int, ...], dtype: Any, at: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=at if mesh.size > 1 else None)

    whole = layout.sharding()
    state = jax.tree.map(lambda a, at: array(a.shape, a.dtype, at), model.state, layout.of_state(model.state))
    pool = array((1024, 16, *model.slot_shape), model.pool_type, layout.sharding(POOL))
    arguments = (
        state, (pool,) * c.layers, array((3, tokens), jnp.int32, layout.sharding(TOKENS)),
        array((processes + 1, 512), jnp.int32, whole), array((2 + min(tokens, processes),), jnp.int32, whole),
    )  # fmt: skip
    step = jax.jit(partial(compute, model.graph), donate_argnums=1)
    with use_abstract_mesh(mesh) if len(platforms) == 1 else nullcontext():
        exported = jax.export.export(step, platforms=platforms)(*arguments)
    logits, pools = exported.out_avals[0], exported.out_avals[1:]
    assert (logits.shape, logits.dtype) == ((min(tokens, processes), c.vocab), jnp.float32)
    assert [(p.shape, p.dtype) for p in pools] == [(pool.shape, pool.dtype)] * c.layers
    return exported.mlir_module()


def kernels(text: str) -> list[str]:
    return re.findall(r'kernel_name = "(\w+)"', text)


@pytest.mark.parametrize("tokens", [16, 512])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_step_lowers_for_tpu_with_the_paged_attention_kernel(name: str, tokens: int) -> None:
    text = lowered(abstract_model(CONFIGS[name], "tpu"), ("tpu",), tokens)
    assert kernels(text) == ["ragged_paged_attention_kernel"]  # once: layers share it


@pytest.mark.parametrize("name", CONFIGS)
def test_the_step_lowers_for_cuda(name: str) -> None:
    assert not kernels(lowered(abstract_model(CONFIGS[name], "gpu"), ("cuda",), 512))


@pytest.mark.parametrize("name", ["default", "head_dim 128"])
def test_the_plain_step_lowers_for_both_in_one_program(name: str) -> None:
    assert lowered(abstract_model(CONFIGS[name], "xla"), ("tpu", "cuda"), 16)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
@pytest.mark.parametrize(
    ("name", "tensor", "data"),
    [
        ("head_dim 128", 2, 1),
        ("head_dim 128", 4, 2),
        ("default", 4, 1),
        ("9 heads over 3", 3, 1),
        ("default", 1, 2),
    ],
)
def test_the_step_lowers_for_a_mesh(platform: str, name: str, tensor: int, data: int) -> None:
    model = abstract_model(CONFIGS[name], "tpu" if platform == "tpu" else "gpu")
    text = lowered(model, (platform,), 64, tensor, data)
    assert f"num_partitions = {tensor * data}" in text
    assert len(kernels(text)) == (platform == "tpu")


def test_choosing_tokens_lowers_for_both() -> None:
    rows, vocab = 32, DEFAULT.vocab

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    exported = jax.export.export(jax.jit(partial(_sample, top=8, backend="xla")), platforms=("tpu", "cuda"))(
        array(jnp.float32, rows, vocab), array(jnp.float32, 5, rows), array(jnp.int32, rows),
        array(jnp.int32, rows, RECENT), array(jnp.int32), array(jnp.uint32, rows, -(-vocab // 32)),
    )  # fmt: skip
    assert exported.out_avals[0].shape == (rows,)
