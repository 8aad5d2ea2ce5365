"""Coherence: by the attention between them, do the places of a window belong to one text?

For each pair of cells that the profile's plan measures (`distance_profile.py`), the share of attention of every head,
in logarithms, is weighed into the log odds that both cells are of one document. There are weights for each distance, as
attention falls off with it. They are fitted on windows that were put together from known documents, so that a few
hundred windows give tens of thousands of examples.

A window's features are what these odds come to: their mean and spread at each distance, and how weak the weakest cut of
the window is, where little of what follows looks back across; how far its parts use the same rare words
(`vocabulary.py`), and are about the same things (`topics.py`). A window is coherent if it looks whole against every way
of breaking: each way is one weighted sum of the features, and their soft minimum counts.

Dimensions in names: W windows, N layers, H heads, P pairs of cells, D distances, C cuts, F features; of `topics.py` S
segments and Z dimensions of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ladm.tasks.scorers import topics, vocabulary
from ladm.tasks.scorers.distance_profile import CELLS, DISTANCES
from ladm.tasks.scorers.spans import SpanPlan
from ladm.tasks.scorers.topics import TopicWeights, topic_features
from ladm.tasks.settings import Settings

Floats = npt.NDArray[np.float64]

APART = tuple(distance for distance in DISTANCES if distance)
"""Distances between the cells of a pair, in cells."""
FEATURES = (
    *(f"mean-{distance}" for distance in APART),
    *(f"spread-{distance}" for distance in APART),
    "weakest-cut",
    "weakest-cut-relative",
    "lowest-tenth",
    *vocabulary.FEATURES,
    *topics.FEATURES,
)
"""What is told of a window."""
CAPPED = (*vocabulary.FEATURES, *topics.FEATURES)
"""The last of them: what repeats itself has most of these."""
_NONE = 1e-6  # of a row's attention; below this, a share counts as nothing
MOST = 4.0
"""Log odds beyond this say no more: one pair must not decide."""
_CUTS = tuple(range(CELLS // 5, CELLS - CELLS // 5 + 1, 2))


class Seen(NamedTuple):
    """What coherence reads of a window."""

    share_nhp: npt.NDArray[np.floating]
    """`log_shares`, of the layers of `PairWeights`."""
    vocabulary_v: npt.NDArray[np.floating]
    """`vocabulary_features`."""
    state_sz: npt.NDArray[np.floating]
    """Mean state of each segment, in the layer of `TopicWeights`."""


class Pairs(NamedTuple):
    """The pairs of cells that count: not those of a cell with itself, nor with the first cell, which holds the sink."""

    places: npt.NDArray[np.int_]
    """Of P pairs, the place in the plan."""
    query: npt.NDArray[np.int_]
    key: npt.NDArray[np.int_]
    distance: npt.NDArray[np.int_]
    """Place in `APART`."""
    across: Floats
    """across_CP: whether a cut lies between the cells of a pair."""


class PairWeights(Settings):
    """What makes log odds of attention."""

    layers: tuple[int, ...]
    """N layers, from 0, ascending."""
    distances: tuple[int, ...] = APART
    """D distances."""
    weights: tuple[tuple[tuple[float, ...], ...], ...]
    """w_NHD."""
    offsets: tuple[float, ...]
    """Of each distance; added to the sum."""
    usual: tuple[float, ...]
    """Of each distance, the mean log odds in real windows."""

    @cached_property
    def weight_nhd(self) -> Floats:
        """The weights as an array: there are thousands, and they are used for every window."""
        return np.array(self.weights)

    @model_validator(mode="after")
    def _shapes_fit(self) -> PairWeights:
        if self.distances != APART:
            raise ValueError("the distances are not those of this version; run `ladm evaluate` again")
        shapes = {(len(layer), len(head)) for layer in self.weights for head in layer}
        if len(self.weights) != len(self.layers) or len({heads for heads, _ in shapes}) != 1:
            raise ValueError("weights of pairs do not fit layers and heads")
        if {distances for _, distances in shapes} | {len(self.offsets), len(self.usual)} != {len(APART)}:
            raise ValueError("weights of pairs do not fit distances")
        return self


class FeatureWeights(Settings):
    """What tells whole windows from windows broken in one way."""

    features: tuple[str, ...] = FEATURES
    weights: tuple[float, ...]
    """A weight a feature."""
    offset: float = 0.0

    @model_validator(mode="after")
    def _shapes_fit(self) -> FeatureWeights:
        if self.features != FEATURES or len(self.weights) != len(FEATURES):
            raise ValueError("the features are not those of this version; run `ladm evaluate` again")
        return self


@lru_cache(maxsize=8)
def pairs_of(plan: SpanPlan) -> Pairs:
    """The pairs of a plan of `profile_plan`."""
    cells = [(query.start // plan.span, key // plan.span) for query in plan.queries for key in query.key_starts]
    query_all, key_all = np.array(cells).T
    places = np.flatnonzero((key_all > 0) & (query_all > key_all))
    query, key = query_all[places], key_all[places]
    cut_C = np.array(_CUTS)[:, None]
    across_CP = ((query >= cut_C) & (key < cut_C)).astype(np.float64)
    return Pairs(places, query, key, np.searchsorted(np.array(APART), query - key), across_CP)


def log_shares(plan: SpanPlan, pfs_NHP: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """The logarithm of each pair's share of attention: share_NHP of the P pairs that count."""
    shares = pfs_NHP[..., pairs_of(plan).places].astype(np.float64) / plan.span
    logs: npt.NDArray[np.float32] = np.log(shares + _NONE).astype(np.float32)
    return logs


def log_odds(weights: PairWeights, pairs: Pairs, share_NHP: npt.NDArray[np.floating]) -> Floats:
    """The log odds of one document of each of P pairs, from `log_shares` of the weights' layers."""
    weight_NHP = weights.weight_nhd[..., pairs.distance]
    odds_P: Floats = (weight_NHP * share_NHP).sum(axis=(0, 1)) + np.array(weights.offsets)[pairs.distance]
    return np.clip(odds_P, -MOST, MOST)


def coherence_features(
    odds_P: Floats, usual_D: Floats, pairs: Pairs, more: Sequence[npt.NDArray[np.floating]]
) -> Floats:
    """What is told of one window, in the order of `FEATURES`; the last of them are given: `CAPPED`."""
    count_D = np.bincount(pairs.distance, minlength=len(APART))
    mean_D = np.bincount(pairs.distance, odds_P, len(APART)) / count_D
    spread_D = np.sqrt(np.bincount(pairs.distance, (odds_P - mean_D[pairs.distance]) ** 2, len(APART)) / count_D)
    across_C = pairs.across.sum(axis=1)
    unusual_P = odds_P - usual_D[pairs.distance]
    over_C = pairs.across @ unusual_P
    relative_C = over_C / across_C - (unusual_P.sum() - over_C) / (len(odds_P) - across_C)
    cuts = [(pairs.across @ odds_P / across_C).min(), relative_C.min(), np.quantile(odds_P, 0.1)]
    return np.concatenate([mean_D, spread_D, cuts, *more])


def with_enough(feature_WF: npt.NDArray[np.floating], enough_V: Floats) -> Floats:
    """The features, those that are `CAPPED` at most as high as is enough."""
    counted_WF = np.array(feature_WF, dtype=np.float64)
    counted_WF[..., -len(enough_V) :] = np.minimum(counted_WF[..., -len(enough_V) :], enough_V)
    return counted_WF


class Coherence(Settings):
    """All that makes a window's coherence of the attention in it."""

    pairs: PairWeights
    against: dict[str, FeatureWeights] = Field(min_length=1)
    """Way of breaking (spliced, halves, interleaved, crumbs) → weights of the features."""
    topics: TopicWeights | None = None
    """None where there were too few documents; the features of topics are then 0."""
    enough: tuple[float, ...]
    """Of each that is `CAPPED`, how much is enough: a window that has more looks no more whole for it."""

    @model_validator(mode="after")
    def _features_fit(self) -> Coherence:
        if len(self.enough) != len(CAPPED):
            raise ValueError("the features are not those of this version; run `ladm evaluate` again")
        return self

    def features(self, plan: SpanPlan, seen: Seen) -> npt.NDArray[np.float32]:
        """What is told of one window, as precisely as it is stored; `plan` is the profile's."""
        pairs = pairs_of(plan)
        odds_P = log_odds(self.pairs, pairs, seen.share_nhp)
        more = [seen.vocabulary_v, topic_features(self.topics, seen.state_sz)]
        return coherence_features(odds_P, np.array(self.pairs.usual), pairs, more).astype(np.float32)

    def parts(self, feature_F: npt.NDArray[np.floating]) -> dict[str, float]:
        """How whole a window of these features looks against each way of breaking."""
        counted_F = with_enough(feature_F, np.array(self.enough))
        return {name: float(counted_F @ np.array(one.weights) + one.offset) for name, one in self.against.items()}
