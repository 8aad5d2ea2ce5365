"""Calibrating: from the measurements of the calibrating half, the layers and weights that a calibration holds.

Nothing of the testing half is looked at, nor any window of two halves: that contrast is one that a calibration has
never seen. The formula's layers are one run of neighbouring layers, with or without the standard deviation, chosen by
mean AUC against spliced windows; few parameters, since the half is small. The dependency and order scores are ridge
regressions on the profile of attention by distance. All of them end early enough that scoring costs at most
`cost_limit` plain forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ladm.tasks.evaluation.table import Floats, Setting, per_layer
from ladm.tasks.scorers.calibration import ProfileWeights, profile_score
from ladm.tasks.scorers.distance_profile import DISTANCES, FEATURES
from ladm.tasks.stages.contrast import CALIBRATE, SHUFFLED, SPLICED, WHOLE
from ladm.tasks.stages.scan import Measurement

COST_LIMIT = 0.63  # of a plain forward pass; 0.65 with what measuring adds
_RIDGE = 3.0  # times the number of features, which are standardised
CALIBRATING_KINDS = (WHOLE, SPLICED, SHUFFLED)
"""The kinds of window that a calibration is made from."""
_PROFILED_LAYERS = 5  # the last so many that the cost allows; the early ones see no order
_FAR = 20  # cells of 128: a sixth of the window
_FEWEST_WINDOWS = 8
_FOLDS = 5
_AS_GOOD = 0.01  # of AUC: among choices this close to the best, the one with most layers is taken


def layers_allowed(setting: Setting, cost_limit: float = COST_LIMIT) -> tuple[int, ...]:
    """The measured layers that scoring within the cost can use; the first one in any case."""
    reached = [layer for layer in setting.layers if layer + 0.25 <= cost_limit * setting.n_layers]
    return tuple(reached) or setting.layers[:1]


def profiled_layers(setting: Setting, cost_limit: float = COST_LIMIT) -> tuple[int, ...]:
    """The layers whose profile the dependency and order scores read: the last ones allowed."""
    return layers_allowed(setting, cost_limit)[-_PROFILED_LAYERS:]


@dataclass(frozen=True)
class LayerChoice:
    """What the formula averages."""

    layers: tuple[int, ...]
    ablation: str
    auc: float
    """On the calibrating half: mean over domains, whole against spliced windows."""


def choose_layers(setting: Setting, found: Sequence[Measurement], cost_limit: float = COST_LIMIT) -> LayerChoice:
    """The run of layers, with or without the standard deviation, with the best AUC on the calibrating half.

    Raises:
        ValueError: the calibrating half is empty.
    """
    half = [one for one in found if one.half == CALIBRATE]
    if not half:
        raise ValueError("the calibrating half is empty")
    allowed = layers_allowed(setting, cost_limit)
    choices = []
    for ablation in ("no-std", "none"):
        cds_WN = per_layer(setting, half, ablation)
        for first in range(len(allowed)):
            for last in range(first, len(allowed)):
                layers = setting.layers[first : last + 1]
                auc = _mean_auc(half, cds_WN[:, first : last + 1].mean(axis=1))
                choices.append(LayerChoice(layers, ablation, auc))
    best = max(choice.auc for choice in choices)
    return max((one for one in choices if one.auc >= best - _AS_GOOD), key=lambda one: (len(one.layers), one.auc))


def fit_dependency(
    setting: Setting, found: Sequence[Measurement], to_beat: float, cost_limit: float = COST_LIMIT
) -> ProfileWeights | None:
    """Weights that tell whole windows from spliced ones by attention to text far before, head by head.

    Only distances of a sixth of the window and more have weights: how a window attends nearby tells where pieces meet,
    and that is not what is asked. None where there is too little to fit, or where on documents left out of the fit,
    a fifth of them at a time, it does not come up to `to_beat`, the AUC of the layers chosen.
    """
    half = [one for one in found if one.half == CALIBRATE and one.kind in (WHOLE, SPLICED)]
    if len(half) < _FEWEST_WINDOWS:
        return None
    far = [place for place, distance in enumerate(DISTANCES) if distance >= _FAR]
    documents = sorted({one.base for one in half})
    folds = np.array([documents.index(one.base) % _FOLDS for one in half])
    scores = np.zeros(len(half))
    for fold in range(min(_FOLDS, len(documents))):
        weights = _ridge(setting, [half[place] for place in np.flatnonzero(folds != fold)], far, cost_limit)
        for place in np.flatnonzero(folds == fold):
            scores[place] = profile_score(weights, half[place].profile_mhf, setting.profile_layers)
    if _mean_auc(half, scores) < to_beat - 2 * _AS_GOOD:  # that one was not measured on documents left out
        return None
    return _ridge(setting, half, far, cost_limit)


def fit_order(setting: Setting, found: Sequence[Measurement], cost_limit: float = COST_LIMIT) -> ProfileWeights | None:
    """Weights that tell whole windows from their own pieces in another order; None where there is too little to fit."""
    half = [one for one in found if one.half == CALIBRATE and one.kind in (WHOLE, SHUFFLED)]
    if len(half) < _FEWEST_WINDOWS:
        return None
    return _ridge(setting, half, range(len(FEATURES)), cost_limit)


def _ridge(
    setting: Setting, found: Sequence[Measurement], features: Sequence[int], cost_limit: float
) -> ProfileWeights:
    """Ridge regression of +1 (whole) and −1 (broken) on some features of the profile of the last layers allowed.

    Each domain's features are taken about their own mean, so that what is learnt is the difference within a domain. In
    the dual, since there are more features than windows.
    """
    layers = profiled_layers(setting, cost_limit)
    places = [setting.profile_layers.index(layer) for layer in layers]
    x_wf = np.stack([one.profile_mhf[places][:, :, features].astype(np.float64).ravel() for one in found])
    domains = np.array([one.domain for one in found])
    mean_f = x_wf.mean(axis=0)
    centred_wf = x_wf.copy()
    for domain in set(domains):
        centred_wf[domains == domain] -= x_wf[domains == domain].mean(axis=0)
    scale_f = centred_wf.std(axis=0) + 1e-6
    z_wf = centred_wf / scale_f
    target_w = np.array([1.0 if one.kind == WHOLE else -1.0 for one in found])
    dual_w = np.linalg.solve(z_wf @ z_wf.T + _RIDGE * z_wf.shape[1] * np.eye(len(found)), target_w)
    weights_f = (z_wf.T @ dual_w) / scale_f
    # In units of the spread of whole windows, about zero: a score a person can read.
    spread = float((x_wf[target_w > 0] @ weights_f).std()) or 1.0
    weights_f = weights_f / spread
    heads = found[0].profile_mhf.shape[1]
    weights_nhf = np.zeros((len(layers), heads, len(FEATURES)))
    weights_nhf[:, :, features] = weights_f.reshape(len(layers), heads, len(features))
    return ProfileWeights(
        layers=layers,
        weights=tuple(tuple(tuple(round(float(w), 6) for w in head) for head in layer) for layer in weights_nhf),
        offset=round(-float(mean_f @ weights_f), 6),
    )


def _mean_auc(half: Sequence[Measurement], scores: Floats) -> float:
    """Mean over domains of the AUC of whole against spliced windows."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(half):
        places.setdefault((one.domain, one.kind), []).append(place)
    aucs = []
    for domain in {domain for domain, _ in places}:
        whole, broken = scores[places[domain, WHOLE]], scores[places[domain, SPLICED]]
        aucs.append(float(((whole[:, None] > broken) + 0.5 * (whole[:, None] == broken)).mean()))
    return float(np.mean(aucs))
