"""Segments: how many a window has, and what they come to on the grid."""

from __future__ import annotations

import numpy as np
import pytest

from ladm.tasks.scorers.segments import GRID, on_the_grid, segments_of


@pytest.mark.parametrize(
    ("length", "segments"),
    [(32, 32), (301, 32), (1024, 32), (2047, 32), (2048, 64), (4096, 128), (8192, 256), (131_072, 256)],
)
def test_a_segment_has_some_32_tokens_until_there_are_256(length: int, segments: int) -> None:
    assert segments_of(length) == segments
    assert segments % GRID == 0


def test_parts_of_the_grid_are_linked_as_their_segments_are_on_average() -> None:
    link_SS = np.random.default_rng(0).random((2 * GRID, 2 * GRID))
    link_GG = on_the_grid(link_SS)
    assert link_GG[3, 7] == pytest.approx(link_SS[6:8, 14:16].mean())
    assert (np.diagonal(link_GG) == 0).all()
    np.testing.assert_allclose(on_the_grid(link_SS[:GRID, :GRID])[0, 1:], link_SS[0, 1:GRID])
