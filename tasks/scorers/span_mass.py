"""Attention, and the mass that it puts on spans, from one layer's queries and keys.

A forward pass needs each layer's attention output; a score needs the share of attention between spans. Both come out
of the same products. A row's share on a key is exp(q·k·scale − lse), where lse is the log-sum-exp of the row's logits,
and a fused attention kernel returns lse beside its output. So only the sampled spans' own products are formed again.

One thing stands in the way: the published formula's softmax runs over the keys *before* a row's span, and a kernel's
lse includes the span's own keys. (Taking those off again would cancel: a row may put all but 1e-6 of its mass on
them.) So the causal triangle is cut at the first rows of the query spans into rectangles and small triangles. Each is
one kernel call, and outputs over disjoint sets of keys merge exactly by their lse. The attention is computed once,
and the lse over the earlier keys is there before the last merge. That path runs on the CPU. On NVIDIA GPUs PyTorch's
attention stays whole, and kernels of our own measure the spans beside it (`span_mass_triton.py`); elsewhere the sampled
rows' lse is computed on its own, from logits held in memory.

Dimensions in names: B windows, H query heads, K key heads (H is a multiple of K), L tokens of the window, S tokens of a
span, N query spans, M key spans of one query span, P pairs of spans, G = H/K query heads a key head, D a head's width,
R rows, C columns, X matrices of a batch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ladm.tasks import stopping
from ladm.tasks.errors import AccountError
from ladm.tasks.scorers.attention_kernels import Kernel, causal_attention, fused_kernel
from ladm.tasks.scorers.compiled_parts import kernels_work
from ladm.tasks.scorers.spans import QuerySpan, SpanPlan

_LOGITS_ON_CPU = 2**20  # float32 logits held at once: they stay in the cache
_LOGITS_ELSEWHERE = 2**26
_FINEST_TRIANGLE = 256  # rows; see `_cuts`


def attend_and_measure(
    q_BHLD: Tensor,
    k_BKLD: Tensor,
    v_BKLD: Tensor,
    scale: float,
    plans: Sequence[SpanPlan],
    *,
    output: bool,
    cut_by: SpanPlan | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """One layer's causal attention, and the pairwise focus scores (PFS) of each head that `plans` ask for.

    Args:
        q_BHLD: queries after the rotary embedding.
        k_BKLD: keys after the rotary embedding; query head h reads key head h // (H/K).
        v_BKLD: values.
        scale: logits are q·k·scale.
        plans: which spans to measure, and over which keys their softmax runs; several share one attention.
        output: whether the attention's own output is needed. The last layer measured needs none.
        cut_by: the plan by whose spans attention is cut, so that all is rounded alike; None: by those of `plans`.

    Returns:
        (out_BHLD, or None without `output`; a pfs_BHP a plan, float32: all pairs of it, query span by query span).
    """
    if kernels_work(q_BHLD.device):
        from ladm.tasks.scorers import span_mass_triton  # noqa: PLC0415  (cannot be imported without Triton)

        out = causal_attention(q_BHLD, k_BKLD, v_BKLD, scale) if output else None
        return out, [span_mass_triton.measure(q_BHLD, k_BKLD, scale, plan) for plan in plans]
    kernel = fused_kernel(q_BHLD, v_BKLD)
    out_BHLD: Tensor | None = None
    lse_BHL: Tensor | None = None  # over all keys up to the row itself
    lse_before: dict[tuple[int, int], Tensor] = {}  # query span → lse_BHS of its rows over the keys before the span
    strict = sorted(
        {_rows(query, plan) for plan in ([cut_by] if cut_by else plans) if not plan.own_keys for query in plan.queries}
    )
    if kernel is None:
        out_BHLD = causal_attention(q_BHLD, k_BKLD, v_BKLD, scale) if output else None
    elif (output or cut_by) and strict:
        out_BHLD, lse_BHL, lse_before = _cut_attention(kernel, q_BHLD, k_BKLD, v_BKLD, scale, strict)
    elif output or cut_by or any(plan.own_keys and _covers_most(plan) for plan in plans):
        out_BHLD, lse_BHL = kernel(q_BHLD, k_BKLD, v_BKLD, True, scale)

    def lse_of(query: QuerySpan, plan: SpanPlan) -> Tensor:
        rows = _rows(query, plan)
        if plan.own_keys and lse_BHL is not None:
            return lse_BHL[:, :, slice(*rows)]
        if not plan.own_keys and rows in lse_before:
            return lse_before[rows]
        if kernel is None:
            return _sampled_lse(q_BHLD, k_BKLD, scale, query.start, plan)
        return _sampled_lse_by_kernel(kernel, q_BHLD, k_BKLD, v_BKLD, scale, query.start, plan)

    found = [_pfs_of(q_BHLD, k_BKLD, scale, plan, lse_of) for plan in plans]
    return out_BHLD if output else None, found


def _pfs_of(
    q_BHLD: Tensor, k_BKLD: Tensor, scale: float, plan: SpanPlan, lse_of: Callable[[QuerySpan, SpanPlan], Tensor]
) -> Tensor:
    """pfs_BHP of all pairs of a plan, query span by query span, by the lse_BHS of each query span's rows."""
    pfs = []
    for alike in _alike(plan, q_BHLD):
        lse_BHNS = torch.stack([lse_of(query, plan) for query in alike], dim=2)
        pfs.append(_focus(q_BHLD, k_BKLD, lse_BHNS, scale, alike, plan).flatten(2))
    return torch.cat(pfs, dim=2)


def _cut_attention(
    kernel: Kernel, q_BHLD: Tensor, k_BKLD: Tensor, v_BKLD: Tensor, scale: float, strict: Sequence[tuple[int, int]]
) -> tuple[Tensor, Tensor, dict[tuple[int, int], Tensor]]:
    """Causal attention (out_BHLD, lse_BHL), with the lse_BHS of each of the spans' rows over the keys before it.

    `strict` holds the spans' first rows and ends. Spans of several plans may overlap where they begin alike.
    """
    if not all(start == other or end <= other for (start, end), (other, _) in itertools.pairwise(strict)):
        raise AccountError("spans overlap")
    B, H, L, _ = q_BHLD.shape
    ends_of: dict[int, list[int]] = {}
    for start, end in strict:
        ends_of.setdefault(start, []).append(end)
    lse_before: dict[tuple[int, int], Tensor] = {}
    # The layout that the model reads next: (B, L, H, D) contiguous.
    out_BHLD = q_BHLD.new_empty(B, L, H, v_BKLD.shape[-1], dtype=torch.float32).transpose(1, 2)
    lse_BHL = q_BHLD.new_empty(B, H, L, dtype=torch.float32)
    for rows, columns in _blocks(_cuts(strict, L)):
        stopping.check()  # a long window's attention takes seconds
        out_BHRD, lse_BHR = out_BHLD[:, :, rows], lse_BHL[:, :, rows]
        if rows == columns:
            for end in ends_of.get(rows.start, ()):
                lse_before[rows.start, end] = lse_BHL[:, :, rows.start : end].clone()
        new_BHRD, new_BHR = kernel(
            q_BHLD[:, :, rows], k_BKLD[:, :, columns], v_BKLD[:, :, columns], rows == columns, scale
        )
        if columns.start == 0:  # the rows' first block
            out_BHRD.copy_(new_BHRD)
            lse_BHR.copy_(new_BHR)
        else:
            out_BHRD.lerp_(new_BHRD.float(), torch.sigmoid(new_BHR - lse_BHR)[..., None])
            torch.logaddexp(lse_BHR, new_BHR, out=lse_BHR)
    return out_BHLD.to(q_BHLD.dtype), lse_BHL, lse_before


def _blocks(cuts: list[int]) -> Iterator[tuple[slice, slice]]:
    """Cuts the causal triangle of the rows from the first cut to the last into (rows, columns) blocks.

    Halves it again and again, at the cuts only, into a rectangle and two triangles; what cannot be halved is a
    triangle with equal rows and columns. Big rectangles suit the kernel better than one strip a span. A row's blocks
    come in the order of their columns, so the first begins at column 0 and the last is its triangle.
    """
    start, end = cuts[0], cuts[-1]
    if len(cuts) == 2:
        yield slice(start, end), slice(start, end)
        return
    half = min(range(1, len(cuts) - 1), key=lambda cut: abs(2 * cuts[cut] - start - end))
    yield slice(cuts[half], end), slice(start, cuts[half])
    yield from _blocks(cuts[: half + 1])
    yield from _blocks(cuts[half:])


def _cuts(strict: Sequence[tuple[int, int]], length: int) -> list[int]:
    """Where to cut the causal triangle, ascending, 0 and L included: at each span's first row, and more.

    The kernel forms all logits of a small triangle and masks half of them, so triangles are cut on down to
    `_FINEST_TRIANGLE` rows, though never inside a span.
    """
    longest = dict(sorted(strict))
    cuts = []
    for start, end in itertools.pairwise(sorted({0, length} | set(longest))):
        step = max(_FINEST_TRIANGLE, longest.get(start, start) - start)
        cuts += [start, *range(start + step, end - step // 2, step)]
    return [*cuts, length]


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


def _rows(query: QuerySpan, plan: SpanPlan) -> tuple[int, int]:
    """A query span's first row and the row after its last."""
    return query.start, query.start + plan.span


def _covers_most(plan: SpanPlan) -> bool:
    """Whether the plan's query rows are so many that one kernel call over the whole window is cheaper than many."""
    return 2 * len(plan.queries) * plan.span > plan.length


def _alike(plan: SpanPlan, q_BHLD: Tensor) -> Iterator[list[QuerySpan]]:
    """The plan's query spans, in order, in runs with equally many key spans whose logits fit in memory at once."""
    for count, run in itertools.groupby(plan.queries, key=lambda query: len(query.key_starts)):
        queries = list(run)
        at_once = max(1, _columns_at_once(q_BHLD, plan.span) // (plan.span * count))
        for first in range(0, len(queries), at_once):
            yield queries[first : first + at_once]


def _focus(
    q_BHLD: Tensor, k_BKLD: Tensor, lse_BHNS: Tensor, scale: float, queries: Sequence[QuerySpan], plan: SpanPlan
) -> Tensor:
    """pfs_BHNM of N query spans with M key spans each: the mass that a span's rows put on each of its key spans."""
    B, H, _, D = q_BHLD.shape
    K, N, S = k_BKLD.shape[1], len(queries), plan.span
    G = H // K
    own = [query.start for query in queries]
    q_BHNSD = torch.stack([q_BHLD[:, :, start : start + S] for start in own], dim=2).float()
    # One matrix a window, key head and query span: the rows of all query heads that share the key head.
    q_XRD = q_BHNSD.view(B, K, G, N, S, D).transpose(2, 3).reshape(B * K * N, G * S, D)
    lse_XR1 = lse_BHNS.reshape(B, K, G, N, S).transpose(2, 3).reshape(B * K * N, G * S, 1)
    step = max(1, _columns_at_once(q_BHLD, S) // (S * N))
    pfs = []
    for first in range(0, len(queries[0].key_starts), step):
        starts_NM = [query.key_starts[first : first + step] for query in queries]
        M = len(starts_NM[0])
        k_BKCD = torch.cat([k_BKLD[:, :, start : start + S] for starts_M in starts_NM for start in starts_M], dim=2)
        k_XCD = k_BKCD.float().view(B * K * N, M * S, D)
        mass_XRC = torch.baddbmm(lse_XR1, q_XRD, k_XCD.transpose(1, 2), beta=-1, alpha=scale).exp_()
        mass_BKNGSMS = mass_XRC.view(B, K, N, G, S, M, S)
        if plan.own_keys:  # the span on itself: its rows do not see later keys
            for number, starts_M in enumerate(starts_NM):
                if own[number] in starts_M:
                    mass_BKNGSMS[:, :, number, :, :, starts_M.index(own[number])].tril_()
        pfs.append(mass_BKNGSMS.sum((4, 6)).transpose(2, 3).reshape(B, H, N, M))
    return torch.cat(pfs, dim=3)


def _by_key_head(q_BHSD: Tensor, key_heads: int) -> Tensor:
    """q_XRD in float32, X = B·K: the rows of all query heads that share a key head, one head after the other."""
    B, H, S, D = q_BHSD.shape
    return q_BHSD.float().reshape(B * key_heads, H // key_heads * S, D)


def _columns_at_once(q_BHLD: Tensor, rows: int) -> int:
    """How many keys to form the logits of at once, for `rows` query rows of each window and head."""
    logits = _LOGITS_ON_CPU if q_BHLD.device.type == "cpu" else _LOGITS_ELSEWHERE
    return max(1, logits // (q_BHLD.shape[0] * q_BHLD.shape[1] * rows))
