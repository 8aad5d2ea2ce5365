"""Attention by distance against eager attention, and the order score that adds it up."""

from __future__ import annotations

from pathlib import Path

import ladm_reference as reference
import numpy as np
import pytest
import tiny_models
from tiny_models import SHAPE, windows
from transformers import LlamaConfig

from ladm.tasks.scorers.attention import one_pass
from ladm.tasks.scorers.calculator import load_calculator, token_ids
from ladm.tasks.scorers.calibration import ProfileWeights, Weights, profile_score
from ladm.tasks.scorers.distance_profile import CELLS, DISTANCES, FEATURES, profile_features, profile_plan
from ladm.tasks.scorers.ladm import LadmConfig
from ladm.tasks.scorers.window_scores import score_windows

LENGTH = 2 * CELLS + 37  # cells of two tokens, and a rest
CONFIG = LadmConfig(span=8, d_afs=2, d_cds=3, device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save(LlamaConfig(**SHAPE), tmp_path_factory.mktemp("llama"))


def expected_features(attention_HLL: np.ndarray, cell: int) -> np.ndarray:
    """f_HF by plain loops."""
    features = []
    for matrix in attention_HLL:
        share: dict[int, list[float]] = {distance: [] for distance in DISTANCES}
        sink = []
        for query in range(8, CELLS, 2):
            rows = matrix[query * cell : (query + 1) * cell]
            on = lambda key, rows=rows: rows[:, key * cell : (key + 1) * cell].sum() / cell  # noqa: E731
            for distance in DISTANCES:
                if distance < query:
                    share[distance].append(on(query - distance))
            sink.append(on(0))
        means = [np.mean(share[distance]) for distance in DISTANCES]
        features.append(np.log(np.array([*means, np.mean(sink), np.std(sink)]) + 1e-6))
    return np.array(features)


def test_profile_against_eager_attention(folder: Path) -> None:
    calculator = load_calculator(folder, CONFIG)
    plan = profile_plan(LENGTH)
    ids_BL = windows(2, LENGTH)
    passed = one_pass(calculator, {plan: [0, 2]}, token_ids(calculator, ids_BL))
    found_BNHF = profile_features(plan, passed.pfs[plan])
    assert found_BNHF.shape == (2, 2, 4, len(FEATURES))
    for found_NHF, ids_L in zip(found_BNHF, ids_BL, strict=True):
        layers = reference.eager_attentions(folder, ids_L)
        np.testing.assert_allclose(found_NHF[0], expected_features(layers[0], 2), atol=1e-3)
        np.testing.assert_allclose(found_NHF[1], expected_features(layers[2], 2), atol=1e-3)


def test_scores_by_the_profile_come_from_the_same_pass(folder: Path) -> None:
    chance = np.random.default_rng(0)
    weights = chance.normal(size=(1, 4, len(FEATURES)))
    order = ProfileWeights(layers=(1,), weights=weights.tolist(), offset=0.5)
    dependency = ProfileWeights(layers=(1, 2), weights=np.concatenate([2 * weights, 0 * weights]).tolist())
    calculator = load_calculator(folder, CONFIG)
    ids_BL = windows(2, LENGTH)
    chosen = CONFIG.model_copy(update={"layers": (0, 2)})
    run: list[int] = []
    for number, layer in enumerate(calculator.model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: run.append(number))
    scores = score_windows(calculator, chosen, ids_BL, Weights(sums={"order": order, "dependency": dependency}))
    assert run == [0, 1, 2] * (len(run) // 3)
    for score, ids_L in zip(scores, ids_BL, strict=True):
        layer = reference.eager_attentions(folder, ids_L)[1]
        expected = (expected_features(layer, 2) * weights[0]).sum()
        assert score.by_profile["order"] == pytest.approx(expected + 0.5, abs=0.05)
        assert score.by_profile["dependency"] == pytest.approx(2 * (score.by_profile["order"] - 0.5), abs=1e-6)
    without = score_windows(calculator, chosen, ids_BL)
    for one, other in zip(scores, without, strict=True):
        assert one.cds_per_layer == pytest.approx(other.cds_per_layer, rel=1e-5)
        assert other.by_profile == {}
    run.clear()
    score_windows(calculator, CONFIG.model_copy(update={"layers": (0,)}), ids_BL[:1], Weights(sums={"order": order}))
    assert run == [0, 1], "the pass ends at the last layer that either score needs"


def test_a_score_by_the_profile_is_a_weighted_sum() -> None:
    weights = np.zeros((1, 2, len(FEATURES)))
    weights[0, 1, 3] = 2.0
    profile = np.zeros((1, 2, len(FEATURES)))
    profile[0, 1, 3] = 1.5
    order = ProfileWeights(layers=(4,), weights=weights.tolist(), offset=-1)
    assert profile_score(order, profile, (4,)) == 2.0
    assert profile_score(order, np.concatenate([np.ones_like(profile), profile]), (3, 4)) == 2.0
