"""Coherence: the odds that two places are of one document, what they come to, and how they are fitted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from pydantic import ValidationError

from ladm.tasks.evaluation.coherence import Made, fit_coherence
from ladm.tasks.evaluation.passages import owners
from ladm.tasks.scorers import topics, vocabulary
from ladm.tasks.scorers.coherence import (
    APART,
    FEATURES,
    MOST,
    Coherence,
    FeatureWeights,
    PairWeights,
    Seen,
    coherence_features,
    log_odds,
    log_shares,
    pairs_of,
)
from ladm.tasks.scorers.distance_profile import CELLS, profile_plan
from ladm.tasks.scorers.gate import soft_minimum
from ladm.tasks.scorers.segments import GRID

LENGTH = 512
PLAN = profile_plan(LENGTH)
PAIRS = pairs_of(PLAN)
NO_WORDS = np.zeros(len(vocabulary.FEATURES))
"""What is told of the vocabulary where attention alone is looked at."""
NO_STATES = np.zeros((0, 0))
NO_MORE = [NO_WORDS, np.zeros(len(topics.FEATURES))]


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
    words, states = np.tile(NO_WORDS, (len(kinds), 1)), np.tile(NO_STATES, (len(kinds), 1, 1))
    return Made(share, kinds, domains, documents, words, states, owner_WC)


def fitted(windows: Made, topic_layer: int | None = None) -> Coherence:
    found = fit_coherence((4, 9), topic_layer, PLAN, windows)
    assert found is not None
    return found.coherence


def score(coherence: Coherence, share_NHP: np.ndarray) -> float:
    """How coherent a window is, by coherence alone."""
    features = coherence.features(PLAN, Seen(share_NHP, NO_WORDS, NO_STATES))
    return soft_minimum(list(coherence.parts(features).values()))


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
    features = dict(zip(FEATURES, coherence_features(odds, np.zeros(len(APART)), PAIRS, NO_MORE), strict=True))
    at_ten = odds[PAIRS.query - PAIRS.key == 10]
    assert features["mean-10"] == pytest.approx(at_ten.mean())
    assert features["spread-10"] == pytest.approx(at_ten.std())
    assert features["weakest-cut"] == pytest.approx(-2.0, abs=0.2), "all that reaches over the cut at 64 says no"
    assert features["weakest-cut-relative"] < -2
    assert features["lowest-tenth"] == -2.0
    whole = dict(
        zip(FEATURES, coherence_features(np.ones_like(odds), np.zeros(len(APART)), PAIRS, NO_MORE), strict=True)
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
    coherence = fitted(made(40, 0, told=1.0))
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
    blind = fitted(made(40, 2, told=0.0))
    scores = np.array([score(blind, share) for share in made(20, 3, told=0.0).shares])
    assert auc(scores[kinds == "whole"], scores[kinds == "halves"]) < 0.8


def test_too_few_windows() -> None:
    assert fit_coherence((4, 9), None, PLAN, made(10, 0, told=1.0)) is None


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
    coherence = fitted(dataclasses.replace(silent, vocabulary=shared))
    scores = np.array(
        [
            soft_minimum(list(coherence.parts(coherence.features(PLAN, Seen(share, words, NO_STATES))).values()))
            for share, words in zip(silent.shares, shared, strict=True)
        ]
    )
    assert auc(scores[is_whole], scores[~is_whole]) > 0.95
    enough = np.array(coherence.enough)[: len(NO_WORDS)]
    assert ((enough > 0.45) & (enough < 0.6)).all()
    some, more = (coherence.features(PLAN, Seen(silent.shares[0], one, NO_STATES)) for one in (enough, enough + 1))
    assert more.sum() > some.sum(), "what there is, is told"
    assert list(coherence.parts(some).values()) == pytest.approx(list(coherence.parts(more).values()), abs=1e-5)


def test_topics_tell_where_nothing_else_does() -> None:
    """The segments of a window lie around the topics of the documents that it is made of."""
    silent, chance = made(60, 0, told=0.0), np.random.default_rng(2)
    topic_of = {document: chance.normal(size=24) for document in {*silent.documents, "another"}}
    states = np.stack(
        [
            np.stack([topic_of["another" if owner else document] for owner in owner_C[:: CELLS // GRID]])
            + chance.normal(size=(GRID, 24))
            for owner_C, document in zip(silent.owners, silent.documents, strict=True)
        ]
    )
    found = fit_coherence((4, 9), 5, PLAN, dataclasses.replace(silent, states=states))
    assert found is not None
    coherence = found.coherence
    assert coherence.topics is not None
    assert coherence.topics.layer == 5
    # The features are those of weights that have not seen the document, for whoever fits more to them.
    assert found.features.shape == (len(silent.kinds), len(FEATURES))
    kinds = np.array(silent.kinds)
    weakest = found.features[:, FEATURES.index("topics-weakest-cut")]
    assert auc(weakest[kinds == "whole"], weakest[kinds == "halves"]) > 0.95
    scores = np.array(
        [
            soft_minimum(list(coherence.parts(coherence.features(PLAN, Seen(share, NO_WORDS, state))).values()))
            for share, state in zip(silent.shares, states, strict=True)
        ]
    )
    assert auc(scores[kinds == "whole"], scores[kinds == "interleaved"]) > 0.9
    assert fitted(silent, None).topics is None, "no layer's states were kept"
