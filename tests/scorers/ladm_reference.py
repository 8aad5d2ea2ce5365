"""LADM once more, as plain loops over softmax matrices that transformers' eager attention gives: slow and obvious.

Shares nothing with `ladm.tasks.scorers`. Everything is in float64 from the attention weights on.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

Focus = Callable[[int, int], float]


def eager_attentions(path: Path, ids_L: np.ndarray) -> list[np.ndarray]:
    """One window's causal softmax, [heads, L, L] a layer."""
    model = AutoModel.from_pretrained(path, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.inference_mode():
        found = model(input_ids=torch.as_tensor(ids_L)[None].long(), output_attentions=True, use_cache=False)
    return [layer[0].double().numpy() for layer in found.attentions]


def published_pfs(attention_HLL: np.ndarray, span: int, s: int, i: int) -> float:
    """PFS(s, i): the softmax of the span at s taken anew over the keys before s."""
    rows = attention_HLL[:, s : s + span, :s]
    rows = rows / rows.sum(axis=2, keepdims=True)
    return float(rows[:, :, s - i : s - i + span].sum(axis=(1, 2)).mean())


def published(attention_HLL: np.ndarray, span: int, d_afs: int, d_cds: int, ablation: str = "none") -> float:
    length = attention_HLL.shape[1]
    interval = span * d_afs
    terms = []
    s = length - span
    while s > span + 4 * interval:
        distances = []
        i = interval
        while s - i >= span:
            distances.append(i)
            i += interval
        pfs = [published_pfs(attention_HLL, span, s, i) for i in distances]
        weights = [1.0 if ablation == "no-length-weights" else i / length for i in distances]
        sigma = 1.0 if ablation == "no-std" else statistics.stdev(pfs)
        afs = sigma * sum(weight * value for weight, value in zip(weights, pfs, strict=True))
        terms.append(afs * (1.0 if ablation == "no-length-weights" else s / length))
        s -= span * d_cds
    return sum(terms) / len(terms)


def paper_pfs(attention_HLL: np.ndarray, span: int, j: int, i: int) -> float:
    """PFS(i, j): span j's causal softmax, summed over the keys of span i."""
    block = attention_HLL[:, j * span : (j + 1) * span, i * span : (i + 1) * span]
    return float(block.sum(axis=(1, 2)).mean())


def paper(
    attention_HLL: np.ndarray, span: int, d: int, m: int = 1, n: int = 4, n0: int = 16, ablation: str = "none"
) -> float:
    count = attention_HLL.shape[1] // span
    total = 0.0
    j = count - 1
    while j >= n0:
        keys = []
        i = j - n - 1
        while i >= m:
            keys.append(i)
            i -= d
        pfs = [paper_pfs(attention_HLL, span, j, i) for i in keys]
        plain = ablation == "no-length-weights"
        sigma = 1.0 if ablation == "no-std" else statistics.stdev(pfs)
        afs = sigma * sum((1.0 if plain else (j - i) / count) * value for i, value in zip(keys, pfs, strict=True))
        total += afs * (1.0 if plain else j / count)
        j -= d
    return total
