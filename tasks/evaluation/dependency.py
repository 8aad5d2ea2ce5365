"""Fitting sums over the profile of attention that tell whole windows from broken ones, beside coherence.

One ridge regression for each way of breaking: of the whole windows against the spliced ones, the halves, the
interleaved ones, crumbs; both sides weigh alike, whatever their numbers. Each is put into standard deviations of whole
windows that it has not seen. They are further parts of the soft minimum that the dependency is (`coherence.py` has the
others): they tell broken windows less well, but do not take lists and tables for text, which coherence does.

Dimensions in names: W windows, N layers, H heads, F features, X = N·H·F.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.contrast_set import CRUMBS, HALVES, INTERLEAVED, SPLICED, WHOLE
from ladm.tasks.scorers.calibration import ProfileWeights
from ladm.tasks.scorers.gate import soft_minimum

Floats = npt.NDArray[np.float64]

SCALES = (SPLICED, HALVES, INTERLEAVED, CRUMBS)
"""The kinds of broken window that the sums are fitted against, as far as there are any."""
RIDGE = 2.0
"""Times the number of features, which are standardised."""
_FOLDS = 5
_FEWEST_WINDOWS = 8
_LEAST_SPREAD = 0.02  # of a feature: a head that does the same in every window would weigh without bound otherwise


def fit_sums(
    layers: Sequence[int],
    profile_WNHF: npt.NDArray[np.floating],
    kinds: Sequence[str],
    domains: Sequence[str],
    documents: Sequence[str],
    ridge: float = RIDGE,
    own: Sequence[bool] | None = None,
) -> dict[str, ProfileWeights]:
    """The weights of each sum, by way of breaking; none where there are too few windows.

    Args:
        layers: The N layers of the profile.
        profile_WNHF: Of whole and of broken windows.
        kinds: Of each window: `whole`, or one of `SCALES`; windows of other kinds are left out.
        domains: Of each window. What is learnt is the difference within a domain.
        documents: Of each window, its base; windows of one document are left out together.
        ridge: The strength of the regression.
        own: Which windows are of the length that the weights are for; all, where not given. Windows of another length
            may lend to the fit, since the profile is in shares of the window; give their domains other names.

    Returns:
        Scale → weights. Over real windows that the fit has not seen, each part has a standard deviation of about 1, and
        the soft minimum of the parts is about 0.
    """
    kind_W, domain_W = np.array(kinds), np.array(domains)
    numbers = {document: number % _FOLDS for number, document in enumerate(dict.fromkeys(documents))}
    fold_W = np.array([numbers[document] for document in documents])
    x_WX = profile_WNHF.astype(np.float64).reshape(len(kinds), -1)
    scales = [scale for scale in SCALES if (kind_W == scale).sum() >= _FEWEST_WINDOWS]
    if not scales or (kind_W == WHOLE).sum() < _FEWEST_WINDOWS:
        return {}
    own_W = np.ones(len(kind_W), bool) if own is None else np.array(own)
    own_W = own_W[kind_W == WHOLE]
    weights, left = [], []
    for scale in scales:
        used_W = (kind_W == WHOLE) | (kind_W == scale)
        weight_X, zero, left_W = _one_scale(
            x_WX[used_W], kind_W[used_W] == WHOLE, domain_W[used_W], fold_W[used_W], ridge
        )
        middle, spread = float(left_W[own_W].mean()), float(left_W[own_W].std()) or 1.0
        weights.append((weight_X / spread, -(zero + middle) / spread))
        left.append((left_W[own_W] - middle) / spread)
    lowest = float(np.mean([soft_minimum(part_S) for part_S in np.array(left).T]))
    return {
        scale: stored(layers, weight_X.reshape(profile_WNHF.shape[1:]), offset - lowest)
        for scale, (weight_X, offset) in zip(scales, weights, strict=True)
    }


def stored(layers: Sequence[int], weight_NHF: Floats, offset: float) -> ProfileWeights:
    """Weights as a calibration keeps them, rounded."""
    return ProfileWeights(
        layers=tuple(layers),
        weights=tuple(tuple(tuple(round(float(w), 6) for w in head) for head in layer) for layer in weight_NHF),
        offset=round(offset, 6),
    )


def _one_scale(
    x_WX: Floats,
    whole_W: npt.NDArray[np.bool_],
    domain_W: npt.NDArray[np.str_],
    fold_W: npt.NDArray[np.int_],
    ridge: float,
) -> tuple[Floats, float, Floats]:
    """The weights against one scale; the mean of the whole windows' sums; how the unseen lie to that of the seen.

    The last is a number for each whole window: its sum by weights that have not seen it, less the mean sum of the whole
    windows that those weights have seen.
    """
    score_W = np.zeros(len(x_WX))
    for fold in np.unique(fold_W):
        out_W = fold_W == fold
        if whole_W[~out_W].any() and not whole_W[~out_W].all():
            middle_X = x_WX[~out_W & whole_W].mean(axis=0)  # each fold's weights have a zero of their own
            weight_X = _ridge(x_WX[~out_W], whole_W[~out_W], domain_W[~out_W], ridge)
            score_W[out_W] = (x_WX[out_W] - middle_X) @ weight_X
    weight_X = _ridge(x_WX, whole_W, domain_W, ridge)
    return weight_X, float(x_WX[whole_W].mean(axis=0) @ weight_X), score_W[whole_W]


def _ridge(x_WX: Floats, whole_W: npt.NDArray[np.bool_], domain_W: npt.NDArray[np.str_], ridge: float) -> Floats:
    """Ridge regression of +1 (whole) and −1 (broken), each domain about its own mean; in the dual, as X exceeds W."""
    centred_WX = x_WX.copy()
    for domain in np.unique(domain_W):
        centred_WX[domain_W == domain] -= x_WX[domain_W == domain].mean(axis=0)
    scale_X = np.maximum(centred_WX.std(axis=0), _LEAST_SPREAD)
    root_W = np.sqrt(len(x_WX) / 2 / np.where(whole_W, whole_W.sum(), (~whole_W).sum()))
    z_WX = centred_WX / scale_X * root_W[:, None]
    target_W = np.where(whole_W, 1.0, -1.0) * root_W
    dual_W = np.linalg.solve(z_WX @ z_WX.T + ridge * z_WX.shape[1] * np.eye(len(z_WX)), target_W)
    weight_X: Floats = (z_WX.T @ dual_W) / scale_X
    # In units of the whole windows' spread within a domain, so that the folds' scores can be put side by side.
    return weight_X / (float((centred_WX[whole_W] @ weight_X).std()) or 1.0)
