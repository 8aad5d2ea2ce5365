"""Parting: which places of a window belong together, by how strongly each two of them are linked.

Dimensions in names: X places.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def order_of_parts(link_XX: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The places in the order in which two sets lie at its ends that have little to do with each other.

    It is that of the second eigenvector of the normalised links (Shi and Malik, Normalized cuts and image segmentation,
    2000). Where the one set ends is for the caller to find.
    """
    degree_X = link_XX.sum(axis=1)
    _, vectors_XX = np.linalg.eigh(link_XX / np.sqrt(np.outer(degree_X, degree_X)))
    return np.argsort(vectors_XX[:, -2] / np.sqrt(degree_X), kind="stable")
