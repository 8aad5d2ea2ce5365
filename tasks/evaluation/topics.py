"""Fitting topics: how segments of real documents lie around each other (`scorers/topics.py`).

Dimensions in names: W windows, S segments, D dimensions of a state, K directions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers.topics import TopicWeights

Floats = npt.NDArray[np.float64]

DIRECTIONS = 32
"""Those along which documents differ most."""
SHRINK = 0.1
"""How far the correlations between dimensions, over the segments of a document, are shrunk towards none."""
FEWEST_DOCUMENTS = 8
"""With fewer documents that share a domain with others, nothing is known of how documents differ."""
_LEAST_SPREAD = 1e-4
_LEAST_BETWEEN = 1e-3


def topic_layer(layers: Sequence[int]) -> int | None:
    """Of the layers in which pairs of cells are measured, the one whose states are kept: the first.

    With nine layers that end before two thirds of the model, that is a third up the model, where states tell best what
    a text is about.
    """
    return layers[0] if layers else None


def fit_topics(
    layer: int, state_WSD: npt.NDArray[np.floating], domains: Sequence[str], documents: Sequence[str]
) -> TopicWeights | None:
    """The weights of real windows; None where they are of too few documents.

    Args:
        layer: Whose states they are.
        state_WSD: Of whole windows.
        domains: Of each.
        documents: Of each. Documents are compared within their domain alone, since what domains have in common says
            nothing of a document.
    """
    if not len(state_WSD):
        return None
    state_WSD = state_WSD.astype(np.float64)
    segments = state_WSD.shape[1]
    about_ED = (state_WSD - state_WSD.mean(axis=1, keepdims=True)).reshape(-1, state_WSD.shape[-1])
    freedom = len(state_WSD) * (segments - 1)
    mean_D, scale_D = state_WSD.mean(axis=(0, 1)), np.sqrt((about_ED**2).sum(axis=0) / freedom) + _LEAST_SPREAD
    about_ED /= scale_D
    within_DD = (1 - SHRINK) * (about_ED.T @ about_ED) / freedom + SHRINK * np.eye(len(mean_D))
    middle_MD = _about_their_domain(state_WSD.mean(axis=1) / scale_D, domains, documents)
    if len(middle_MD) < FEWEST_DOCUMENTS:
        return None
    # The directions along which documents differ most, measured by how much the segments of a document do: those of
    # the eigenvectors of M S⁻¹ Mᵀ, which is small, for S the covariance within documents.
    solved_DM = np.linalg.solve(within_DD, middle_MD.T)
    variance_K, vectors_MK = np.linalg.eigh(middle_MD @ solved_DM)
    variance_K, vectors_MK = variance_K[::-1][:DIRECTIONS], vectors_MK[:, ::-1][:, :DIRECTIONS]
    direction_KD = (solved_DM @ vectors_MK / np.sqrt(np.maximum(variance_K, _LEAST_BETWEEN))).T / scale_D
    between_K = variance_K / len(middle_MD) - 1 / segments
    return TopicWeights(
        layer=layer,
        directions=tuple(tuple(float(f"{one:.4g}") for one in row_D) for row_D in direction_KD),
        offsets=tuple(round(float(one), 6) for one in -direction_KD @ mean_D),
        between=tuple(round(max(float(one), _LEAST_BETWEEN), 6) for one in between_K),
    )


def _about_their_domain(middle_WD: Floats, domains: Sequence[str], documents: Sequence[str]) -> Floats:
    """The middle of each document, from the middle of its domain, scaled up for what the latter took of it."""
    found = []
    for domain in sorted(set(domains)):
        places: dict[str, list[int]] = {}
        for place, document in enumerate(documents):
            if domains[place] == domain:
                places.setdefault(document, []).append(place)
        if len(places) > 1:
            middle_MD = np.stack([middle_WD[one].mean(axis=0) for one in places.values()])
            middle_MD -= middle_MD.mean(axis=0)
            found.append(middle_MD * np.sqrt(len(middle_MD) / (len(middle_MD) - 1)))
    return np.concatenate(found) if found else np.zeros((0, middle_WD.shape[1]))
