"""Fitting coherence: from windows made of known documents, what tells that two places are of one document.

First the weights of pairs: for each distance a linear discriminant of the log shares of attention, pairs of one
document against pairs of two; and the weights of topics (`topics.py`). Then, for each way of breaking, a regression
(`against.py`) of whole against broken windows on what these come to (`scorers/coherence.py`), by weights that have not
seen the window's document.

Dimensions in names: W windows, N layers, H heads, X = N·H, P pairs of cells, D distances, S segments, Z dimensions of a
state, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.against import Features, Ridge, fit_parts, folds_of, scales_of
from ladm.tasks.evaluation.contrast_set import WHOLE
from ladm.tasks.evaluation.topics import fit_topics
from ladm.tasks.scorers.coherence import (
    APART,
    CAPPED,
    FEATURES,
    MOST,
    Coherence,
    FeatureWeights,
    Pairs,
    PairWeights,
    coherence_features,
    log_odds,
    pairs_of,
    with_enough,
)
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.scorers.topics import TopicWeights, topic_features

Floats = npt.NDArray[np.float64]

PAIR_RIDGE = 0.01
"""Times the number of pairs, on standardised shares."""
RIDGE = 0.5
"""Times the number of windows, on standardised features."""
ENOUGH = 0.6
"""Quantile over whole windows: what shares more of its vocabulary than so many of them looks no more whole for it."""
FEWEST_WINDOWS = 16
_LEAST_SPREAD = 0.05
_LEAST_FEATURE_SPREAD = 0.01


@dataclass(frozen=True)
class Made:
    """Windows that are whole, or made of several documents.

    Attributes:
        shares: share_WNHP, `log_shares` of each.
        kinds: `whole`, or how it is broken.
        domains: Of each.
        documents: Of each, its base; windows of one document are left out together.
        vocabulary: vocabulary_WV, `vocabulary_features` of each.
        states: state_WSZ, the mean state of each segment of each, in the layer of `topics`.
        owners: owner_WC. Of each cell, the number of the document in the window that it is of; -1 where of several.
    """

    shares: npt.NDArray[np.floating]
    kinds: Sequence[str]
    domains: Sequence[str]
    documents: Sequence[str]
    vocabulary: npt.NDArray[np.floating]
    states: npt.NDArray[np.floating]
    owners: npt.NDArray[np.int_]


class Fitted(NamedTuple):
    """Coherence, and what it was fitted on."""

    coherence: Coherence
    features: Floats
    """feature_WF, by weights that have not seen the window's document."""


def fit_coherence(layers: Sequence[int], topic_layer: int | None, plan: SpanPlan, made: Made) -> Fitted | None:
    """The weights of pairs, of topics, and of features against each way of breaking; None of too few windows.

    Over real windows that the fit has not seen, each part has a standard deviation of about 1, and the soft minimum of
    the parts is about 0.

    Args:
        layers: N layers whose pairs of cells are in `made`.
        topic_layer: The layer whose states are; None: of none.
        plan: The profile's.
        made: The windows.
    """
    scales = scales_of(made.kinds, FEWEST_WINDOWS)
    if not scales:
        return None
    pairs, fold_W = pairs_of(plan), folds_of(made.documents)
    whole_W = np.array(made.kinds) == WHOLE
    feature_WF = np.zeros((len(made.kinds), len(FEATURES)))
    for fold in np.unique(fold_W):
        seen_W = fold_W != fold
        weights, topics = _pair_weights(layers, pairs, made, seen_W), _topic_weights(topic_layer, made, seen_W)
        usual_D = np.array(weights.usual)
        for place in np.flatnonzero(~seen_W):
            odds_P = log_odds(weights, pairs, made.shares[place])
            more = [made.vocabulary[place], topic_features(topics, made.states[place])]
            feature_WF[place] = coherence_features(odds_P, usual_D, pairs, more)
    enough_V = np.quantile(feature_WF[whole_W, -len(CAPPED) :], ENOUGH, axis=0)
    found = Features(with_enough(feature_WF, enough_V), np.array(made.kinds), np.array(made.domains), fold_W)
    held = Ridge(lambda windows, features: RIDGE * windows, _LEAST_FEATURE_SPREAD)
    against = {
        scale: FeatureWeights(weights=_rounded(weight_F), offset=round(offset, 6))
        for scale, (weight_F, offset) in fit_parts(found, scales, held).items()
    }
    every_W = np.ones(len(fold_W), bool)
    pair_weights, topics = _pair_weights(layers, pairs, made, every_W), _topic_weights(topic_layer, made, every_W)
    fitted = Coherence(pairs=pair_weights, against=against, topics=topics, enough=_rounded(enough_V))
    return Fitted(fitted, feature_WF)


def _topic_weights(layer: int | None, made: Made, seen_W: npt.NDArray[np.bool_]) -> TopicWeights | None:
    """The weights of topics, of the whole windows that may be seen."""
    if layer is None:
        return None
    places = np.flatnonzero(seen_W & (np.array(made.kinds) == WHOLE)).tolist()
    names = ([of[place] for place in places] for of in (made.domains, made.documents))
    return fit_topics(layer, made.states[places], *names)


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


def _rounded(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
