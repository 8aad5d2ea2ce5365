"""Regressions of whole windows against windows that are broken in one way: the parts that a dependency is made of.

For each way of breaking, a ridge regression of +1 (whole) and −1 (broken) on some features, each domain about its own
mean, both sides weighing alike, whatever their numbers. Each sum is put into standard deviations of whole windows that
it has not seen. What the features are is the caller's matter: `coherence.py` and `dependency.py` have some.

Dimensions in names: W windows, X features, S ways of breaking.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.contrast_set import CRUMBS, HALVES, INTERLEAVED, SPLICED, WHOLE
from ladm.tasks.scorers.gate import soft_minimum

Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]

SCALES = (SPLICED, HALVES, INTERLEAVED, CRUMBS)
"""The ways of breaking, as far as there are windows of them."""
FOLDS = 5


class Ridge(NamedTuple):
    """How a regression is held back."""

    penalty: Callable[[int, int], float]
    """Of so many windows and so many features, which are standardised."""
    least_spread: float
    """Of a feature: one that is the same in every window would weigh without bound otherwise."""


class Features(NamedTuple):
    """What is known of W windows."""

    x_wx: Floats
    kinds: npt.NDArray[np.str_]
    """Of each, `whole` or how it is broken."""
    domains: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int_]
    """Of each, the number of its fold; windows of one document are left out together."""


def folds_of(documents: Sequence[str]) -> npt.NDArray[np.int_]:
    """The fold of each window, which follows from its document alone."""
    numbers = {document: number % FOLDS for number, document in enumerate(dict.fromkeys(documents))}
    return np.array([numbers[document] for document in documents])


def scales_of(kinds: Sequence[str], fewest: int) -> list[str]:
    """The ways of breaking that so many windows are of; none where there are fewer whole ones."""
    if list(kinds).count(WHOLE) < fewest:
        return []
    return [scale for scale in SCALES if list(kinds).count(scale) >= fewest]


def fit_parts(
    found: Features, scales: Sequence[str], ridge: Ridge, own_W: Chosen | None = None
) -> dict[str, tuple[Floats, float]]:
    """The weights and the offset against each way of breaking.

    Args:
        found: Windows; those of other kinds are left out.
        scales: The ways of breaking.
        ridge: How the regressions are held back.
        own_W: The windows whose spread counts; all, where not given.

    Returns:
        Way of breaking → (weight_X, offset). Over whole windows that the fit has not seen, each sum has a standard
        deviation of about 1, and the soft minimum of the sums is about 0.
    """
    whole_W = found.kinds == WHOLE
    counted_W = np.ones(len(whole_W), bool) if own_W is None else own_W
    counted_W = counted_W[whole_W]
    parts, left = {}, []
    for scale in scales:
        used_W = whole_W | (found.kinds == scale)
        weight_X, left_W = _against(Features(*(column[used_W] for column in found)), ridge)
        middle, spread = float(left_W[counted_W].mean()), float(left_W[counted_W].std()) or 1.0
        zero = float(found.x_wx[whole_W].mean(axis=0) @ weight_X)
        parts[scale] = weight_X / spread, -(zero + middle) / spread
        left.append((left_W[counted_W] - middle) / spread)
    lowest = float(np.mean([soft_minimum(part_S) for part_S in np.array(left).T]))
    return {scale: (weight_X, offset - lowest) for scale, (weight_X, offset) in parts.items()}


def _against(found: Features, ridge: Ridge) -> tuple[Floats, Floats]:
    """The weights, and for each whole window its sum by weights that have not seen it.

    The sums are told from the mean sum of the whole windows that those weights have seen: each fold's have a zero of
    their own.
    """
    whole_W = found.kinds == WHOLE
    left_W = np.zeros(len(whole_W))
    for fold in np.unique(found.folds):
        out_W = found.folds == fold
        if whole_W[~out_W].any() and not whole_W[~out_W].all():
            weight_X = _weights(Features(*(column[~out_W] for column in found)), ridge)
            left_W[out_W] = (found.x_wx[out_W] - found.x_wx[~out_W & whole_W].mean(axis=0)) @ weight_X
    return _weights(found, ridge), left_W[whole_W]


def _weights(found: Features, ridge: Ridge) -> Floats:
    """The ridge regression itself; in the dual where there are more features than windows, which gives the same."""
    whole_W = found.kinds == WHOLE
    centred_WX = found.x_wx.copy()
    for domain in np.unique(found.domains):
        centred_WX[found.domains == domain] -= found.x_wx[found.domains == domain].mean(axis=0)
    scale_X = np.maximum(centred_WX.std(axis=0), ridge.least_spread)
    root_W = np.sqrt(len(whole_W) / 2 / np.where(whole_W, whole_W.sum(), (~whole_W).sum()))
    z_WX = centred_WX / scale_X * root_W[:, None]
    target_W = np.where(whole_W, 1.0, -1.0) * root_W
    windows, features = z_WX.shape
    penalty = ridge.penalty(windows, features)
    if features > windows:
        solved_X: Floats = z_WX.T @ np.linalg.solve(z_WX @ z_WX.T + penalty * np.eye(windows), target_W)
    else:
        solved_X = np.linalg.solve(z_WX.T @ z_WX + penalty * np.eye(features), z_WX.T @ target_W)
    weight_X: Floats = solved_X / scale_X
    # In units of the whole windows' spread within a domain, so that the folds' sums can be put side by side.
    return weight_X / (float((centred_WX[whole_W] @ weight_X).std()) or 1.0)
