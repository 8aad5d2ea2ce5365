"""Coherence: the odds that two places are of one document, what they come to, and how they are fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from ladm.tasks.evaluation.coherence import Made, fit_coherence
from ladm.tasks.evaluation.passages import owners
from ladm.tasks.scorers import vocabulary
from ladm.tasks.scorers.coherence import (
    APART,
    FEATURES,
    MOST,
    Coherence,
    FeatureWeights,
    PairWeights,
    coherence_features,
    log_odds,
    log_shares,
    pairs_of,
)
from ladm.tasks.scorers.distance_profile import CELLS, profile_plan
from ladm.tasks.scorers.gate import soft_minimum

LENGTH = 512
PLAN = profile_plan(LENGTH)
PAIRS = pairs_of(PLAN)
NO_WORDS = np.zeros(len(vocabulary.FEATURES))
"""What is told of the vocabulary where attention alone is looked at."""


def of_kind(kind: str, chance: np.random.Generator) -> np.ndarray:
    """Whose each cell is."""
    if kind == "halves":
        return (np.arange(CELLS) >= chance.integers(50, 78)).astype(int)
    if kind == "interleaved":
        return np.arange(CELLS) // chance.integers(6, 20) % 2
    return np.zeros(CELLS, int) if kind == "whole" else np.arange(CELLS) // chance.integers(8, 25)


def made(count: int, seed: int, told: float) -> Made:
    """Windows in which one head of six attends less to text of another document."""
    chance = np.random.default_rng(seed)
    kinds = [kind for kind in ("whole", "spliced", "halves", "interleaved") for _ in range(count)]
    owner_WC = np.stack([of_kind(kind, chance) for kind in kinds])
    share = chance.normal(-6, 1, (len(kinds), 2, 3, len(PAIRS.places)))
    share[:, 1, 2] -= told * (owner_WC[:, PAIRS.query] != owner_WC[:, PAIRS.key])
    domains = [("Books", "Code")[number % 2] for number in range(len(kinds))]
    documents = [f"{seed}-{number % count}" for number in range(len(kinds))]
    return Made(share, kinds, domains, documents, np.tile(NO_WORDS, (len(kinds), 1)), owner_WC)


def score(coherence: Coherence, share_NHP: np.ndarray) -> float:
    """How coherent a window is, by coherence alone."""
    return soft_minimum(list(coherence.parts(coherence.features(PLAN, share_NHP, NO_WORDS)).values()))


def auc(above: np.ndarray, below: np.ndarray) -> float:
    return float((above[:, None] > below[None]).mean())


def test_pairs_are_neither_of_a_cell_with_itself_nor_with_the_sink() -> None:
    cells = [(query.start // PLAN.span, key // PLAN.span) for query in PLAN.queries for key in query.key_starts]
    assert [cells[place] for place in PAIRS.places] == list(zip(PAIRS.query, PAIRS.key, strict=True))
    assert (PAIRS.key > 0).all()
    assert [APART[place] for place in PAIRS.distance] == (PAIRS.query - PAIRS.key).tolist()


def test_the_share_of_a_row() -> None:
    pfs = np.full((1, 1, sum(len(query.key_starts) for query in PLAN.queries)), 0.5 * PLAN.span)
    np.testing.assert_allclose(log_shares(PLAN, pfs), np.log(0.5), rtol=1e-4)


def test_features_of_odds_worked_by_hand() -> None:
    odds = np.where((PAIRS.query >= 64) & (PAIRS.key < 64), -2.0, 1.0)
    features = dict(zip(FEATURES, coherence_features(odds, np.zeros(len(APART)), PAIRS, NO_WORDS), strict=True))
    at_ten = odds[PAIRS.query - PAIRS.key == 10]
    assert features["mean-10"] == pytest.approx(at_ten.mean())
    assert features["spread-10"] == pytest.approx(at_ten.std())
    assert features["weakest-cut"] == pytest.approx(-2.0, abs=0.2), "all that reaches over the cut at 64 says no"
    assert features["weakest-cut-relative"] < -2
    assert features["lowest-tenth"] == -2.0
    whole = dict(
        zip(FEATURES, coherence_features(np.ones_like(odds), np.zeros(len(APART)), PAIRS, NO_WORDS), strict=True)
    )
    assert whole["weakest-cut"] == 1.0
    assert whole["weakest-cut-relative"] == pytest.approx(0.0)


def test_one_pair_does_not_decide() -> None:
    weights = PairWeights(
        layers=(3,), weights=(((5.0,) * len(APART),),), offsets=(1.0,) * len(APART), usual=(0.0,) * len(APART)
    )
    odds = log_odds(weights, PAIRS, np.where(np.arange(len(PAIRS.places)) == 7, 100.0, 0.1)[None, None])
    assert odds[7] == MOST
    assert odds[8] == pytest.approx(1.5)


def test_what_is_fitted_tells_whole_windows_from_every_way_of_breaking_that_it_has_not_seen() -> None:
    coherence = fit_coherence((4, 9), PLAN, made(40, 0, told=1.0))
    assert coherence is not None
    assert set(coherence.against) == {"spliced", "halves", "interleaved"}, "there were no crumbs"
    weights = np.abs(np.array(coherence.pairs.weights)).mean(axis=2)
    assert weights[1, 2] > 5 * np.delete(weights.ravel(), 5).max(), "one head tells"
    others = made(20, 1, told=1.0)
    scores = np.array([score(coherence, share) for share in others.shares])
    kinds = np.array(others.kinds)
    for kind in ("spliced", "halves", "interleaved"):
        assert auc(scores[kinds == "whole"], scores[kinds == kind]) > 0.95, kind
    assert abs(scores[kinds == "whole"].mean()) < 0.7, "real windows lie about zero"
    # Where attention says nothing of whose text it is, nothing is told.
    blind = fit_coherence((4, 9), PLAN, made(40, 2, told=0.0))
    assert blind is not None
    scores = np.array([score(blind, share) for share in made(20, 3, told=0.0).shares])
    assert auc(scores[kinds == "whole"], scores[kinds == "halves"]) < 0.8


def test_too_few_windows() -> None:
    assert fit_coherence((4, 9), PLAN, made(10, 0, told=1.0)) is None


def test_whose_a_cell_is() -> None:
    found = owners(256, (100, 101), (0, 1, 0))  # cells of two tokens: one token of another document
    assert found[:50].tolist() == [0] * 50
    assert found[50] == -1, "half of it is of another"
    assert found[51:].tolist() == [0] * 77


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(ValidationError, match="do not fit distances"):
        PairWeights(layers=(0,), weights=(((1.0,),),), offsets=(0.0,), usual=(0.0,))
    with pytest.raises(ValidationError, match="run `ladm evaluate` again"):
        FeatureWeights(weights=(1.0,))


def test_vocabulary_tells_where_attention_does_not_and_more_than_enough_of_it_tells_nothing() -> None:
    """The parts of broken windows share fewer of their words; their attention is as in whole ones."""
    silent, chance = made(40, 0, told=0.0), np.random.default_rng(1)
    is_whole = np.array([kind == "whole" for kind in silent.kinds])
    shared = np.where(is_whole, 0.5, 0.3)[:, None] + chance.normal(0, 0.05, (len(is_whole), len(NO_WORDS)))
    coherence = fit_coherence((4, 9), PLAN, dataclasses.replace(silent, vocabulary=shared))
    assert coherence is not None
    scores = np.array(
        [
            soft_minimum(list(coherence.parts(coherence.features(PLAN, share, words)).values()))
            for share, words in zip(silent.shares, shared, strict=True)
        ]
    )
    assert auc(scores[is_whole], scores[~is_whole]) > 0.95
    enough = np.array(coherence.enough)
    assert ((enough > 0.45) & (enough < 0.6)).all()
    share = silent.shares[0]
    assert coherence.features(PLAN, share, enough) == pytest.approx(coherence.features(PLAN, share, enough + 1))
