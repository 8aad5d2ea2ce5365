"""Which windows of a corpus are real text, so that a calibration may be made from them.

A corpus may be half junk, and must not teach the gate that junk is normal. So what is trusted is the bundled sample: a
gate is fitted on its windows alone, and windows of the corpus that are like them are let in.
Once more with those that were let in, so that a language or a kind of text that the sample lacks is not shut out
because it was met first.

Where the sample is too short for the window, nothing is trusted beforehand: the gate is fitted on the half of the
corpus's windows that lie nearest to its median, and lets in the others in the same way.

What is let in is far less than what a gate lets pass: else one kind of junk that a corpus is half of would be let in,
and then be normal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.gate import FEWEST_WINDOWS, Windows, fit_gate
from ladm.tasks.scorers.gate import gate_distances

Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]

ROUNDS = 3
LET_IN = 2.5
"""Windows of more unlikeness are not let in: the unit is how far from the middle nine in ten of those
trusted are."""


def real_text(layers: Sequence[int], windows: Windows, trusted_W: Chosen) -> Chosen:
    """Of W windows, those that are real text as far as can be told.

    Args:
        layers: The layers whose profile is in the features.
        windows: Windows of the corpus and of the sample.
        trusted_W: Which are of the sample.

    Returns:
        real_W: the trusted windows, and those that were let in. All windows where they are too few to fit a gate on.
    """
    if len(windows.features) < FEWEST_WINDOWS:
        return np.ones(len(windows.features), bool)
    real_W = trusted_W.copy() if trusted_W.sum() >= FEWEST_WINDOWS else trusted_W | _nearest(windows)
    for _ in range(ROUNDS):
        gate = fit_gate(layers, some_windows(windows, real_W))
        if gate is None:
            return np.ones(len(windows.features), bool)
        let_in_W = trusted_W | (gate_distances(gate, windows.features) <= min(LET_IN, gate.threshold))
        if np.array_equal(let_in_W, real_W):
            break
        real_W = let_in_W
    return real_W


def some_windows(windows: Windows, chosen_W: Chosen) -> Windows:
    """Those of the windows that are chosen."""
    places = np.flatnonzero(chosen_W).tolist()
    return Windows(
        windows.features[places],
        [windows.domains[place] for place in places],
        [windows.documents[place] for place in places],
    )


def _nearest(windows: Windows) -> Chosen:
    """The half of the windows, or as many as a gate needs, whose features lie nearest to the median of all."""
    middle_G = np.median(windows.features, axis=0)
    scale_G = np.median(np.abs(windows.features - middle_G), axis=0) + 1e-6
    far_W = np.minimum(np.abs(windows.features - middle_G) / scale_G, 10.0).mean(axis=1)  # one wild feature is not all
    count = max(FEWEST_WINDOWS, len(far_W) // 2)
    chosen_W = np.zeros(len(far_W), bool)
    chosen_W[np.argsort(far_W, kind="stable")[:count]] = True
    return chosen_W
