"""Fitting coherence: from windows made of known documents, what tells that two places are of one document.

First the weights of pairs: for each distance a linear discriminant of the log shares of attention, pairs of one
document against pairs of two. Then, for each way of breaking, a ridge regression of whole against broken windows on
what the log odds come to (`scorers/coherence.py`). Those odds are by weights that have not seen the window's document.

Dimensions in names: W windows, N layers, H heads, X = N·H, P pairs of cells, D distances, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.contrast_set import CRUMBS, HALVES, INTERLEAVED, SPLICED, WHOLE
from ladm.tasks.scorers.coherence import (
    APART,
    MOST,
    Coherence,
    FeatureWeights,
    Pairs,
    PairWeights,
    coherence_features,
    log_odds,
    pairs_of,
)
from ladm.tasks.scorers.gate import soft_minimum
from ladm.tasks.scorers.spans import SpanPlan

Floats = npt.NDArray[np.float64]

SCALES = (SPLICED, HALVES, INTERLEAVED, CRUMBS)
"""The ways of breaking that coherence is fitted against, as far as there are windows of them."""
PAIR_RIDGE = 0.01
"""Times the number of pairs, on standardised shares."""
RIDGE = 0.1
"""Times the number of windows, on standardised features."""
FEWEST_WINDOWS = 16
_FOLDS = 5
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class Made:
    """Windows that are whole, or made of several documents.

    Attributes:
        shares: share_WNHP, `log_shares` of each.
        kinds: `whole`, or how it is broken.
        domains: Of each.
        documents: Of each, its base; windows of one document are left out together.
        owners: owner_WC. Of each cell, the number of the document in the window that it is of; -1 where of several.
    """

    shares: npt.NDArray[np.floating]
    kinds: Sequence[str]
    domains: Sequence[str]
    documents: Sequence[str]
    owners: npt.NDArray[np.int_]


def fit_coherence(layers: Sequence[int], plan: SpanPlan, made: Made) -> Coherence | None:
    """The weights of pairs, and of features against each way of breaking; None where there are too few windows.

    Over real windows that the fit has not seen, each part has a standard deviation of about 1, and the soft minimum of
    the parts is about 0.
    """
    kind_W = np.array(made.kinds)
    scales = [scale for scale in SCALES if (kind_W == scale).sum() >= FEWEST_WINDOWS]
    if not scales or (kind_W == WHOLE).sum() < FEWEST_WINDOWS:
        return None
    pairs = pairs_of(plan)
    numbers = {document: number % _FOLDS for number, document in enumerate(dict.fromkeys(made.documents))}
    fold_W = np.array([numbers[document] for document in made.documents])
    feature_WF = np.concatenate([_features_unseen(layers, pairs, made, fold_W, fold) for fold in range(_FOLDS)])
    feature_WF = feature_WF[np.argsort(np.concatenate([np.flatnonzero(fold_W == fold) for fold in range(_FOLDS)]))]
    domain_W = np.array(made.domains)
    parts, left = [], []
    for scale in scales:
        used_W = (kind_W == WHOLE) | (kind_W == scale)
        weight_F, left_W = _against(feature_WF[used_W], kind_W[used_W] == WHOLE, domain_W[used_W], fold_W[used_W])
        middle, spread = float(left_W.mean()), float(left_W.std()) or 1.0
        zero = float((feature_WF[kind_W == WHOLE] @ weight_F).mean())
        parts.append((weight_F / spread, -(zero + middle) / spread))
        left.append((left_W - middle) / spread)
    lowest = float(np.mean([soft_minimum(part_S) for part_S in np.array(left).T]))
    against = {
        scale: FeatureWeights(weights=_rounded(weight_F), offset=round(offset - lowest, 6))
        for scale, (weight_F, offset) in zip(scales, parts, strict=True)
    }
    return Coherence(pairs=_pair_weights(layers, pairs, made, np.ones(len(kind_W), bool)), against=against)


def _features_unseen(
    layers: Sequence[int], pairs: Pairs, made: Made, fold_W: npt.NDArray[np.int_], fold: int
) -> Floats:
    """The features of a fold's windows, by weights of pairs that have not seen their documents."""
    weights = _pair_weights(layers, pairs, made, fold_W != fold)
    return np.array(
        [
            coherence_features(log_odds(weights, pairs, made.shares[place]), np.array(weights.usual), pairs)
            for place in np.flatnonzero(fold_W == fold)
        ]
    ).reshape(-1, 2 * len(APART) + 3)


def _pair_weights(layers: Sequence[int], pairs: Pairs, made: Made, seen_W: npt.NDArray[np.bool_]) -> PairWeights:
    """The discriminant of each distance, over the windows that may be seen."""
    shape = made.shares.shape
    weight_XD = np.zeros((shape[1] * shape[2], len(APART)))
    offset_D, usual_D = np.zeros(len(APART)), np.zeros(len(APART))
    whole_W = np.array(made.kinds) == WHOLE
    for distance in range(len(APART)):
        places = np.flatnonzero(pairs.distance == distance)
        owner_q, owner_k = (made.owners[:, cells[places]] for cells in (pairs.query, pairs.key))
        clear_WP = (owner_q >= 0) & (owner_k >= 0) & seen_W[:, None]
        same_WP = (owner_q == owner_k) & clear_WP
        x_WXP = made.shares[..., places].reshape(shape[0], -1, len(places))
        weight_X, offset = _discriminant(x_WXP, same_WP, clear_WP & ~same_WP)
        weight_XD[:, distance], offset_D[distance] = weight_X, offset
        odds_WP = np.clip(np.einsum("wxp,x->wp", x_WXP[whole_W & seen_W], weight_X) + offset, -MOST, MOST)
        usual_D[distance] = odds_WP.mean() if odds_WP.size else 0.0
    weight_NHD = weight_XD.reshape(shape[1], shape[2], -1)
    return PairWeights(
        layers=tuple(layers),
        weights=tuple(tuple(_rounded(head) for head in layer) for layer in weight_NHD),
        offsets=_rounded(offset_D),
        usual=_rounded(usual_D),
    )


def _discriminant(
    x_WXP: npt.NDArray[np.floating], same_WP: npt.NDArray[np.bool_], apart_WP: npt.NDArray[np.bool_]
) -> tuple[Floats, float]:
    """Linear discriminant of pairs of one document from pairs of two, as log odds at even chances; both weigh alike."""
    one_EX, two_EX = (x_WXP.transpose(0, 2, 1)[chosen].astype(np.float64) for chosen in (same_WP, apart_WP))
    if len(two_EX) < FEWEST_WINDOWS or len(one_EX) < FEWEST_WINDOWS:
        return np.zeros(x_WXP.shape[1]), 0.0
    middle_X = (one_EX.mean(axis=0) + two_EX.mean(axis=0)) / 2
    apart_X = one_EX.mean(axis=0) - two_EX.mean(axis=0)
    within_XX = (np.cov(one_EX.T, ddof=0) + np.cov(two_EX.T, ddof=0)) / 2
    scale_X = np.maximum(np.sqrt(np.diag(within_XX)), _LEAST_SPREAD)
    within_XX = within_XX / np.outer(scale_X, scale_X) + PAIR_RIDGE * np.eye(len(scale_X))
    weight_X = np.linalg.solve(within_XX, apart_X / scale_X) / scale_X
    return weight_X, -float(middle_X @ weight_X)


def _against(
    feature_WF: Floats, whole_W: npt.NDArray[np.bool_], domain_W: npt.NDArray[np.str_], fold_W: npt.NDArray[np.int_]
) -> tuple[Floats, Floats]:
    """The weights of the features, and for each whole window its sum by weights that have not seen it.

    The sums are told from the mean sum of the whole windows that those weights have seen: each has a zero of its own.
    """
    left_W = np.zeros(len(feature_WF))
    for fold in np.unique(fold_W):
        out_W = fold_W == fold
        if whole_W[~out_W].any() and not whole_W[~out_W].all():
            weight_F = _ridge(feature_WF[~out_W], whole_W[~out_W], domain_W[~out_W])
            left_W[out_W] = (feature_WF[out_W] - feature_WF[~out_W & whole_W].mean(axis=0)) @ weight_F
    return _ridge(feature_WF, whole_W, domain_W), left_W[whole_W]


def _ridge(feature_WF: Floats, whole_W: npt.NDArray[np.bool_], domain_W: npt.NDArray[np.str_]) -> Floats:
    """Ridge regression of +1 (whole) and −1 (broken), each domain about its own mean, both sides weighing alike."""
    centred_WF = feature_WF.copy()
    for domain in np.unique(domain_W):
        centred_WF[domain_W == domain] -= feature_WF[domain_W == domain].mean(axis=0)
    scale_F = np.maximum(centred_WF.std(axis=0), _LEAST_SPREAD)
    root_W = np.sqrt(len(feature_WF) / 2 / np.where(whole_W, whole_W.sum(), (~whole_W).sum()))
    z_WF = centred_WF / scale_F * root_W[:, None]
    target_W = np.where(whole_W, 1.0, -1.0) * root_W
    weight_F: Floats = np.linalg.solve(z_WF.T @ z_WF + RIDGE * len(z_WF) * np.eye(z_WF.shape[1]), z_WF.T @ target_W)
    weight_F = weight_F / scale_F
    # In units of the whole windows' spread within a domain, so that the folds' sums can be put side by side.
    return weight_F / (float((centred_WF[whole_W] @ weight_F).std()) or 1.0)


def _rounded(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
