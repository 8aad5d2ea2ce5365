"""The attention of sampled spans on an NVIDIA GPU: two Triton kernels that keep every logit on the chip.

What `span_mass.py` measures with matrix products needs the logits of the sampled rows in memory, a quarter of half of
L×L a head and layer; at long windows writing and reading them takes longer than the layer's whole attention. Here a
tile of logits lives in registers and only sums leave it: one kernel takes each sampled row's log-sum-exp, the other
each pair's mass. Both work in base 2, as the hardware does. float32 is multiplied as float32, never as tf32.

Dimensions in names: as in `span_mass.py`, and E for D filled up to a power of two.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladm.tasks.scorers.spans import SpanPlan

_LOG2_E = math.log2(math.e)
_LEAST = 16  # what tl.dot takes, of rows, columns and depth
_MOST_ROWS, _MOST_COLUMNS = 128, 128
_ROW_BYTES, _COLUMN_BYTES = 2**15, 2**14  # of a tile of queries or keys, so that they and the logits stay on the chip


def measure(q_BHLD: Tensor, k_BKLD: Tensor, scale: float, plan: SpanPlan) -> Tensor:
    """The pairwise focus scores of one plan: pfs_BHP in float32, all pairs, query span by query span.

    Args:
        q_BHLD: queries after the rotary embedding.
        k_BKLD: keys after the rotary embedding; query head h reads key head h // (H/K).
        scale: logits are q·k·scale.
        plan: the spans, and over which keys their softmax runs.
    """
    q_BHLD, k_BKLD = (each if each.stride(-1) == 1 else each.contiguous() for each in (q_BHLD, k_BKLD))
    B, H, _, D = q_BHLD.shape
    groups = H // k_BKLD.shape[1]
    starts_N, pairs_P3 = _tables(plan, q_BHLD.device)
    N, P, S = len(starts_N), len(pairs_P3), plan.span
    lse_BHNS = torch.empty(B, H, N, S, dtype=torch.float32, device=q_BHLD.device)
    pfs_BHP = torch.empty(B, H, P, dtype=torch.float32, device=q_BHLD.device)
    E, whole_span = (max(_LEAST, triton.next_power_of_2(size)) for size in (D, S))
    depth_bytes = E * q_BHLD.element_size()
    rows = min(_MOST_ROWS, whole_span, max(_LEAST, _ROW_BYTES // depth_bytes))
    columns = min(_MOST_COLUMNS, max(_LEAST, _COLUMN_BYTES // depth_bytes))
    # As found on an H200 with 64 and 128 dimensions a head, by trying.
    many = rows == _MOST_ROWS
    lse_columns, lse_warps = (min(64, columns), 8) if many else (columns, 4)
    given = (*q_BHLD.stride()[:3], *k_BKLD.stride()[:3], scale * _LOG2_E, H, groups)
    shape = {"S": S, "D": D, "E": E, "OWN": plan.own_keys, "ROWS": rows}
    with torch.cuda.device_of(q_BHLD):  # Triton starts kernels on the current device, wherever its arguments are
        _lse_kernel[(N * triton.cdiv(S, rows), B * H)](
            q_BHLD,
            k_BKLD,
            lse_BHNS,
            starts_N,
            *given,
            N,
            COLUMNS=lse_columns,
            num_warps=lse_warps,
            num_stages=3,
            **shape,
        )
        _pfs_kernel[(P, B * H)](
            q_BHLD, k_BKLD, lse_BHNS, pfs_BHP, pairs_P3, *given, N, P, COLUMNS=min(whole_span, 64, columns),
            num_warps=4, num_stages=2, **shape,
        )  # fmt: skip
    return pfs_BHP


@functools.lru_cache(maxsize=8)
def _tables(plan: SpanPlan, device: torch.device) -> tuple[Tensor, Tensor]:
    """starts_N, the query spans' first rows, and pairs_P3: (the query span's number, its first row, the key span's)."""
    starts_N = [query.start for query in plan.queries]
    pairs_P3 = [(n, query.start, key) for n, query in enumerate(plan.queries) for key in query.key_starts]
    return (
        torch.tensor(starts_N, dtype=torch.int32, device=device),
        torch.tensor(pairs_P3, dtype=torch.int32, device=device),
    )


@triton.jit
def _lse_kernel(
    q_ptr, k_ptr, lse_ptr, starts_ptr,
    q_b, q_h, q_l, k_b, k_h, k_l, scale, H, groups, N,
    S: tl.constexpr, D: tl.constexpr, E: tl.constexpr, OWN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """lse_BHNS, base 2, over the keys before a row's span, or (OWN) up to the row itself. A program: a tile of rows."""
    ROW_TILES: tl.constexpr = (S + ROWS - 1) // ROWS
    # The last spans have most keys; they go first.
    n = N - 1 - tl.program_id(0) // ROW_TILES
    first = tl.program_id(0) % ROW_TILES * ROWS
    b = (tl.program_id(1) // H).to(tl.int64)
    h = (tl.program_id(1) % H).to(tl.int64)
    start = tl.load(starts_ptr + n)
    rows = first + tl.arange(0, ROWS)
    depth = tl.arange(0, E)
    columns = tl.arange(0, COLUMNS)
    q_at = q_ptr + b * q_b + h * q_h + (start + rows).to(tl.int64)[:, None] * q_l + depth[None, :]
    q_RE = tl.load(q_at, mask=(rows < S)[:, None] & (depth < D)[None, :], other=0.0)
    k_at = k_ptr + b * k_b + h // groups * k_h + depth[:, None]
    highest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    whole = start // COLUMNS * COLUMNS
    for column in range(0, whole, COLUMNS):
        k_EC = tl.load(k_at + (column + columns).to(tl.int64)[None, :] * k_l, mask=(depth < D)[:, None], other=0.0)
        logits = tl.dot(q_RE, k_EC, input_precision="ieee") * scale
        now = tl.maximum(highest, tl.max(logits, 1))
        total = total * tl.exp2(highest - now) + tl.sum(tl.exp2(logits - now[:, None]), 1)
        highest = now
    end = start
    if OWN:
        end = start + tl.minimum(first + ROWS, S)
    for column in range(whole, end, COLUMNS):
        at = column + columns
        there = (at < end)[None, :] & (depth < D)[:, None]
        k_EC = tl.load(k_at + at.to(tl.int64)[None, :] * k_l, mask=there, other=0.0)
        logits = tl.dot(q_RE, k_EC, input_precision="ieee") * scale
        last = start + rows if OWN else start - 1 + 0 * rows
        logits = tl.where(at[None, :] <= last[:, None], logits, -float("inf"))
        now = tl.maximum(highest, tl.max(logits, 1))
        safe = tl.where(now == -float("inf"), 0.0, now)
        total = total * tl.exp2(highest - safe) + tl.sum(tl.exp2(logits - safe[:, None]), 1)
        highest = now
    lse_at = lse_ptr + ((b * H + h) * N + n) * S + rows
    tl.store(lse_at, highest + tl.log2(total), mask=rows < S)


@triton.jit
def _pfs_kernel(
    q_ptr, k_ptr, lse_ptr, pfs_ptr, pairs_ptr,
    q_b, q_h, q_l, k_b, k_h, k_l, scale, H, groups, N, P,
    S: tl.constexpr, D: tl.constexpr, E: tl.constexpr, OWN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """pfs_BHP: the share of attention that one span's rows put on one key span, summed over both. A program: a pair."""
    pair = tl.program_id(0)
    b = (tl.program_id(1) // H).to(tl.int64)
    h = (tl.program_id(1) % H).to(tl.int64)
    n = tl.load(pairs_ptr + pair * 3)
    start = tl.load(pairs_ptr + pair * 3 + 1)
    key_start = tl.load(pairs_ptr + pair * 3 + 2)
    depth = tl.arange(0, E)
    mass = tl.zeros([ROWS], tl.float32)
    for first in range(0, S, ROWS):
        rows = first + tl.arange(0, ROWS)
        q_at = q_ptr + b * q_b + h * q_h + (start + rows).to(tl.int64)[:, None] * q_l + depth[None, :]
        q_RE = tl.load(q_at, mask=(rows < S)[:, None] & (depth < D)[None, :], other=0.0)
        lse = tl.load(lse_ptr + ((b * H + h) * N + n) * S + rows, mask=rows < S, other=float("inf"))
        for column in range(0, S, COLUMNS):
            at = column + tl.arange(0, COLUMNS)
            k_at = k_ptr + b * k_b + h // groups * k_h + (key_start + at).to(tl.int64)[None, :] * k_l + depth[:, None]
            k_EC = tl.load(k_at, mask=(at < S)[None, :] & (depth < D)[:, None], other=0.0)
            logits = tl.dot(q_RE, k_EC, input_precision="ieee") * scale
            share = tl.exp2(logits - lse[:, None])
            seen = (at < S)[None, :] & (rows < S)[:, None]
            if OWN:
                seen = seen & ((key_start + at)[None, :] <= (start + rows)[:, None])
            mass += tl.sum(tl.where(seen, share, 0.0), 1)
    tl.store(pfs_ptr + (b * H + h) * P + pair, tl.sum(mass, 0))
