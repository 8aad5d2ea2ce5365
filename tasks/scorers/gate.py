"""The gate: is a window like real text at all?

A score of dependency tells whole documents from spliced ones, and loves junk: attention goes far wherever nothing near
is worth attending to. Junk has no end of kinds, and real text is one thing; so the gate is fitted on real windows
alone. It is their mean and covariance (shrunk) over

- the profile of attention by distance (`distance_profile.py`), the mean over heads, of the layers that dependency
  reads anyway;
- cheap measurements of the text (`text.py`);
- where there are windows enough to know it of, what their coherence comes from (`coherence.py`): pages put together by
  a program hang together as no text does.

A window's *unlikeness* is its Mahalanobis distance from them, seen twice and averaged: over all features, and over the
columns of the text alone, where a few that are far off would drown among a hundred. Its units make 0 the middle of real
windows that the fit has not seen, and 1 their 90th percentile. What a window loses in rank grows with its square;
beyond `threshold` it is held back and not ranked at all. How the gate is fitted is in `evaluation/gate.py`.

Dimensions in names: W windows, N layers, H heads, F features of the profile, E features of coherence, G features of
the gate, T of them columns of the text, V the two views.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from ladm.tasks.scorers import coherence
from ladm.tasks.scorers.distance_profile import FEATURES
from ladm.tasks.settings import Settings

Floats = npt.NDArray[np.float64]

OF_THE_TEXT: dict[str, Callable[[float], float]] = {
    "zstd_ratio": math.log,
    "zstd_halves": math.log,
    "token_entropy": float,
    "tokens_once": float,
    "clumping": float,
    "fixed_pairs": float,
    "repeated_ngrams": math.sqrt,
    "repeated_ngrams_far": math.sqrt,
    "digit_share": math.sqrt,
    "space_share": math.sqrt,
    "mark_share": math.sqrt,
    "line_bytes": math.log,
    "line_spread": math.log1p,
    "repeated_lines": math.sqrt,
    "repeated_line_shapes": float,
    "shape_ratio": math.log,
}
"""Columns of the text (`text.py`) that the gate reads, each with what makes it spread evenly over real windows."""
COLUMNS = tuple(OF_THE_TEXT)

START = 0.3
"""Unlikeness up to this costs little: some two real windows in three."""
PENALTY = 0.5
"""What the square of one unit of unlikeness beyond `START` costs, in standard deviations of real dependency: little
where some real windows lie, more than any dependency where none do."""
SLOPE = 0.2
"""Dependency above that of real windows in the middle counts by its logarithm, so much of it: the order stays, and what
depends on itself far more than texts do, as lists do, gains little."""
SHARPNESS = 2.0
"""Of the soft minimum of the parts of a dependency: the higher, the more the least of them counts alone."""
LEAN = 0.05
"""What each unit of unlikeness above 0 costs: of windows that depend on themselves alike, those most like real text
come first."""


class Gate(Settings):
    """What real windows are like: G features, N·F of the profile, the text's columns, and those of coherence."""

    layers: tuple[int, ...] = Field(min_length=1)
    """N layers whose profile it reads, from 0, ascending."""
    features: tuple[str, ...] = FEATURES
    """F features of the profile."""
    columns: tuple[str, ...] = COLUMNS
    """Columns of the text."""
    coherence: tuple[str, ...] = ()
    """Features of coherence; none where the reference is small."""
    mean: tuple[float, ...]
    """Of each feature, over the reference."""
    scale: tuple[float, ...]
    """Standard deviation of each feature, over the reference."""
    whitening: tuple[tuple[float, ...], ...]
    """Lower triangle, row by row (row g has g + 1 numbers): whitening @ z has the mean square 1, z standardised."""
    whitening_of_text: tuple[tuple[float, ...], ...]
    """The same of the columns of the text alone."""
    weights: tuple[float, float]
    """What each unit of the distance over all features, and of that over the text, adds to unlikeness."""
    centre: float
    """What of that is taken off: so much have real windows left out of the fit, in the middle."""
    threshold: float
    """Windows of a greater unlikeness are held back."""
    start: float = START
    penalty: float = PENALTY
    slope: float = SLOPE
    lean: float = LEAN
    windows: int = 0
    """Windows it was fitted on."""
    domains: tuple[str, ...] = ()
    """Their domains."""

    @cached_property
    def reference(self) -> Reference:
        """Its numbers as arrays: there are thousands, and they are used for every window."""
        whitened = (_square(self.whitening), _square(self.whitening_of_text))
        return Reference(np.array(self.mean), np.array(self.scale), *whitened, columns_among(self.layers))

    @model_validator(mode="after")
    def _shapes_fit(self) -> Gate:
        known = self.coherence in ((), coherence.FEATURES)
        if self.features != FEATURES or self.columns != COLUMNS or not known:
            raise ValueError("the gate's features are not those of this version; run `ladm evaluate` again")
        size = len(self.layers) * len(self.features) + len(self.columns) + len(self.coherence)
        if {len(self.mean), len(self.scale), len(self.whitening)} != {size}:
            raise ValueError("the gate's numbers do not fit its features")
        if len(self.whitening_of_text) != len(self.columns):
            raise ValueError("the gate's numbers do not fit its columns")
        for rows in (self.whitening, self.whitening_of_text):
            if any(len(row) != place + 1 for place, row in enumerate(rows)):
                raise ValueError("the gate's whitening is not a triangle")
        return self


def features_for(
    gate: Gate,
    profile_NF: npt.NDArray[np.floating],
    columns: Mapping[str, float],
    coherent_E: npt.NDArray[np.floating] | Sequence[float],
) -> Floats:
    """The features of one window that a gate reads: those of coherence if it reads them."""
    return gate_features(profile_NF, columns, coherent_E if gate.coherence else ())


def gate_features(
    profile_NF: npt.NDArray[np.floating],
    columns: Mapping[str, float],
    coherent_E: npt.NDArray[np.floating] | Sequence[float] = (),
) -> Floats:
    """The G features of one window.

    Args:
        profile_NF: The profile of the gate's layers (`profile_features`), mean over heads.
        columns: The text's columns, by name (`text.py`).
        coherent_E: Its features of coherence (`Coherence.features`), for a gate that reads them.
    """
    text = [transform(columns[name]) for name, transform in OF_THE_TEXT.items()]
    return np.concatenate([profile_NF.astype(np.float64).ravel(), text, np.asarray(coherent_E, np.float64)])


def gate_distances(gate: Gate, feature_WG: Floats) -> Floats:
    """The unlikeness of W windows."""
    return unlikeness(gate.weights, gate.centre, distances(gate.reference, feature_WG))


def soft_minimum(scores: Sequence[float] | Floats) -> float:
    """The dependency of its parts: below their mean, near the least where that is far below the others."""
    least = min(scores)
    near = sum(math.exp(SHARPNESS * (least - score)) for score in scores) / len(scores)
    return float(least) - math.log(near) / SHARPNESS


def ranking_score(gate: Gate, dependency: float, unlikeness: float) -> float:
    """What documents are ranked by: dependency, above 0 by its logarithm, less the penalty for unlikeness.

    Dependency is in standard deviations of real windows, about zero.
    """
    gained = min(dependency, 0.0) + gate.slope * math.log1p(max(0.0, dependency))
    return gained - gate.lean * max(0.0, unlikeness) - gate.penalty * max(0.0, unlikeness - gate.start) ** 2


class Reference(NamedTuple):
    """What distances are measured from: mean and standard deviation of G features, and what makes them uncorrelated."""

    mean_g: Floats
    scale_g: Floats
    whitening_gg: Floats
    whitening_tt: Floats
    text: slice
    """Where the columns of the text are among the features."""


def columns_among(layers: Sequence[int]) -> slice:
    """Where the columns of the text are among the features of a gate that reads the profile of these layers."""
    begin = len(layers) * len(FEATURES)
    return slice(begin, begin + len(COLUMNS))


def distances(reference: Reference, feature_WG: Floats) -> Floats:
    """distance_VW: of each window from the reference, per feature, about 1 for windows like it; then by text alone."""
    z_WG = (feature_WG - reference.mean_g) / reference.scale_g
    seen = ((z_WG, reference.whitening_gg), (z_WG[:, reference.text], reference.whitening_tt))
    return np.stack([np.sqrt(((z_WX @ whitening_XX.T) ** 2).mean(axis=1)) for z_WX, whitening_XX in seen])


def unlikeness(weights: Sequence[float], centre: float, distance_VW: Floats) -> Floats:
    """unlikeness_W: what the distances of both views come to."""
    unlikeness_W: Floats = np.array(weights) @ distance_VW - centre
    return unlikeness_W


def _square(rows: Sequence[Sequence[float]]) -> Floats:
    square_XX = np.zeros((len(rows), len(rows)))
    square_XX[np.tril_indices(len(rows))] = np.concatenate(rows)
    return square_XX
