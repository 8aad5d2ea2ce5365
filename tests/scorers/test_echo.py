"""Echo: likeness that falls with distance, and likeness that comes back."""

from __future__ import annotations

import numpy as np
import pytest

from ladm.tasks.scorers.echo import echo


def links(at: np.ndarray) -> np.ndarray:
    """Links that hang on the distance alone."""
    place_X = np.arange(len(at))
    link_XX: np.ndarray = at[np.abs(place_X[:, None] - place_X)]
    return link_XX


def test_what_falls_with_distance_has_no_echo() -> None:
    assert echo(links(np.linspace(1, 0, 32))) > 0
    assert echo(links(np.full(32, 0.7))) == pytest.approx(0)


def test_the_echo_is_how_far_likeness_comes_back() -> None:
    at = np.full(64, 1.0)
    at[3:6], at[6] = 0.2, 0.9
    at[7:] = 0.1
    assert echo(links(at)) == pytest.approx(-0.7)


def test_distances_beyond_half_the_window_do_not_count() -> None:
    at = np.where(np.arange(64) > 32, 5.0, 1.0)
    assert echo(links(at)) == pytest.approx(0)


def test_further_distances_are_taken_together() -> None:
    """One of eight distances some thirty places off: its echo counts an eighth or less."""
    at = np.full(128, 0.0)
    at[40] = 8.0
    assert -2 < echo(links(at)) < -0.5
