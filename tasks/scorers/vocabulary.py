"""Vocabulary: do the parts of a window use the same rare words?

A text says its names and terms again and again; two texts have few of theirs in common. So a window is parted in two,
and of the rare tokens of one part, the share that the other part has too is told: at each cut between what comes first
and what comes later, and for the parting of the window's cells into any two sets that have least in common, and whether
what cells share rises again with distance (`echo.py`), which both find texts that take turns. No model is needed.

How rare a token is follows from its number: the vocabularies of tokenizers are numbered by how often a token, or the
merge that makes it, was met.

Dimensions in names: L tokens, U distinct tokens, C cuts, X cells, F features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ladm.tasks.scorers.echo import echo
from ladm.tasks.scorers.parting import order_of_parts
from ladm.tasks.scorers.segments import segments_of

Floats = npt.NDArray[np.float64]

PARTINGS = (16, 32)
"""Numbers of cells into which a window is cut, to be parted."""
_FINE = 64
"""And once into so many, or as many as it has segments (`segments.py`)."""
FEATURES = (
    *("vocabulary-weakest-cut", "vocabulary-weakest-cut-relative", "vocabulary-cuts"),
    *(f"vocabulary-parting-{cells}" for cells in (*PARTINGS, "fine")),
    "vocabulary-echo",
)
"""What is told of a window."""
_COMMON = 1000
"""Tokens with lower numbers than this are in most texts, and weigh little."""
_LEAST_WEIGHT = 1e-3
_STEPS = 64  # of a window, from cut to cut
_FEWEST_SHARED = 3
"""A window in which fewer tokens come again can be parted anywhere."""
_FEWEST_CELLS = 8
_SMOOTHING = 0.1
"""Of the links between cells, as much in all between any two: a cell without links is no part of its own."""


def vocabulary_features(ids_L: npt.NDArray[np.integer]) -> Floats:
    """What is told of one window by its token ids, in the order of `FEATURES`: all lower, the more it falls apart."""
    ids_U, inverse_L = np.unique(ids_L, return_inverse=True)
    weight_U: Floats = np.log1p(ids_U / _COMMON) ** 2 + _LEAST_WEIGHT
    shared_C = _shared(inverse_L, weight_U)
    mean = float(shared_C.mean())
    cuts = [float(shared_C.min()), float(shared_C.min()) / mean if mean else 0.0, mean]
    segments = segments_of(len(ids_L))
    numbers = [min(cells, len(ids_L)) for cells in (*PARTINGS, max(_FINE, segments), segments)]
    link_of = {cells: _links(inverse_L, weight_U, cells) for cells in dict.fromkeys(numbers)}
    return np.array([*cuts, *(_parting(link_of[cells]) for cells in numbers[:-1]), _echo(link_of[numbers[-1]])])


def _shared(inverse_L: npt.NDArray[np.integer], weight_U: Floats) -> Floats:
    """Of the distinct tokens on the side of each cut that has less of them, the share that the other side has too."""
    length = len(inverse_L)
    place_L = np.arange(length)
    first_U, last_U = np.full(len(weight_U), length), np.full(len(weight_U), -1)
    np.minimum.at(first_U, inverse_L, place_L)
    np.maximum.at(last_U, inverse_L, place_L)
    cut_C1 = np.arange(length // 5, length - length // 5 + 1, max(1, length // _STEPS))[:, None]
    before_CU, after_CU = first_U < cut_C1, last_U >= cut_C1
    fewer_C = np.minimum(before_CU @ weight_U, after_CU @ weight_U)
    shared_C: Floats = ((before_CU & after_CU) @ weight_U) / np.maximum(fewer_C, _LEAST_WEIGHT)
    return shared_C


def _links(inverse_L: npt.NDArray[np.integer], weight_U: Floats, cells: int) -> Floats | None:
    """link_XX: how much of the rare tokens any two cells share, nothing with itself; None where nothing comes again."""
    has_XU = np.zeros((cells, len(weight_U)))
    has_XU[np.arange(len(inverse_L)) * cells // len(inverse_L), inverse_L] = 1
    in_cells_U = has_XU.sum(axis=0)
    linking_U = in_cells_U >= 2
    if linking_U.sum() < _FEWEST_SHARED:
        return None
    has_XU = has_XU[:, linking_U]
    # A token spreads its weight over the cells that have it, so that one that all have links none more than others.
    links_XX: Floats = (has_XU * (weight_U[linking_U] / (in_cells_U[linking_U] - 1))) @ has_XU.T
    np.fill_diagonal(links_XX, 0)
    return links_XX


def _parting(link_XX: Floats | None) -> float:
    """The least normalised cut of the window's cells: how much two sets of them have in common at least, 0 to 2.

    The sets, each with a quarter of the cells or more, are found by the links between cells (`parting.py`).
    """
    if link_XX is None:
        return 0.0
    cells = len(link_XX)
    smoothed_XX = link_XX + _SMOOTHING * link_XX.mean()
    order_X = order_of_parts(smoothed_XX)
    ordered_XX, degree_X = smoothed_XX[order_X][:, order_X], smoothed_XX.sum(axis=1)[order_X]
    size_X = np.arange(1, cells)
    within_X = np.cumsum(np.cumsum(ordered_XX, axis=0), axis=1)[size_X - 1, size_X - 1]
    one_X = np.cumsum(degree_X)[size_X - 1]
    across_X = one_X - within_X
    cut_X = across_X / one_X + across_X / (degree_X.sum() - one_X)
    return float(cut_X[(size_X >= cells // 4) & (size_X < cells - cells // 4)].min())


def _echo(link_XX: Floats | None) -> float:
    """Whether what cells share rises again with distance, in units of what they share on average."""
    return 0.0 if link_XX is None or len(link_XX) < _FEWEST_CELLS else echo(link_XX / link_XX.mean())
