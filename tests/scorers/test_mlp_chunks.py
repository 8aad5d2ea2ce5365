"""MLPs that take a window's tokens in chunks: which do, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import SHAPE, VOCABULARY
from torch import Tensor
from transformers import AutoModel, Gemma3TextConfig, GPT2Config, LlamaConfig, Qwen2MoeConfig

from ladm.tasks.scorers import mlp_chunks
from ladm.tasks.scorers.mlp_chunks import mlps_in_chunks

GPT2 = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_head=4, n_layer=3)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (LlamaConfig(**SHAPE), "layers.{}.mlp"),
        (Gemma3TextConfig(**SHAPE), "layers.{}.mlp"),
        (GPT2, "h.{}.mlp"),  # its weights are (in, out)
        (Qwen2MoeConfig(**SHAPE, num_experts=4, moe_intermediate_size=16), None),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_in_chunks(config: Any, part: str | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = AutoModel.from_config(config, dtype=dtype).eval()
    ids_BL = torch.randint(VOCABULARY, (3, 50), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected_BLD = model(input_ids=ids_BL, use_cache=False).last_hidden_state
    monkeypatch.setattr(mlp_chunks, "TOKENS", 16)  # 150 tokens are nine chunks and six tokens
    assert mlps_in_chunks(model) == ([part.format(layer) for layer in range(3)] if part else [])
    with torch.inference_mode():
        found_BLD = model(input_ids=ids_BL, use_cache=False).last_hidden_state
    close = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found_BLD, expected_BLD, rtol=close, atol=close)


class Recording(torch.nn.Module):
    """Looks like an MLP by its name, and does with its tokens what it is told."""

    def __init__(self, work: Callable[..., Tensor]) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8, 8))
        self.work = work
        self.seen: list[int] = []

    def forward(self, hidden_BLD: Tensor, *more: Tensor) -> Tensor:
        self.seen.append(hidden_BLD.shape[:-1].numel())
        return self.work(hidden_BLD, *more)


RecordingMLP = type("RecordingMLP", (Recording,), {})


def changed(work: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[str]]:
    monkeypatch.setattr(mlp_chunks, "TOKENS", 4)
    module = RecordingMLP(work)
    names = mlps_in_chunks(torch.nn.ModuleDict({"mlp": module}))
    module.seen.clear()
    return module, names


def test_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    module, names = changed(lambda hidden_BLD: hidden_BLD * 2, monkeypatch)
    assert names == ["mlp"]
    hidden_BLD = torch.randn(2, 7, 8)
    torch.testing.assert_close(module(hidden_BLD), hidden_BLD * 2, rtol=0, atol=0)
    assert module.seen == [4, 4, 4, 2]
    module.seen.clear()
    assert module(hidden_BLD[:, :2]).shape == (2, 2, 8)
    assert module.seen == [4]


def test_one_whose_tokens_see_each_other_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    module, names = changed(lambda hidden_BLD: hidden_BLD + hidden_BLD.roll(1, dims=1), monkeypatch)
    assert names == []
    module(torch.randn(2, 7, 8))
    assert module.seen == [14]


def test_one_that_is_called_with_more_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Bloom's, whose MLP adds what it is given besides."""
    module, names = changed(lambda hidden_BLD, *more: sum(more, hidden_BLD), monkeypatch)
    assert names == ["mlp"]
    hidden_BLD = torch.randn(2, 7, 8)
    torch.testing.assert_close(module(hidden_BLD, hidden_BLD), 2 * hidden_BLD, rtol=0, atol=0)
    assert module.seen == [14]
