"""Kernels made for the GPU at hand, by Triton: whether this machine can make them, and what is compiled with them.

Triton comes with PyTorch for NVIDIA GPUs. It makes kernels when they are first needed, and for that wants a C compiler
on the machine. Where it is not there or does not work, scoring goes the plain way: the same scores, more slowly, and
one warning says so.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import warnings

import torch
from torch import Tensor

from ladm.tasks.scorers.spans import QuerySpan, SpanPlan

_FIRST_CAPABILITY = (8, 0)  # Ampere: products of bfloat16
_TRIAL = SpanPlan(64, 16, True, (QuerySpan(32, (32, 16, 0)),))


@functools.cache
def kernels_work(device: torch.device) -> bool:
    """Whether `span_mass_triton.py` runs on this device. Its answer to a small case is checked before it is trusted."""
    if device.type != "cuda" or torch.version.cuda is None or importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
        return False
    from ladm.tasks.scorers import span_mass_triton  # noqa: PLC0415  (cannot be imported without Triton)

    numbers = torch.linspace(-3, 3, 64 * 16, device=device)
    q_BHLD, k_BKLD = numbers.sin().view(1, 1, 64, 16), numbers.cos().view(1, 1, 64, 16)
    try:
        pfs_P = span_mass_triton.measure(q_BHLD, k_BKLD, 0.5, _TRIAL)[0, 0]
    except Exception as error:
        warnings.warn(
            f"Triton cannot make kernels for this GPU, so scoring takes two to five times as long; it says: "
            f"{' '.join(str(error).split())[:200] or type(error).__name__}",
            stacklevel=2,
        )
        return False
    if torch.allclose(pfs_P, _defined(q_BHLD[0, 0], k_BKLD[0, 0], 0.5), rtol=1e-4):
        return True
    warnings.warn(
        "Triton's kernels give wrong numbers on this GPU; scoring goes the plain way and takes two to five times as "
        "long",
        stacklevel=2,
    )
    return False


def _defined(q_LD: Tensor, k_LD: Tensor, scale: float) -> Tensor:
    """pfs_P of the small case, by definition."""
    logits_LL = q_LD @ k_LD.T * scale
    mass_LL = logits_LL.masked_fill(torch.ones_like(logits_LL).triu(1).bool(), -torch.inf).softmax(-1)
    (query,) = _TRIAL.queries
    S = _TRIAL.span
    return torch.stack([mass_LL[query.start : query.start + S, key : key + S].sum() for key in query.key_starts])


def compile_parts(model: torch.nn.Module) -> list[str]:
    """Compiles a model's MLPs and RMS norms, each by itself, and tells which: their steps by element become one.

    What a whole window runs through is then three quarters of the time at 4,096 tokens. The rest of a layer is left as
    it is: attention is fused already, and a layer compiled whole would be compiled anew for each layer. Experts are
    left out, as each of them gets another number of tokens every time. Changes results by rounding.
    """
    parts = outermost(model, ("MLP", "RMSNorm"))
    for name in parts:
        model.get_submodule(name).compile()
    return parts


def outermost(model: torch.nn.Module, kinds: tuple[str, ...]) -> list[str]:
    """The names of the modules whose class's name ends as one of `kinds`; none inside another, and no experts."""
    chosen = [
        name for name, module in model.named_modules() if type(module).__name__.endswith(kinds) and "expert" not in name
    ]
    inside = {name for name, other in itertools.permutations(chosen, 2) if name.startswith(f"{other}.")}
    return [name for name in chosen if name not in inside]
