"""Echo: are places further apart more alike than nearer ones?

In a text the likeness of two places falls the further they lie apart. Where two texts take turns it comes back: one
turn further on is the other text, two turns further on the first one again. It tells nothing else, neither of splices
nor of halves.

Dimensions in names: X places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def echo(link_XX: npt.NDArray[np.float64]) -> float:
    """How far likeness falls without coming back: the lower, the more two texts take turns.

    Likeness at a distance is the mean link of the places that lie so far apart, up to half of the window; further
    distances are taken together, a quarter of each. Told is, with its sign turned, by how much the likeness at some
    distance is above the least at shorter ones.
    """
    most = len(link_XX) // 2
    at = np.array([np.diagonal(link_XX, distance).mean() for distance in range(1, most + 1)])
    begins = [1]
    while (following := begins[-1] + max(1, begins[-1] // 4)) <= most:
        begins.append(following)
    likeness = np.add.reduceat(at, np.array(begins) - 1) / np.diff([*begins, most + 1])
    return float((np.minimum.accumulate(likeness)[:-1] - likeness[1:]).min())
