"""Fitting sums over the profile of attention that tell whole windows from broken ones, beside coherence.

One regression for each way of breaking (`against.py`). They are further parts of the soft minimum that the dependency
is (`coherence.py` has the others): they tell broken windows less well, but do not take lists and tables for text, which
coherence does.

Dimensions in names: W windows, N layers, H heads, F features, X = N·H·F.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.against import Features, Ridge, fit_parts, folds_of, scales_of
from ladm.tasks.scorers.calibration import ProfileWeights

Floats = npt.NDArray[np.float64]

RIDGE = 2.0
"""Times the number of features, which are standardised."""
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
    scales = scales_of(kinds, _FEWEST_WINDOWS)
    if not scales:
        return {}
    x_WX = profile_WNHF.astype(np.float64).reshape(len(kinds), -1)
    found = Features(x_WX, np.array(kinds), np.array(domains), folds_of(documents))
    held = Ridge(lambda windows, features: ridge * features, _LEAST_SPREAD)
    return {
        scale: stored(layers, weight_X.reshape(profile_WNHF.shape[1:]), offset)
        for scale, (weight_X, offset) in fit_parts(found, scales, held, None if own is None else np.array(own)).items()
    }


def stored(layers: Sequence[int], weight_NHF: Floats, offset: float) -> ProfileWeights:
    """Weights as a calibration keeps them, rounded."""
    return ProfileWeights(
        layers=tuple(layers),
        weights=tuple(tuple(tuple(round(float(w), 6) for w in head) for head in layer) for layer in weight_NHF),
        offset=round(offset, 6),
    )
