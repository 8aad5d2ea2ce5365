"""Topics: the odds of two segments, what they come to for a window, and how they are fitted."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ladm.tasks.evaluation.topics import FEWEST_DOCUMENTS, fit_topics, topic_layer
from ladm.tasks.scorers.segments import GRID
from ladm.tasks.scorers.topics import FEATURES, MOST, TopicWeights, pair_odds, topic_features

ALONG_ONE = TopicWeights(layer=3, directions=((1.0, 0.0),), offsets=(0.0,), between=(4.0,))
"""Documents differ along the first dimension, with the variance 4; segments have 1; the second says nothing."""


def window(*topics: float, segments: int = GRID) -> np.ndarray:
    """A window whose parts, equally long, lie at these places along the first dimension."""
    along_S = np.repeat(topics, segments // len(topics))
    return np.stack([along_S, np.full(segments, 9.0)], axis=1)


def told(*topics: float) -> dict[str, float]:
    return dict(zip(FEATURES, topic_features(ALONG_ONE, window(*topics)).tolist(), strict=True))


def test_odds_are_the_ratio_of_two_normal_densities() -> None:
    state_SD = np.random.default_rng(0).normal(size=(GRID, 2))
    odds_SS = pair_odds(ALONG_ONE, state_SD)
    same = np.linalg.inv(np.array([[5.0, 4.0], [4.0, 5.0]]))
    for one, two in ((0, 1), (5, 20)):
        pair = state_SD[[one, two], 0]
        of_one = -pair @ same @ pair / 2 - np.log(25 - 16) / 2
        of_two = -pair @ pair / 5 / 2 - np.log(25) / 2
        assert odds_SS[one, two] == pytest.approx(of_one - of_two)
    assert np.abs(pair_odds(ALONG_ONE, state_SD * 100)).max() == MOST


def test_a_window_of_two_topics_has_a_weak_cut_and_one_of_turns_can_be_parted() -> None:
    whole, halves, turns = told(1.5), told(3.0, -3.0), told(3.0, -3.0, 3.0, -3.0, 3.0, -3.0, 3.0, -3.0)
    assert whole["topics-weakest-cut"] > 0 > halves["topics-weakest-cut"]
    assert halves["topics-weakest-cut-relative"] < -5
    assert whole["topics-weakest-cut-relative"] == pytest.approx(0)
    assert whole["topics-mean"] > halves["topics-mean"]
    for broken in (halves, turns):
        assert broken["topics-parting"] == pytest.approx(halves["topics-parting"])
        assert broken["topics-parting"] < whole["topics-parting"] - 5
    assert turns["topics-weakest-cut-relative"] > halves["topics-weakest-cut-relative"] + 3, "each side has both"
    assert turns["topics-echo"] < -5, "one turn further on is another text, two turns on the same one"
    assert min(halves["topics-echo"], whole["topics-echo"]) > -1e-9


def test_turns_within_a_part_of_the_grid_are_heard_in_a_longer_window() -> None:
    """Of 128 segments each part of the grid holds four: two of one text and two of the other look alike there."""
    turns = topic_features(ALONG_ONE, window(*[3.0, -3.0] * 32, segments=4 * GRID))
    whole = topic_features(ALONG_ONE, window(1.5, segments=4 * GRID))
    found = dict(zip(FEATURES, (turns - whole).tolist(), strict=True))
    assert found["topics-echo"] < -5
    assert abs(found["topics-parting"]) < 1, "nothing is told on the grid"


def test_nothing_is_told_without_weights() -> None:
    assert topic_features(None, np.zeros((0, 0))).tolist() == [0.0] * len(FEATURES)


def drawn(documents: int, seed: int) -> tuple[np.ndarray, list[str], list[str]]:
    """Windows of two domains: their documents differ along the first of five dimensions, domains along the second."""
    chance = np.random.default_rng(seed)
    states, domains, names = [], [], []
    for number in range(documents):
        domain = number % 2
        middle = np.array([chance.normal(0, 3), 20.0 * domain, 0, 0, 0])
        states.append(middle + chance.normal(size=(GRID, 5)) * np.array([1, 1, 5, 1, 1]))
        domains.append(("Books", "Code")[domain])
        names.append(f"{seed}-{number}")
    return np.stack(states), domains, names


def test_the_fit_finds_along_what_documents_differ_and_domains_have_no_say() -> None:
    weights = fit_topics(7, *drawn(80, 0))
    assert weights is not None
    assert weights.layer == 7
    first_D = np.abs(np.array(weights.directions[0]))
    assert first_D.argmax() == 0
    assert first_D[0] == pytest.approx(1.0, abs=0.3), "segments have the variance 1"
    assert weights.between[0] == pytest.approx(9.0, rel=0.4)
    states, _, names = drawn(10, 1)
    own = np.mean([topic_features(weights, state)[2] for state in states])
    halved = [np.concatenate([states[n][:16], states[n - 2][16:]]) for n in range(len(names))]
    assert own > np.mean([topic_features(weights, state)[2] for state in halved]) + 0.5


def test_too_few_documents_tell_nothing_of_how_documents_differ() -> None:
    states, domains, names = drawn(80, 0)
    assert fit_topics(7, states[:0], [], []) is None
    few = FEWEST_DOCUMENTS - 1
    assert fit_topics(7, states[:few], domains[:few], names[:few]) is None
    assert fit_topics(7, states, [str(number) for number in range(80)], names) is None, "each is alone in its domain"
    assert fit_topics(7, states, domains, ["the same"] * 80) is None


def test_the_layer() -> None:
    assert topic_layer((10, 11, 12)) == 10
    assert topic_layer(()) is None


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValidationError, match="do not fit each other"):
        TopicWeights(layer=1, directions=((1.0,),), offsets=(), between=(1.0,))
