"""What is made for a GPU, as far as it can be seen without one; `test_cuda.py` needs one."""

from __future__ import annotations

import pytest
import torch
from tiny_models import SHAPE
from transformers import AutoModel, LlamaConfig, Qwen2MoeConfig, Qwen3Config

from ladm.tasks.scorers.compiled_parts import compile_parts, kernels_work

LAYER = ["mlp", "input_layernorm", "post_attention_layernorm"]


def test_no_kernels_without_a_gpu() -> None:
    assert not kernels_work(torch.device("cpu"))


@pytest.mark.parametrize(
    ("config", "of_a_layer"),
    [
        (LlamaConfig(**SHAPE), LAYER),
        (Qwen3Config(**SHAPE), ["self_attn.q_norm", "self_attn.k_norm", *LAYER]),
        (Qwen2MoeConfig(**SHAPE, num_experts=4, moe_intermediate_size=16), LAYER[1:]),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_the_parts_compiled(config: object, of_a_layer: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))  # noqa: PLW0108 (bound)
    model = AutoModel.from_config(config)
    parts = compile_parts(model)
    assert parts == [*(f"layers.{layer}.{part}" for layer in range(3) for part in of_a_layer), "norm"]
    assert compiled == [model.get_submodule(name) for name in parts]
