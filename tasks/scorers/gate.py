"""The gate: is a window like real text at all?

A score of dependency tells whole documents from spliced ones, and loves junk: attention goes far wherever nothing near
is worth attending to. Junk has no end of kinds, and real text is one thing; so the gate is fitted on real windows
alone. It is their mean and covariance (shrunk) over

- the profile of attention by distance (`distance_profile.py`), the mean over heads, of the layers that dependency
  reads anyway;
- cheap measurements of the text (`text.py`);
- where there are windows enough to know it of, what their coherence comes from (`coherence.py`): pages put together by
  a program hang together as no text does.

A window's *unlikeness* is its Mahalanobis distance from them, in units that make 0 the middle of real windows that the
fit has not seen, and 1 their 90th percentile. What a window loses in rank grows with its square; beyond `threshold` it
is held back and not ranked at all.

Dimensions in names: W windows, N layers, H heads, F features of the profile, E features of coherence, G features of
the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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

SHRINK = 0.1
"""How far the correlations are shrunk towards none: a reference holds about as many windows as there are features."""
FOLDS = 8
START = 0.5
"""Unlikeness up to this costs little: some three real windows in four."""
PENALTY = 0.5
"""What the square of one unit of unlikeness beyond `START` costs, in standard deviations of real dependency: little
where some real windows lie, more than any dependency where none do."""
SLOPE = 0.2
"""Dependency above that of real windows in the middle counts by its logarithm, so much of it: the order stays, and what
depends on itself far more than texts do, as lists do, gains little."""
LEAN = 0.05
"""What each unit of unlikeness above 0 costs: of windows that depend on themselves alike, those most like real text
come first."""
HELD_BACK = 0.01
"""Share of a domain's real windows that may be held back where the domain has no part in the fit."""
FEWEST_WINDOWS = 24
"""A reference of fewer windows gives no gate."""
ENOUGH_FOR_COHERENCE = 96
"""With fewer windows, a gate that reads coherence too lets more junk through, not less."""
_LEAST_SCALE = 0.02  # of a feature, so that one that is the same in every real window does not decide alone
_LEAST_SPREAD = 1e-6


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
    centre: float
    """Median distance of real windows left out of the fit: unlikeness 0."""
    spread: float = Field(gt=0)
    """From there to their 90th percentile: unlikeness 1."""
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

    @model_validator(mode="after")
    def _shapes_fit(self) -> Gate:
        known = self.coherence in ((), coherence.FEATURES)
        if self.features != FEATURES or self.columns != COLUMNS or not known:
            raise ValueError("the gate's features are not those of this version; run `ladm evaluate` again")
        size = len(self.layers) * len(self.features) + len(self.columns) + len(self.coherence)
        if {len(self.mean), len(self.scale), len(self.whitening)} != {size}:
            raise ValueError("the gate's numbers do not fit its features")
        if any(len(row) != place + 1 for place, row in enumerate(self.whitening)):
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
    whitening_GG = np.zeros((len(gate.mean), len(gate.mean)))
    whitening_GG[np.tril_indices(len(gate.mean))] = np.concatenate(gate.whitening)
    reference = _Reference(np.array(gate.mean), np.array(gate.scale), whitening_GG)
    return (_distances(reference, feature_WG) - gate.centre) / gate.spread


def soft_minimum(scores: Sequence[float] | Floats) -> float:
    """The dependency of its parts: below their mean, near the least where that is far below the others."""
    least = min(scores)
    return float(least) - math.log(sum(math.exp(least - score) for score in scores) / len(scores))


def ranking_score(gate: Gate, dependency: float, unlikeness: float) -> float:
    """What documents are ranked by: dependency, above 0 by its logarithm, less the penalty for unlikeness.

    Dependency is in standard deviations of real windows, about zero.
    """
    gained = min(dependency, 0.0) + gate.slope * math.log1p(max(0.0, dependency))
    return gained - gate.lean * max(0.0, unlikeness) - gate.penalty * max(0.0, unlikeness - gate.start) ** 2


class Windows(NamedTuple):
    """Real windows of one length."""

    features: Floats
    """feature_WG: of each window, `gate_features`."""
    domains: Sequence[str]
    documents: Sequence[str]


def fit_gate(
    layers: Sequence[int], reference: Windows, lent: Windows | None = None, *, coherent: bool = False
) -> Gate | None:
    """The gate of the real windows in `reference`; None for fewer than `FEWEST_WINDOWS`.

    Every domain counts alike, however many windows it has. Where unlikeness 0 and 1 lie is measured on documents left
    out of the fit, a part of them at a time; the threshold on whole domains left out, one at a time, so that texts of
    a kind that the fit has not seen pass: in none of the domains more than `HELD_BACK` of the windows lie beyond it.

    Args:
        layers: The layers whose profile is in the features.
        reference: Real windows of the gate's length.
        lent: Real windows of a shorter length, of which there are more for the same work. How the features hang
            together is much the same at every length, so they lend their correlations, not their means.
        coherent: Features of coherence are among the features.
    """
    if len(reference.features) < FEWEST_WINDOWS:
        return None
    numbers = {document: number % FOLDS for number, document in enumerate(dict.fromkeys(reference.documents))}
    kept_W = _left_out(reference, lent, numbers, by_domain=False)
    centre, high = (float(value) for value in np.quantile(kept_W, [0.5, 0.9]))
    spread = max(high - centre, _LEAST_SPREAD)
    domain_W, names = np.array(reference.domains), sorted(set(reference.domains))
    strange_W = kept_W
    if len(names) > 2:
        strange_W = _left_out(reference, lent, {name: place for place, name in enumerate(names)}, by_domain=True)
    most = max(float(np.quantile(strange_W[domain_W == name], 1 - HELD_BACK)) for name in names)
    fitted = _reference(reference, lent)
    return Gate(
        layers=tuple(layers),
        coherence=coherence.FEATURES if coherent else (),
        mean=_rounded(fitted.mean_g),
        scale=_rounded(fitted.scale_g),
        whitening=tuple(_rounded(row_G[: place + 1]) for place, row_G in enumerate(fitted.whitening_gg)),
        centre=round(centre, 6),
        spread=round(spread, 6),
        threshold=round((most - centre) / spread, 6),
        windows=len(reference.features),
        domains=tuple(names),
    )


class _Reference(NamedTuple):
    mean_g: Floats
    scale_g: Floats
    whitening_gg: Floats


def _reference(own: Windows, lent: Windows | None) -> _Reference:
    """Mean, standard deviation, and the whitening of the shrunk correlations; domains count alike."""
    mean_G, scale_G, correlation_GG = _moments(own)
    if lent is not None and len(lent.features):
        _, lent_G, lent_GG = _moments(lent)
        share = len(lent.features) / (len(lent.features) + len(own.features))
        correlation_GG = (1 - share) * correlation_GG + share * lent_GG
        scale_G = np.sqrt(scale_G * lent_G)
    shrunk_GG = (1 - SHRINK) * correlation_GG + SHRINK * np.eye(len(mean_G))
    return _Reference(mean_G, scale_G, np.linalg.inv(np.linalg.cholesky(shrunk_GG)))


def _moments(windows: Windows) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and correlations of the features."""
    _, place_W, count_D = np.unique(np.array(windows.domains), return_inverse=True, return_counts=True)
    weight_W = 1 / (count_D[place_W] * len(count_D))
    mean_G = weight_W @ windows.features
    centred_WG = windows.features - mean_G
    scale_G = np.maximum(np.sqrt(weight_W @ centred_WG**2), _LEAST_SCALE)
    z_WG = centred_WG / scale_G
    return mean_G, scale_G, (z_WG.T * weight_W) @ z_WG


def _distances(reference: _Reference, feature_WG: Floats) -> Floats:
    """The distance of each window from the reference, per feature: about 1 for windows like it."""
    z_WG = (feature_WG - reference.mean_g) / reference.scale_g
    distance_W: Floats = np.sqrt(((z_WG @ reference.whitening_gg.T) ** 2).mean(axis=1))
    return distance_W


def _left_out(own: Windows, lent: Windows | None, parts: Mapping[str, int], *, by_domain: bool) -> Floats:
    """The distance of each window from a reference without its part, which its domain or its document names."""

    def part_of(windows: Windows) -> npt.NDArray[np.int_]:
        names = windows.domains if by_domain else windows.documents
        return np.array([parts.get(name, -1) for name in names], dtype=int)

    def without(windows: Windows, part: int) -> Windows:
        kept: list[int] = np.flatnonzero(part_of(windows) != part).tolist()
        domains = [windows.domains[place] for place in kept]
        documents = [windows.documents[place] for place in kept]
        return Windows(windows.features[kept], domains, documents)

    part_W = part_of(own)
    distance_W = np.full(len(own.features), np.nan)
    for part in np.unique(part_W):
        rest = _reference(without(own, part), None if lent is None else without(lent, part))
        distance_W[part_W == part] = _distances(rest, own.features[part_W == part])
    return distance_W


def _rounded(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in values)
