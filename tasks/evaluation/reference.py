"""Which windows of a corpus are real text, so that a calibration may be made from them.

A corpus may be half junk, and must not teach the gate that junk is normal. So what is trusted is the bundled sample: a
gate is fitted on its windows alone, and windows of the corpus that are like them are let in. It looks once: if what was
let in let in more, one window of junk would draw in all of its kind.

Where a calibration is shipped for the model, at another length, the gate is that one, centred on the windows that are
trusted (`carry_over.py`): it knows more of real text than the sample can tell. Otherwise a shipped gate lends its view
of the text (`gate.py`).

Where the sample is too short for the window, nothing is trusted beforehand: the gate is fitted on the half of the
corpus's windows that are least unlike what the shipped gate knows, or, without one, that lie nearest to the median of
all, and lets in the others in the same way.

What is let in is far less than what a gate lets pass: else one kind of junk that a corpus is half of would be let in,
and then be normal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ladm.tasks.evaluation.gate import FEWEST_WINDOWS, Windows
from ladm.tasks.scorers.gate import Gate, gate_distances

Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]

LET_IN = 1.5
"""Windows of more unlikeness are not let in: the unit is how far from the middle nine in ten of those
trusted are."""
LET_IN_BY_KNOWN = 1.0
"""The same where the gate knows real windows of another length: what it tells is surer."""


def real_text(
    fitted: Callable[[Windows], Gate | None], windows: Windows, trusted_W: Chosen, known: Gate | None = None
) -> Chosen:
    """Of W windows, those that are real text as far as can be told.

    Args:
        fitted: Makes a gate of real windows; None of too few.
        windows: Windows of the corpus and of the sample.
        trusted_W: Which are of the sample.
        known: A gate that knows real windows of another length.

    Returns:
        real_W: the trusted windows, and those that were let in. All windows where they are too few to fit a gate on.
    """
    if len(windows.features) < FEWEST_WINDOWS:
        return np.ones(len(windows.features), bool)
    reference_W = trusted_W
    if trusted_W.sum() < FEWEST_WINDOWS:
        far_W = gate_distances(known, windows.features) if known else _from_median(windows)
        reference_W = trusted_W | _nearest(far_W)
    gate = fitted(windows.some(reference_W))
    if gate is None:
        return np.ones(len(windows.features), bool)
    let_in = min(LET_IN_BY_KNOWN if known else LET_IN, gate.threshold)
    real_W: Chosen = trusted_W | (gate_distances(gate, windows.features) <= let_in)
    return real_W


def _from_median(windows: Windows) -> Floats:
    """How far each window lies from the median of all."""
    middle_G = np.median(windows.features, axis=0)
    scale_G = np.median(np.abs(windows.features - middle_G), axis=0) + 1e-6
    far_W: Floats = np.minimum(np.abs(windows.features - middle_G) / scale_G, 10.0).mean(axis=1)
    return far_W  # at most 10 each: one wild feature is not all


def _nearest(far_W: Floats) -> Chosen:
    """The half of the windows, or as many as a gate needs, that are least far."""
    count = max(FEWEST_WINDOWS, len(far_W) // 2)
    chosen_W = np.zeros(len(far_W), bool)
    chosen_W[np.argsort(far_W, kind="stable")[:count]] = True
    return chosen_W
