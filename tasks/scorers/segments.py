"""Segments: the equal parts into which a window is cut to ask which of them are alike, some 32 tokens each.

What texts that take turns are made of is counted in tokens, whatever the window: so a longer window has more segments.

Dimensions in names: S segments, G parts of the grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

GRID = 32
"""Parts in which a window is looked at as a whole; a window has this many segments, or a multiple of it."""
_TOKENS = 32
_MOST = 8
"""Times the grid: a window has at most so many segments, as what is asked of them grows with their square and cube."""


def segments_of(length: int) -> int:
    """The number of segments of a window of so many tokens."""
    return GRID * min(max(1, length // (GRID * _TOKENS)), _MOST)


def on_the_grid(link_SS: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """link_GG: the mean of what links the segments of any two parts of the grid; nothing of a part with itself."""
    size = len(link_SS) // GRID
    link_GG: npt.NDArray[np.float64] = link_SS.reshape(GRID, size, GRID, size).mean(axis=(1, 3))
    np.fill_diagonal(link_GG, 0)
    return link_GG
