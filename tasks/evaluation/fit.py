"""Calibrating: from the measurements of the calibrating half, the layers and weights that a calibration holds.

Nothing of the testing half is looked at, nor any window of junk: that is a contrast that no calibration has seen. The
formula's layers are one run of neighbouring layers, with or without the standard deviation, chosen by mean AUC against
spliced windows; few parameters, since the half is small. The order score, and the dependency where there is too little
for coherence (`coherence.py`), are ridge regressions on the profile of attention by distance, and the gate is what real
windows are like (`tasks/scorers/gate.py`). All of them end early enough that scoring costs at most `cost_limit` plain
forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ladm.tasks.evaluation import coherence, dependency
from ladm.tasks.evaluation.against import SCALES
from ladm.tasks.evaluation.contrast_set import (
    CALIBRATE,
    SHUFFLED,
    SPLICED,
    WHOLE,
    ContrastConfig,
    is_list,
)
from ladm.tasks.evaluation.gate import ENOUGH_FOR_COHERENCE, FEWEST_WINDOWS, fit_gate, windows_of
from ladm.tasks.evaluation.scores import Floats, Setting, features_of, per_layer
from ladm.tasks.scorers.calibration import Calibration, ProfileWeights, profile_score
from ladm.tasks.scorers.distance_profile import DISTANCES, FEATURES, profile_plan
from ladm.tasks.scorers.gate import Gate
from ladm.tasks.stages.scan import Measurement

COST_LIMIT = 0.63  # of a plain forward pass; 0.65 with what measuring adds
_RIDGE = 3.0  # times the number of features, which are standardised
_PROFILED_LAYERS = 5  # the last so many that the cost allows; the early ones see no order
_PAIRED_LAYERS = 9  # of the same; more see more of what belongs together
_FAR = [place for place, distance in enumerate(DISTANCES) if distance >= 20]  # cells of 128: a sixth of the window
_FEWEST_WINDOWS = 8
_FOLDS = 5
_AS_GOOD = 0.01  # of AUC: among choices this close to the best, the one with most layers is taken


def layers_allowed(setting: Setting, cost_limit: float = COST_LIMIT) -> tuple[int, ...]:
    """The measured layers that scoring within the cost can use; the first one in any case."""
    reached = [layer for layer in setting.layers if layer + 0.25 <= cost_limit * setting.n_layers]
    return tuple(reached) or setting.layers[:1]


def profiled_layers(setting: Setting, cost_limit: float = COST_LIMIT) -> tuple[int, ...]:
    """The layers whose profile the gate and the order score read: the last ones allowed."""
    return layers_allowed(setting, cost_limit)[-_PROFILED_LAYERS:]


def paired_layers(setting: Setting, cost_limit: float = COST_LIMIT) -> tuple[int, ...]:
    """The layers that coherence reads pairs of cells in, and with them all whose cells have to be measured."""
    return layers_allowed(setting, cost_limit)[-_PAIRED_LAYERS:]


@dataclass(frozen=True)
class About:
    """What a calibration says of where it comes from."""

    model: str
    """The model's reference, for people."""
    digest: str
    versions: dict[str, str]


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
    scores = np.zeros(len(half))
    for seen, unseen in _folds(half):
        weights = _ridge(setting, [half[place] for place in seen], _FAR, cost_limit)
        for place in unseen:
            scores[place] = profile_score(weights, half[place].profile_mhf, setting.profile_layers)
    if _mean_auc(half, scores) < to_beat - 2 * _AS_GOOD:  # that one was not measured on documents left out
        return None
    return _ridge(setting, half, _FAR, cost_limit)


def calibration_of(
    setting: Setting,
    config: ContrastConfig,
    half: Sequence[Measurement],
    about: About,
    known: Gate | None = None,
) -> Calibration:
    """The calibration that measurements support; without a gate or a dependency where they are too few.

    Args:
        setting: What the measurements were taken with.
        config: Says which domains are lists, and the seed.
        half: Measurements of the calibrating half, not none.
        about: The model, and the versions of what computes.
        known: A gate that knows more real windows (`fit_gate`).
    """
    chosen = choose_layers(setting, half)
    fitted = coherence_of(setting, config, half)
    coherent = fitted.coherence if fitted else None
    return Calibration(
        model=about.model,
        model_digest=about.digest,
        window_length=setting.length,
        span=setting.config.span,
        d_afs=setting.config.d_afs,
        d_cds=setting.config.d_cds,
        layers=chosen.layers,
        ablation=chosen.ablation,
        dependency=None if coherent else fit_dependency(setting, half, chosen.auc),
        order=fit_order(setting, half),
        coherence=coherent,
        against=sums_of(setting, config, half) if coherent else {},
        gate=gate_of(setting, config, half, fitted, known=known),
        documents=tuple(sorted({document for one in half for document in one.documents})),
        seed=config.seed,
        versions=about.versions,
    )


def _folds(half: Sequence[Measurement]) -> list[tuple[list[int], list[int]]]:
    """The places of windows to fit on, and of those of documents that are left out, a fifth of them at a time."""
    documents = sorted({one.base for one in half})
    fold_W = np.array([documents.index(one.base) % _FOLDS for one in half])
    parts = [fold_W == fold for fold in range(min(_FOLDS, len(documents)))]
    return [(np.flatnonzero(~out_W).tolist(), np.flatnonzero(out_W).tolist()) for out_W in parts]


def coherence_of(
    setting: Setting, config: ContrastConfig, found: Sequence[Measurement], cost_limit: float = COST_LIMIT
) -> coherence.Fitted | None:
    """What makes coherence of attention, from windows of the calibrating half; None where they are too few.

    Lists have no part in it.
    """
    texts = _texts(config, found)
    if not texts:
        return None
    layers = [layer for layer in paired_layers(setting, cost_limit) if layer in setting.profile_layers]
    places = [setting.profile_layers.index(layer) for layer in layers]
    made = coherence.Made(
        np.stack([one.share_mhp[places] for one in texts]),
        [one.kind for one in texts],
        [one.domain for one in texts],
        [one.base for one in texts],
        np.stack([one.vocabulary_v for one in texts]),
        np.stack([one.state_sz for one in texts]),
        np.stack([one.owner_c for one in texts]),
    )
    return coherence.fit_coherence(layers, setting.topic_layer, profile_plan(setting.length), made)


def sums_of(
    setting: Setting, config: ContrastConfig, found: Sequence[Measurement], cost_limit: float = COST_LIMIT
) -> dict[str, ProfileWeights]:
    """Sums over the profile, beside coherence, from the same windows; none where they are too few."""
    texts = _texts(config, found)
    if not texts:
        return {}
    layers = profiled_layers(setting, cost_limit)
    places = [setting.profile_layers.index(layer) for layer in layers]
    return dependency.fit_sums(
        layers,
        np.stack([one.profile_mhf[places] for one in texts]),
        [one.kind for one in texts],
        [one.domain for one in texts],
        [one.base for one in texts],
    )


def _texts(config: ContrastConfig, found: Sequence[Measurement]) -> list[Measurement]:
    """What dependency is fitted on: windows of the calibrating half, whole or broken in a way of `SCALES`; no lists."""
    kinds = (WHOLE, *SCALES)
    return [one for one in found if one.half == CALIBRATE and one.kind in kinds and not is_list(config, one.domain)]


def gate_of(
    setting: Setting,
    config: ContrastConfig,
    found: Sequence[Measurement],
    fitted: coherence.Fitted | None = None,
    cost_limit: float = COST_LIMIT,
    known: Gate | None = None,
) -> Gate | None:
    """The gate of the real windows of the calibrating half; lists are no part of it. None where they are too few.

    Where there are `ENOUGH_FOR_COHERENCE`, it reads what `coherence_of` found in the same windows.
    """
    real = real_windows(config, found)
    if len(real) < FEWEST_WINDOWS:
        return None
    layers = profiled_layers(setting, cost_limit)
    coherent_WE = np.zeros((len(real), 0))
    if fitted and len(real) >= ENOUGH_FOR_COHERENCE:
        coherent_WE = fitted.features[[one.kind == WHOLE for one in _texts(config, found)]]
    features = np.stack(
        [features_of(one, layers, setting.profile_layers, coherent_WE[place]) for place, one in enumerate(real)]
    )
    return fit_gate(layers, windows_of(features, real), known, coherent=coherent_WE.shape[1] > 0)


def real_windows(config: ContrastConfig, found: Sequence[Measurement]) -> list[Measurement]:
    """The whole windows of the calibrating half that are no lists: what a gate is fitted on."""
    return [one for one in found if one.half == CALIBRATE and one.kind == WHOLE and not is_list(config, one.domain)]


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
    return dependency.stored(layers, weights_nhf, -float(mean_f @ weights_f))


def _mean_auc(half: Sequence[Measurement], scores: Floats, kind: str = SPLICED) -> float:
    """Mean over domains of the AUC of whole windows against those of a kind; 0.5, chance, where no domain has both."""
    places: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(half):
        places.setdefault((one.domain, one.kind), []).append(place)
    aucs = []
    for domain in sorted({domain for domain, _ in places}):
        whole, broken = (scores[places.get((domain, of_kind), [])] for of_kind in (WHOLE, kind))
        if len(whole) and len(broken):
            aucs.append(float(((whole[:, None] > broken) + 0.5 * (whole[:, None] == broken)).mean()))
    return float(np.mean(aucs or [0.5]))
