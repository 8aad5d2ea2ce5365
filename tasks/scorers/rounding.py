"""bfloat16 on processors that compute it slowly: float32, with every result rounded to what bfloat16 can hold.

Weights are rounded once, and what each module of the model returns is rounded as it returns it. Sums within a module
are in float32, as they are on GPUs. It answers one question only, how far rounding changes a ranking; `dtype: bfloat16`
is the real thing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def round_to_bfloat16(model: torch.nn.Module) -> None:
    """Make a float32 model round its weights, now, and its modules' results, from now on, to bfloat16."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(rounded(parameter))
    for module in model.modules():
        module.register_forward_hook(lambda _module, _inputs, out: rounded(out))


def rounded(value: Any) -> Any:
    """Float32 tensors with bfloat16's values; of tuples and lists, each; anything else as it is."""
    if isinstance(value, Tensor) and value.dtype == torch.float32:
        return value.bfloat16().float()
    if type(value) in (tuple, list):
        return type(value)(rounded(one) for one in value)
    return value
