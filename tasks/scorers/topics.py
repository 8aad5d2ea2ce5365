"""Topics: are the parts of a window about the same things?

What a text is about shows in the model's inner states. So the window is cut into segments, and of each the mean state
of its tokens is taken, as the attention of one layer gets it. A segment of a document is then a draw: the documents of
a domain lie around each other, and the segments of a document around its middle, both normally distributed. By this
model (probabilistic linear discriminant analysis, Ioffe 2006) the log odds of any two segments are told, that they are
of one document and not of two. It is fitted on real documents alone; of broken windows it knows nothing.

Told of a window is what the odds come to across its weakest cut, between the two sets of parts that have least to do
with each other, and whether they rise again with distance (`echo.py`): the last two find texts that take turns.

Dimensions in names: S segments (`segments.py`), G parts of the grid, D dimensions of a state, K directions, C cuts, F
features.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import model_validator

from ladm.tasks.scorers.echo import echo
from ladm.tasks.scorers.parting import order_of_parts
from ladm.tasks.scorers.segments import GRID, on_the_grid
from ladm.tasks.settings import Settings

Floats = npt.NDArray[np.float64]

FEATURES = ("topics-weakest-cut", "topics-weakest-cut-relative", "topics-mean", "topics-parting", "topics-echo")
"""What is told of a window."""
MOST = 20.0
"""Log odds beyond this say no more."""
_CUTS = range(GRID // 5, GRID - GRID // 5 + 1)
_FEWEST = GRID // 4
"""Parts of the grid in the smaller set when the window is parted."""


class TopicWeights(Settings):
    """What makes log odds of states."""

    layer: int
    """The layer, from 0, whose attention gets the states."""
    directions: tuple[tuple[float, ...], ...]
    """K rows of D numbers: along each of them the segments of a document have the variance 1."""
    offsets: tuple[float, ...]
    """Added to each: 0 is the middle of real segments."""
    between: tuple[float, ...]
    """Along each direction, the variance of the documents of a domain."""

    @cached_property
    def direction_kd(self) -> Floats:
        """The directions as an array: there are thousands of numbers, and they are used for every window."""
        return np.array(self.directions)

    @model_validator(mode="after")
    def _shapes_fit(self) -> TopicWeights:
        if not len(self.directions) == len(self.offsets) == len(self.between):
            raise ValueError("the weights of topics do not fit each other")
        return self


def pair_odds(weights: TopicWeights, state_SD: npt.NDArray[np.floating]) -> Floats:
    """odds_SS: of each two segments, the log odds that they are of one document, at even chances."""
    z_SK = state_SD.astype(np.float64) @ weights.direction_kd.T + np.array(weights.offsets)
    between_K = np.array(weights.between)
    # Of one document, the two draws along a direction have the covariance `between`; of two, none.
    variance_K = 1 + between_K
    determinant_K = variance_K**2 - between_K**2
    own_S = (z_SK**2) @ (1 / variance_K - variance_K / determinant_K) / 2
    odds_SS = own_S[:, None] + own_S + (z_SK * (between_K / determinant_K)) @ z_SK.T
    odds_SS -= np.log(determinant_K / variance_K**2).sum() / 2
    clipped_SS: Floats = np.clip(odds_SS, -MOST, MOST)
    return clipped_SS


def topic_features(weights: TopicWeights | None, state_SD: npt.NDArray[np.floating]) -> Floats:
    """What is told of one window, in the order of `FEATURES`: all lower, the more it falls apart. 0 without weights."""
    if weights is None:
        return np.zeros(len(FEATURES))
    odds_SS = pair_odds(weights, state_SD)
    odds_GG = on_the_grid(odds_SS)
    across_C, within_C = np.array([_across_and_within(odds_GG, cut) for cut in _CUTS]).T
    mean = odds_GG.sum() / (GRID * (GRID - 1))
    return np.array([across_C.min(), (across_C - within_C).min(), mean, _parting(odds_GG), echo(odds_SS)])


def _across_and_within(odds_GG: Floats, cut: int) -> tuple[float, float]:
    """The mean odds of pairs of a part before the cut and one after it, and of pairs on one side."""
    after = len(odds_GG) - cut
    across = odds_GG[:cut, cut:].sum()
    pairs_within = (cut * (cut - 1) + after * (after - 1)) / 2
    within = odds_GG.sum() / 2 - across
    return float(across / (cut * after)), float(within / pairs_within)


def _parting(odds_GG: Floats) -> float:
    """Between the two sets of parts that have least to do with each other: the odds across, less those within.

    The sets are found by the links between parts (`parting.py`).
    """
    link_GG = np.exp(np.clip(odds_GG / 2, -MOST / 2, MOST / 2))
    np.fill_diagonal(link_GG, 0)
    order_G = order_of_parts(link_GG)
    ordered_GG = odds_GG[order_G][:, order_G]
    found = (_across_and_within(ordered_GG, size) for size in range(_FEWEST, GRID - _FEWEST + 1))
    return min(across - within for across, within in found)
