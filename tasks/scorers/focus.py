"""Attention, and the mass that it puts on spans, from one layer's queries and keys.

A forward pass needs each layer's attention output; a score needs the share of attention between spans. Both come out
of the same products. A row's share on a key is exp(q·k·scale − lse), where lse is the log-sum-exp of the row's logits,
and a fused attention kernel returns lse beside its output. So only the sampled spans' own products are formed again.

One thing stands in the way: the published formula's softmax runs over the keys *before* a row's span, and a kernel's
lse includes the span's own keys. (Taking those off again would cancel: a row may put all but 1e-6 of its mass on
them.) So the causal triangle is cut at the first rows of the query spans into rectangles and small triangles. Each is
one kernel call, and outputs over disjoint sets of keys merge exactly by their lse. The attention is computed once,
and the lse over the earlier keys is there before the last merge. That path runs on the CPU; elsewhere, the sampled
rows' lse is computed on its own.

Dimensions in names: B windows, H query heads, K key heads (H is a multiple of K), L tokens of the window, S tokens of a
span, M key spans of one query span, D a head's width, R rows, C columns.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tasks.scorers.ladm import QuerySpan, SpanPlan

Kernel = Callable[[Tensor, Tensor, Tensor, bool, float], tuple[Tensor, Tensor]]
"""(q_BHRD, k_BKCD, v_BKCD, causal, scale) → (out_BHRD, lse_BHR in float32). Causal only where R = C."""

_LOGITS_ON_CPU = 2**20  # float32 logits held at once: they stay in the cache
_LOGITS_ELSEWHERE = 2**26
_FINEST_TRIANGLE = 256  # rows; see `_cuts`
_SLIDING_ROWS = 512


def attend_and_measure(
    q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float, plan: SpanPlan, *, output: bool
) -> tuple[Tensor | None, Tensor]:
    """One layer's causal attention, and the pairwise focus scores (PFS) that `plan` asks for.

    Args:
        q_BHLD: queries after the rotary embedding.
        k_BKLD: keys after the rotary embedding; query head h reads key head h // (H/K).
        v_BKLD: values.
        scale: logits are q·k·scale.
        plan: which spans to measure, and over which keys their softmax runs.
        output: whether the attention's own output is needed. The last layer measured needs none.

    Returns:
        (out_BHLD, or None without `output`; pfs_BP float32: all pairs of `plan`, query span by query span).
    """
    kernel = fused_kernel(q_BHLD, v_BKLD)
    out_BHLD: Tensor | None = None
    lse_of: dict[int, Tensor] = {}  # first token of a query span → lse_BHS of its rows
    if kernel is None:
        out_BHLD = causal_attention(q_BHLD, k_BKLD, v_BKLD, scale) if output else None
        for query in plan.queries:
            lse_of[query.start] = _sampled_lse(q_BHLD, k_BKLD, scale, query.start, plan)
    elif not output:
        for query in plan.queries:
            lse_of[query.start] = _sampled_lse_by_kernel(kernel, q_BHLD, k_BKLD, v_BKLD, scale, query.start, plan)
    elif plan.own_keys:
        out_BHLD, lse_BHL = kernel(q_BHLD, k_BKLD, v_BKLD, True, scale)
        for query in plan.queries:
            lse_of[query.start] = lse_BHL[:, :, query.start : query.start + plan.span]
    else:
        out_BHLD, lse_of = _cut_attention(kernel, q_BHLD, k_BKLD, v_BKLD, scale, plan)
    pfs = [_focus(q_BHLD, k_BKLD, lse_of[query.start], scale, query, plan) for query in plan.queries]
    return out_BHLD, torch.cat(pfs, dim=1)


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


def _cut_attention(
    kernel: Kernel, q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float, plan: SpanPlan
) -> tuple[Tensor, dict[int, Tensor]]:
    """Causal attention out_BHLD, with the lse_BHS of each query span's rows over the keys before the span."""
    B, H, L, _ = q_BHLD.shape
    measured = {query.start for query in plan.queries}
    lse_of: dict[int, Tensor] = {}
    # The layout that the model reads next: (B, L, H, D) contiguous.
    out_BHLD = q_BHLD.new_empty(B, L, H, v_BKLD.shape[-1], dtype=torch.float32).transpose(1, 2)
    lse_BHL = q_BHLD.new_empty(B, H, L, dtype=torch.float32)
    for rows, columns in _pieces(_cuts(plan)):
        out_BHRD, lse_BHR = out_BHLD[:, :, rows], lse_BHL[:, :, rows]
        if rows == columns and rows.start in measured:
            lse_of[rows.start] = lse_BHR[:, :, : plan.span].clone()
        new_BHRD, new_BHR = kernel(
            q_BHLD[:, :, rows], k_BKLD[:, :, columns], v_BKLD[:, :, columns], rows == columns, scale
        )
        if columns.start == 0:  # the rows' first piece
            out_BHRD.copy_(new_BHRD)
            lse_BHR.copy_(new_BHR)
        else:
            out_BHRD.lerp_(new_BHRD.float(), torch.sigmoid(new_BHR - lse_BHR)[..., None])
            torch.logaddexp(lse_BHR, new_BHR, out=lse_BHR)
    return out_BHLD.to(q_BHLD.dtype), lse_of


def _pieces(cuts: list[int]) -> Iterator[tuple[slice, slice]]:
    """Cuts the causal triangle of the rows from the first cut to the last into (rows, columns) pieces.

    Halves it again and again, at the cuts only, into a rectangle and two triangles; what cannot be halved is a
    triangle with equal rows and columns. Big rectangles suit the kernel better than one strip a span. A row's pieces
    come in the order of their columns, so the first begins at column 0 and the last is its triangle.
    """
    start, end = cuts[0], cuts[-1]
    if len(cuts) == 2:
        yield slice(start, end), slice(start, end)
        return
    half = min(range(1, len(cuts) - 1), key=lambda cut: abs(2 * cuts[cut] - start - end))
    yield slice(cuts[half], end), slice(start, cuts[half])
    yield from _pieces(cuts[: half + 1])
    yield from _pieces(cuts[half:])


def _cuts(plan: SpanPlan) -> list[int]:
    """Where to cut the causal triangle, ascending, 0 and L included: at each query span's first row, and more.

    The kernel forms all logits of a small triangle and masks half of them, so triangles are cut on down to
    `_FINEST_TRIANGLE` rows, though never inside a query span.
    """
    needed = sorted({0, plan.length} | {query.start for query in plan.queries})
    cuts = []
    for start, end in itertools.pairwise(needed):
        step = max(_FINEST_TRIANGLE, plan.span)
        cuts += [start, *range(start + step, end - step // 2, step)]
    return [*cuts, plan.length]


def _sampled_lse_by_kernel(
    kernel: Kernel, q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float, start: int, plan: SpanPlan
) -> Tensor:
    """lse_BHS of the rows of the query span at `start`, where no layer output is wanted."""
    own = slice(start, start + plan.span)
    q_BHSD = q_BHLD[:, :, own]
    parts = []
    if start:
        parts.append(kernel(q_BHSD, k_BKLD[:, :, :start], v_BKLD[:, :, :start], False, scale)[1])
    if plan.own_keys:
        parts.append(kernel(q_BHSD, k_BKLD[:, :, own], v_BKLD[:, :, own], True, scale)[1])
    return functools.reduce(torch.logaddexp, parts)


def _sampled_lse(q_BHLD: Tensor, k_BKLD: Tensor, scale: float, start: int, plan: SpanPlan) -> Tensor:
    """lse_BHS of the rows of the query span at `start`, on any device: logits in float32, some columns at a time."""
    B, H = q_BHLD.shape[:2]
    S = plan.span
    q_XRD = _by_key_head(q_BHLD[:, :, start : start + S], k_BKLD.shape[1])
    end = start + S if plan.own_keys else start
    step = _columns_at_once(q_BHLD, S)
    parts = []
    for first in range(0, end, step):
        k_XCD = k_BKLD[:, :, first : min(first + step, end)].float().flatten(0, 1)
        logits_XRC = torch.bmm(q_XRD, k_XCD.transpose(1, 2)).mul_(scale)
        if plan.own_keys and first + k_XCD.shape[1] > start:
            rows = torch.arange(start, start + S, device=q_BHLD.device)[:, None]
            columns = torch.arange(first, first + k_XCD.shape[1], device=q_BHLD.device)[None, :]
            later_RC = (columns > rows).repeat(logits_XRC.shape[1] // S, 1)
            logits_XRC.masked_fill_(later_RC, -torch.inf)
        parts.append(logits_XRC.logsumexp(-1))
    return functools.reduce(torch.logaddexp, parts).view(B, H, S)


def _focus(q_BHLD: Tensor, k_BKLD: Tensor, lse_BHS: Tensor, scale: float, query: QuerySpan, plan: SpanPlan) -> Tensor:
    """pfs_BM of one query span: mean over heads of the mass that its rows put on each of its key spans."""
    B, H = q_BHLD.shape[:2]
    S = plan.span
    q_XRD = _by_key_head(q_BHLD[:, :, query.start : query.start + S], k_BKLD.shape[1])
    lse_XR1 = lse_BHS.reshape(*q_XRD.shape[:2], 1)
    step = max(1, _columns_at_once(q_BHLD, S) // S)
    pfs = []
    for first in range(0, len(query.key_starts), step):
        starts = query.key_starts[first : first + step]
        k_BKMSD = torch.stack([k_BKLD[:, :, start : start + S] for start in starts], dim=2).float()
        k_XCD = k_BKMSD.flatten(0, 1).flatten(1, 2)
        mass_XRC = torch.baddbmm(lse_XR1, q_XRD, k_XCD.transpose(1, 2), beta=-1, alpha=scale).exp_()
        if plan.own_keys and query.start in starts:  # the span on itself: its rows do not see later keys
            own = mass_XRC.view(mass_XRC.shape[0], -1, S, len(starts), S)[:, :, :, starts.index(query.start)]
            own.tril_()
        mass_BM = mass_XRC.sum(1).view(B, -1, len(starts), S).sum((1, 3))
        pfs.append(mass_BM / H)
    return torch.cat(pfs, dim=1)


def _by_key_head(q_BHSD: Tensor, key_heads: int) -> Tensor:
    """q_XRD in float32, X = B·K: the rows of all query heads that share a key head, one head after the other."""
    B, H, S, D = q_BHSD.shape
    return q_BHSD.float().reshape(B * key_heads, H // key_heads * S, D)


def _columns_at_once(q_BHLD: Tensor, rows: int) -> int:
    """How many keys to form the logits of at once, for `rows` query rows of each window and head."""
    logits = _LOGITS_ON_CPU if q_BHLD.device.type == "cpu" else _LOGITS_ELSEWHERE
    return max(1, logits // (q_BHLD.shape[0] * q_BHLD.shape[1] * rows))
