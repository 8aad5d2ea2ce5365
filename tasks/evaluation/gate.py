"""Fitting the gate: what real windows are like (`scorers/gate.py`), of real windows alone.

Dimensions in names: W windows, N layers, F features of the profile, G features of the gate, T of them columns of the
text, V the two views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers import coherence
from ladm.tasks.scorers.gate import Gate, Reference, columns_among, distances, unlikeness
from ladm.tasks.stages.scan import Measurement

Floats = npt.NDArray[np.float64]

SHRINK = 0.2
"""How far the correlations are shrunk towards none: a reference holds about as many windows as there are features."""
FOLDS = 8
HELD_BACK = 0.005
"""Share of a domain's real windows that may be held back where the domain has no part in the fit."""
FEWEST_WINDOWS = 24
"""A reference of fewer windows gives no gate."""
ENOUGH_FOR_COHERENCE = 96
"""With fewer windows, a gate that reads coherence too lets more junk through, not less."""
_LEAST_SCALE = 0.02  # of a feature, so that one that is the same in every real window does not decide alone
_LEAST_SPREAD = 1e-6


class Windows(NamedTuple):
    """Real windows of one length."""

    features: Floats
    """feature_WG: of each window, `gate_features`."""
    domains: Sequence[str]
    documents: Sequence[str]

    def some(self, chosen_W: npt.NDArray[np.bool_]) -> Windows:
        """Those of the windows that are chosen."""
        places = np.flatnonzero(chosen_W).tolist()
        domains, documents = ([names[place] for place in places] for names in (self.domains, self.documents))
        return Windows(self.features[places], domains, documents)


def windows_of(feature_WG: Floats, found: Sequence[Measurement]) -> Windows:
    """The windows that were measured, with their features."""
    return Windows(feature_WG, [one.domain for one in found], [one.base for one in found])


def fit_gate(
    layers: Sequence[int], reference: Windows, known: Gate | None = None, *, coherent: bool = False
) -> Gate | None:
    """The gate of the real windows in `reference`; None for fewer than `FEWEST_WINDOWS`.

    Every domain counts alike, however many windows it has. Where unlikeness 0 and 1 lie is measured on documents left
    out of the fit, a part of them at a time; the threshold on whole domains left out, one at a time, so that texts of
    a kind that the fit has not seen pass: in none of the domains more than `HELD_BACK` of the windows lie beyond it.

    Args:
        layers: The layers whose profile is in the features.
        reference: Real windows of the gate's length.
        known: A gate that knows more real windows, of another length or by another model. How far the columns of the
            text spread, and how they hang together, is much the same there, so it lends that, and not their means.
        coherent: Features of coherence are among the features.
    """
    if len(reference.features) < FEWEST_WINDOWS:
        return None
    text = columns_among(layers)
    kept_VW = _left_out(reference, known, text, reference.documents)
    weights, centre = _units(kept_VW)
    domain_W, names = np.array(reference.domains), sorted(set(reference.domains))
    strange_VW = kept_VW
    if len(names) > 2:
        strange_VW = _left_out(reference, known, text, reference.domains, len(names))
    strange_W = unlikeness(weights, centre, strange_VW)
    most = max(float(np.quantile(strange_W[domain_W == name], 1 - HELD_BACK)) for name in names)
    fitted = _reference(reference, known, text)
    return Gate(
        layers=tuple(layers),
        coherence=coherence.FEATURES if coherent else (),
        mean=rounded(fitted.mean_g),
        scale=rounded(fitted.scale_g),
        whitening=_triangle(fitted.whitening_gg),
        whitening_of_text=_triangle(fitted.whitening_tt),
        weights=(round(weights[0], 6), round(weights[1], 6)),
        centre=round(centre, 6),
        threshold=round(most, 6),
        windows=len(reference.features),
        domains=tuple(names),
    )


def _reference(own: Windows, known: Gate | None, text: slice) -> Reference:
    """Mean, standard deviation, and the whitenings of the shrunk correlations; domains count alike."""
    mean_G, scale_G, correlation_GG = _moments(own)
    shrunk_GG = (1 - SHRINK) * correlation_GG + SHRINK * np.eye(len(mean_G))
    whitening_GG, whitening_TT = (np.linalg.inv(np.linalg.cholesky(one)) for one in (shrunk_GG, shrunk_GG[text, text]))
    if known:
        lent_T = known.reference.scale_g[known.reference.text]
        whitening_GG[:, text] *= lent_T / scale_G[text]  # what is whitened is in the lent units now
        scale_G[text], whitening_TT = lent_T, known.reference.whitening_tt
    return Reference(mean_G, scale_G, whitening_GG, whitening_TT, text)


def _moments(windows: Windows) -> tuple[Floats, Floats, Floats]:
    """Mean, standard deviation and correlations of the features."""
    weight_W, mean_G = _weights(windows), means(windows)
    centred_WG = windows.features - mean_G
    scale_G = np.maximum(np.sqrt(weight_W @ centred_WG**2), _LEAST_SCALE)
    z_WG = centred_WG / scale_G
    return mean_G, scale_G, (z_WG.T * weight_W) @ z_WG


def means(windows: Windows) -> Floats:
    """mean_G of the features; domains count alike."""
    return _weights(windows) @ windows.features


def _weights(windows: Windows) -> Floats:
    """weight_W, by which domains count alike, however many windows they have."""
    _, place_W, count_D = np.unique(np.array(windows.domains), return_inverse=True, return_counts=True)
    return 1 / (count_D[place_W] * len(count_D))


def _units(kept_VW: Floats) -> tuple[tuple[float, float], float]:
    """What makes unlikeness of the distances of real windows left out: the weights of both views, and the centre.

    Each view is put into units of its own, from the median to the 90th percentile, and so is their mean.
    """
    middle_V, high_V = np.quantile(kept_VW, [0.5, 0.9], axis=1)
    spread_V = np.maximum(high_V - middle_V, _LEAST_SPREAD)
    middle, high = np.quantile(((kept_VW - middle_V[:, None]) / spread_V[:, None]).mean(axis=0), [0.5, 0.9])
    spread = max(float(high - middle), _LEAST_SPREAD)
    weight_V = 1 / (len(spread_V) * spread_V * spread)
    return (float(weight_V[0]), float(weight_V[1])), float(middle_V @ weight_V + middle / spread)


def _left_out(own: Windows, known: Gate | None, text: slice, names: Sequence[str], most: int = FOLDS) -> Floats:
    """distance_VW: of each window from a reference without the windows of the same part.

    Those of one name, which is their document or their domain, are of one part; there are at most so many.
    """
    numbers = {name: number % most for number, name in enumerate(dict.fromkeys(names))}
    part_W = np.array([numbers[name] for name in names])
    distance_VW = np.full((2, len(own.features)), np.nan)
    for part in np.unique(part_W):
        rest = _reference(own.some(part_W != part), known, text)
        distance_VW[:, part_W == part] = distances(rest, own.features[part_W == part])
    return distance_VW


def _triangle(whitening_XX: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(rounded(row_X[: place + 1]) for place, row_X in enumerate(whitening_XX))


def rounded(values: npt.NDArray[np.floating]) -> tuple[float, ...]:
    """Numbers as a gate stores them."""
    return tuple(round(float(value), 5) for value in values)
