"""On a CPU, a model's MLPs take a window's tokens in chunks.

An MLP treats each token by itself and is several times as wide inside as the model is. Over 8,192 tokens at once each
of its steps writes tens of megabytes, in memory that the system hands out and takes back every time; a chunk's steps
stay in the cache. That is a quarter of an MLP's time and most of its memory, for the same numbers.

Dimensions in names: B windows, L tokens of a window, T tokens of a chunk, D the model's width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ladm.tasks import stopping
from ladm.tasks.scorers.compiled_parts import outermost

TOKENS = 1024
"""Of one chunk. Fewer make small matrix products, more leave the cache."""


def mlps_in_chunks(model: torch.nn.Module) -> list[str]:
    """Lets a model's MLPs take at most `TOKENS` tokens at a time, and tells which do.

    Modules are known by their class's name, so each class is tried on a few tokens first: one whose tokens are not
    independent of each other, or whose call is another, is left as it is.
    """
    mlps = {name: model.get_submodule(name) for name in outermost(model, ("MLP",))}
    one_of_each = {type(mlp): mlp for mlp in mlps.values()}
    independent = {kind for kind, mlp in one_of_each.items() if _takes_each_token_by_itself(mlp)}
    changed = {name: mlp for name, mlp in mlps.items() if type(mlp) in independent}
    for mlp in changed.values():
        mlp.forward = _in_chunks(mlp.forward)
    return list(changed)


def _in_chunks(whole: Callable[..., Any]) -> Callable[..., Any]:
    def forward(hidden_BLD: Tensor, *more: Any, **options: Any) -> Any:
        if more or options or hidden_BLD.shape[:-1].numel() <= TOKENS:
            return whole(hidden_BLD, *more, **options)
        chunks_1TD = torch.split(hidden_BLD.reshape(1, -1, hidden_BLD.shape[-1]), TOKENS, dim=1)
        return torch.cat([_unless_stopped(whole, one_1TD) for one_1TD in chunks_1TD], dim=1).view(
            *hidden_BLD.shape[:-1], -1
        )

    return forward


def _unless_stopped(whole: Callable[..., Any], chunk_1TD: Tensor) -> Any:
    stopping.check()
    return whole(chunk_1TD)


def _takes_each_token_by_itself(module: torch.nn.Module) -> bool:
    """Whether some tokens one by one come out of it as they do all together."""
    weight = max(module.parameters(), key=lambda one: one.ndim, default=None)
    if weight is None:
        return False
    close = 1e-4 if weight.dtype == torch.float32 else 0.05  # of the largest number
    for width in dict.fromkeys(reversed(weight.shape)):  # a weight is (out, in), or in some models (in, out)
        hidden_BLD = torch.linspace(-9, 9, 2 * 3 * width).sin().view(2, 3, width).to(weight)
        try:
            with torch.inference_mode():
                together_BLD = module(hidden_BLD)
                alone_BLD = torch.cat([module(hidden_BLD[:, [token]]) for token in range(3)], dim=1)
            return bool((together_BLD - alone_BLD).abs().max() <= close * together_BLD.abs().max())
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
            continue
    return False
