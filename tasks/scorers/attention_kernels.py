"""Plain causal attention by PyTorch's kernels: of a whole window, of a sliding layer, and one that gives the lse too.

Dimensions in names: B windows, H query heads, K key heads (H is a multiple of K), L tokens of the window, R rows,
C columns, D a head's width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]
"""(q_BHRD, k_BKCD, v_BKCD, causal, scale) → (out_BHRD, lse_BHR in float32). Causal only where R = C."""

_SLIDING_ROWS = 512


def fused_kernel(q_BHLD: Tensor, v_BKLD: Tensor) -> Kernel | None:
    """The attention kernel that gives the lse too, or None where there is none that fits these tensors."""
    usable = q_BHLD.device.type == "cpu" and q_BHLD.shape[-1] == v_BKLD.shape[-1]
    return _cpu_kernel if usable and _cpu_kernel_works(q_BHLD.dtype) else None


def causal_attention(q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float) -> Tensor:
    """Plain causal attention: out_BHLD, by PyTorch's `scaled_dot_product_attention`."""
    groups = q_BHLD.shape[1] // k_BKLD.shape[1]
    # On CUDA only the half-precision kernels share keys; float32 would fall back to one that forms all L×L logits.
    shares = q_BHLD.device.type == "cpu" or (q_BHLD.device.type == "cuda" and q_BHLD.dtype != torch.float32)
    if groups > 1 and not shares:
        k_BKLD, v_BKLD = (each.repeat_interleave(groups, dim=1) for each in (k_BKLD, v_BKLD))
    return torch.nn.functional.scaled_dot_product_attention(
        q_BHLD, k_BKLD, v_BKLD, is_causal=True, scale=scale, enable_gqa=groups > 1 and shares
    )


def sliding_attention(q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float, reach: int) -> Tensor:
    """Causal attention in which a row sees its own key and the `reach` − 1 before it: out_BHLD.

    Goes by blocks of rows, so that no mask or logits of L×L are ever held.
    """
    groups = q_BHLD.shape[1] // k_BKLD.shape[1]
    out = []
    for start in range(0, q_BHLD.shape[2], _SLIDING_ROWS):
        end = min(start + _SLIDING_ROWS, q_BHLD.shape[2])
        first = max(0, start - reach + 1)
        k_BHCD, v_BHCD = (each[:, :, first:end].repeat_interleave(groups, dim=1) for each in (k_BKLD, v_BKLD))
        rows = torch.arange(start, end, device=q_BHLD.device)[:, None]
        columns = torch.arange(first, end, device=q_BHLD.device)[None, :]
        seen_RC = (columns <= rows) & (columns > rows - reach)
        q_BHRD = q_BHLD[:, :, start:end]
        out.append(torch.nn.functional.scaled_dot_product_attention(q_BHRD, k_BHCD, v_BHCD, seen_RC, scale=scale))
    return torch.cat(out, dim=2)


def _cpu_kernel(q_BHRD: Tensor, k_BKCD: Tensor, v_BKCD: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    out_BHRD, lse_BHR = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q_BHRD, k_BKCD, v_BKCD, 0.0, causal, scale=scale
    )
    return out_BHRD, lse_BHR


@functools.cache
def _cpu_kernel_works(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the kernel, with shared keys, with this dtype and with the meaning relied on here.

    The operator is not public, so its answer on a small case is compared with the definition before it is trusted.
    """
    numbers = torch.linspace(-1, 1, 4 * 3 * 8)
    q_BHRD = numbers.sin().view(1, 4, 3, 8).to(dtype)
    k_BKCD = numbers.cos().view(1, 2, 6, 8)[:, :, :5].to(dtype)
    try:
        out_BHRD, lse_BHR = _cpu_kernel(q_BHRD, k_BKCD, k_BKCD, False, 0.5)
    except (RuntimeError, AttributeError):
        return False
    shared_BHCD = k_BKCD.float().repeat_interleave(2, dim=1)
    logits_BHRC = q_BHRD.float() @ shared_BHCD.transpose(2, 3) * 0.5
    close = 1e-5 if dtype == torch.float32 else 2e-2
    return (
        lse_BHR.dtype == torch.float32
        and lse_BHR.shape == logits_BHRC.shape[:3]
        and torch.allclose(lse_BHR, logits_BHRC.logsumexp(-1), atol=1e-5)
        and torch.allclose(out_BHRD.float(), logits_BHRC.softmax(-1) @ shared_BHCD, atol=close)
    )
